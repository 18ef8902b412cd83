//! Limits of the length of single messages.

use bytes::Bytes;

use super::codec::Codec;
use super::request::CallOptions;
use super::status::Status;

/// Name of the option in errors.
pub(crate) const DECODING_LIMIT: &str = "`max_decoding_message_size`";

/// Name of the bound in errors where no option limits a message.
pub(crate) const LENGTH_LIMIT: &str = "the longest message that gRPC has";

/// Longest message that can be sent, in bytes: its length has 32 bits.
const LENGTH_MAX: usize = u32::MAX as usize;

/// Name of the option in errors.
const ENCODING_LIMIT: &str = "`max_encoding_message_size`";

/// Longest messages that a client or a service decodes and encodes, in bytes. In a stream each item is a
/// message of its own. A message over a limit is RESOURCE_EXHAUSTED, which names the option and both lengths.
///
/// A message that does not fit into one message of the transport travels in several. Whatever these say, it has at
/// most 4 GiB - 1 bytes. What a server holds of requests in all is bounded by
/// [`request_bytes_limit`](crate::ServerBuilder::request_bytes_limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    decoding: usize,
    encoding: usize,
}

impl Default for MessageLimits {
    /// 4 MiB for decoding, as in gRPC; no limit for encoding.
    fn default() -> Self {
        Self {
            decoding: 4 * 1024 * 1024,
            encoding: usize::MAX,
        }
    }
}

impl MessageLimits {
    /// The same with a limit for decoded messages, in bytes.
    #[must_use]
    pub const fn max_decoding_message_size(mut self, bytes: usize) -> Self {
        self.decoding = bytes;
        self
    }

    /// The same with a limit for encoded messages, in bytes.
    #[must_use]
    pub const fn max_encoding_message_size(mut self, bytes: usize) -> Self {
        self.encoding = bytes;
        self
    }

    /// The same with what is set for one call.
    pub(crate) fn for_call(self, options: &CallOptions) -> Self {
        Self {
            decoding: options.max_decoding_message_size.unwrap_or(self.decoding),
            encoding: options.max_encoding_message_size.unwrap_or(self.encoding),
        }
    }

    /// Encodes `message` unless it is too long, which is checked before if the codec can tell.
    pub(crate) fn encode<C: Codec>(self, codec: &C, message: C::Encode) -> Result<Bytes, Status> {
        if let Some(len) = codec.encoded_len(&message) {
            self.check_encoding(len)?;
        }
        let message = codec.encode(message)?;
        self.check_encoding(message.len())?;
        Ok(message)
    }

    pub(crate) const fn decoding_max(&self) -> usize {
        self.decoding
    }

    pub(crate) fn check_decoding(&self, len: usize) -> Result<(), Status> {
        check(len, self.decoding, DECODING_LIMIT)
    }

    pub(crate) fn check_encoding(&self, len: usize) -> Result<(), Status> {
        check(len, self.encoding, ENCODING_LIMIT)?;
        check(len, LENGTH_MAX, LENGTH_LIMIT)
    }
}

/// Refuses a message of `len` bytes if that is more than `max`; `option` is what sets this limit.
pub(crate) fn check(len: usize, max: usize, option: &str) -> Result<(), Status> {
    if len > max {
        return Err(Status::resource_exhausted(format!(
            "a message of {len} bytes is over the limit of {max} bytes ({option})"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::status::Code;

    /// Messages of so many bytes, none of which is ever made.
    struct Huge;

    impl Codec for Huge {
        type Encode = usize;
        type Decode = ();

        fn encode(&self, _len: usize) -> Result<Bytes, Status> {
            panic!("encoded")
        }

        fn encoded_len(&self, len: &usize) -> Option<usize> {
            Some(*len)
        }

        fn decode(&self, _bytes: Bytes) -> Result<(), Status> {
            Ok(())
        }
    }

    #[test]
    fn a_message_of_4_gib_is_refused_before_it_is_encoded_whatever_the_option_says() {
        for limits in [
            MessageLimits::default(),
            MessageLimits::default().max_encoding_message_size(LENGTH_MAX + 1),
        ] {
            let status = limits.encode(&Huge, LENGTH_MAX + 1).unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
            for part in ["4294967296", "4294967295", LENGTH_LIMIT] {
                assert!(status.message().contains(part), "{status}");
            }
            assert!(limits.check_encoding(LENGTH_MAX).is_ok());
        }
    }
}
