//! Codecs: typed messages to bytes and back.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use homa_transport::Message;

use super::status::Status;
use crate::util::thread_buffer;

/// Messages up to this length are copied once more, in bytes, to spare an allocation when they are cloned.
const SHORT_MAX: usize = 1024;

/// Turns messages of one type into bytes and bytes into messages of another.
///
/// A client encodes requests and decodes responses, a server the reverse. It is `Sync`, since a stream each
/// way may be encoded and decoded in two tasks at once.
pub trait Codec: Send + Sync + 'static {
    /// What is encoded.
    type Encode: Send + 'static;
    /// What is decoded.
    type Decode: Send + 'static;

    /// The bytes of `message`.
    ///
    /// # Errors
    /// If it cannot be encoded; by convention INTERNAL.
    fn encode(&self, message: Self::Encode) -> Result<Bytes, Status>;

    /// Appends the bytes of `message` to `buffer`, which holds earlier items of a stream. What is appended
    /// must be what [`encode`](Self::encode) would give.
    ///
    /// A codec that can write there at once spares a copy of each item.
    ///
    /// # Errors
    /// As [`encode`](Self::encode). What was appended is taken off again.
    fn encode_into(&self, message: Self::Encode, buffer: &mut Vec<u8>) -> Result<(), Status> {
        buffer.extend_from_slice(&self.encode(message)?);
        Ok(())
    }

    /// Length of what [`encode`](Self::encode) will make of `message`, in bytes, if that can be told
    /// without making it. A message over a limit is not encoded then.
    fn encoded_len(&self, message: &Self::Encode) -> Option<usize> {
        let _ = message;
        None
    }

    /// The message in `bytes`, all of them.
    ///
    /// # Errors
    /// If they are not such a message; by convention INTERNAL.
    fn decode(&self, bytes: Bytes) -> Result<Self::Decode, Status>;
}

/// Protocol Buffers by [`prost`].
pub struct ProstCodec<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> Default for ProstCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> fmt::Debug for ProstCodec<E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProstCodec")
    }
}

impl<E, D> Codec for ProstCodec<E, D>
where
    E: prost::Message + Send + 'static,
    D: prost::Message + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;

    fn encode(&self, message: E) -> Result<Bytes, Status> {
        let len = message.encoded_len();
        if len > SHORT_MAX {
            return Ok(message.encode_to_vec().into());
        }
        // Cheap to clone, which layers that retry do with every request.
        Ok(thread_buffer::with(len, |bytes| {
            message.encode_raw(bytes);
            Message::copy_of(&[bytes]).into_bytes()
        }))
    }

    fn encode_into(&self, message: E, buffer: &mut Vec<u8>) -> Result<(), Status> {
        message.encode_raw(buffer);
        Ok(())
    }

    fn encoded_len(&self, message: &E) -> Option<usize> {
        Some(message.encoded_len())
    }

    fn decode(&self, bytes: Bytes) -> Result<D, Status> {
        let len = bytes.len();
        D::decode(bytes).map_err(|error| {
            Status::internal(format!("cannot decode a message of {len} bytes: {error}"))
        })
    }
}
