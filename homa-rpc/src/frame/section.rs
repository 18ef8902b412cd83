//! The sections behind the header: metadata, and what cuts sections apart.

use bytes::{Buf, Bytes};
use homa_transport::Delivery;
use http::header::{HeaderMap, HeaderValue};

use super::FrameError;
use crate::message::metadata::{self, MetadataError};
use crate::message::status::Status;
use crate::util::intern;

/// Bytes in front of each pair: length of the key (2) and of the value (4).
const PAIR_HEADER: usize = 6;

/// Bytes that [`put_metadata`] will append. RESOURCE_EXHAUSTED if the headers that are metadata are
/// too many or too long.
pub(super) fn metadata_len(headers: &HeaderMap) -> Result<usize, Status> {
    let (mut pairs, mut len) = (0, 0);
    if headers.is_empty() {
        return Ok(len);
    }
    for (name, value) in headers {
        if metadata::is_protocol_header(name) {
            continue;
        }
        let value_len = if metadata::is_binary(name.as_str()) {
            metadata::bin_len(value)
        } else {
            value.len()
        };
        pairs += 1;
        len += PAIR_HEADER + name.as_str().len() + value_len;
    }
    if pairs > metadata::PAIRS_MAX || len > metadata::BYTES_MAX {
        return Err(Status::resource_exhausted(format!(
            "metadata of {pairs} pairs and {len} bytes is over the limit of {} pairs or {} bytes",
            metadata::PAIRS_MAX,
            metadata::BYTES_MAX
        ))
        .with_delivery(Delivery::NotSent));
    }
    Ok(len)
}

/// Appends the headers that are metadata. Values of `-bin` keys become raw.
pub(super) fn put_metadata(out: &mut Vec<u8>, headers: &HeaderMap) -> Result<(), Status> {
    for (name, value) in headers {
        if metadata::is_protocol_header(name) {
            continue;
        }
        let key = name.as_str();
        if metadata::is_binary(key) {
            let value = metadata::decode_bin(key, value).map_err(|error: MetadataError| {
                Status::internal(error.to_string()).with_delivery(Delivery::NotSent)
            })?;
            put_pair(out, key, &value)?;
        } else {
            put_pair(out, key, value.as_bytes())?;
        }
    }
    Ok(())
}

fn put_pair(out: &mut Vec<u8>, key: &str, value: &[u8]) -> Result<(), Status> {
    let too_long = |_| Status::resource_exhausted(format!("metadata key {key:.64?} is too long"));
    out.extend_from_slice(&u16::try_from(key.len()).map_err(too_long)?.to_be_bytes());
    out.extend_from_slice(&u32::try_from(value.len()).map_err(too_long)?.to_be_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value);
    Ok(())
}

/// Reads a metadata section. Values of `-bin` keys become base64, others share the memory of the
/// frame.
pub(super) fn read_metadata(mut section: Bytes) -> Result<HeaderMap, FrameError> {
    let mut headers = HeaderMap::new();
    if section.is_empty() {
        return Ok(headers);
    }
    if section.len() > metadata::BYTES_MAX {
        return Err(FrameError::MetadataTooLong(section.len()));
    }
    while !section.is_empty() {
        if section.len() < PAIR_HEADER {
            return Err(FrameError::Section("metadata pair"));
        }
        let key_len = usize::from(section.get_u16());
        let value_len = section.get_u32();
        let value_len = usize::try_from(value_len).map_err(|_| FrameError::Metadata)?;
        let key = take(&mut section, key_len, "metadata key")?;
        let value = take(&mut section, value_len, "metadata value")?;
        let name = intern::header_name(&key).map_err(|_| FrameError::Metadata)?;
        let value = if metadata::is_binary(name.as_str()) {
            metadata::encode_bin(name.as_str(), &value).map_err(|_| FrameError::Metadata)?
        } else {
            HeaderValue::from_maybe_shared(value).map_err(|_| FrameError::Metadata)?
        };
        if metadata::is_protocol_header(&name) {
            return Err(FrameError::Metadata);
        }
        if headers.len() >= metadata::PAIRS_MAX || headers.try_append(name, value).is_err() {
            return Err(FrameError::MetadataTooMany);
        }
    }
    Ok(headers)
}

/// The next `len` bytes.
pub(super) fn take(from: &mut Bytes, len: usize, what: &'static str) -> Result<Bytes, FrameError> {
    if len > from.len() {
        return Err(FrameError::Section(what));
    }
    // The usual case, and splitting does not know it.
    if len == 0 {
        return Ok(Bytes::new());
    }
    Ok(from.split_to(len))
}

/// The next `len` bytes, `len` from a 32-bit field.
pub(super) fn take_u32(
    from: &mut Bytes,
    len: u32,
    what: &'static str,
) -> Result<Bytes, FrameError> {
    let len = usize::try_from(len).map_err(|_| FrameError::Section(what))?;
    take(from, len, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_travels_raw_and_in_order() {
        let mut headers = HeaderMap::new();
        for value in ["2", "1", "2"] {
            headers.append("k", HeaderValue::from_static(value));
        }
        headers.append("grpc-timeout", HeaderValue::from_static("1S"));
        headers.append("x-bin", metadata::encode_bin("x-bin", &[0, 255]).unwrap());
        let mut out = Vec::new();
        put_metadata(&mut out, &headers).unwrap();
        assert_eq!(metadata_len(&headers).unwrap(), out.len());
        assert!(out.windows(7).any(|window| window == b"x-bin\0\xff"));
        let back = read_metadata(out.into()).unwrap();
        assert_eq!(back.len(), 4);
        assert_eq!(
            back.get_all("k").iter().collect::<Vec<_>>(),
            ["2", "1", "2"]
        );
        assert_eq!(back.get("x-bin"), headers.get("x-bin"));
    }

    #[test]
    fn hostile_lengths_names_and_values_are_refused() {
        let pair = |key: &[u8], value: &[u8]| {
            let mut out = u16::try_from(key.len()).unwrap().to_be_bytes().to_vec();
            out.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            out.extend(key);
            out.extend(value);
            Bytes::from(out)
        };
        assert!(read_metadata(pair(b"ok", b"v")).is_ok());
        for (key, value) in [
            (b"Upper".as_slice(), b"v".as_slice()),
            (b"", b"v"),
            (b"a b", b"v"),
            (b"k", b"a\nb"),
            (b"grpc-status", b"0"),
            (b"content-type", b"v"),
        ] {
            assert_eq!(read_metadata(pair(key, value)), Err(FrameError::Metadata));
        }
        let huge = Bytes::from_static(&[0, 1, 0xff, 0xff, 0xff, 0xff, b'k', b'v']);
        assert_eq!(
            read_metadata(huge),
            Err(FrameError::Section("metadata value"))
        );
        let one = pair(b"k", b"v");
        let many = Bytes::from(one.repeat(metadata::PAIRS_MAX));
        assert_eq!(read_metadata(many).unwrap().len(), metadata::PAIRS_MAX);
        let many = Bytes::from(one.repeat(metadata::PAIRS_MAX + 1));
        assert_eq!(read_metadata(many), Err(FrameError::MetadataTooMany));
        let long = pair(b"k", &vec![b'v'; metadata::BYTES_MAX]);
        let len = 6 + 1 + metadata::BYTES_MAX;
        assert_eq!(read_metadata(long), Err(FrameError::MetadataTooLong(len)));
    }

    #[test]
    fn metadata_over_the_limit_is_not_sent() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&"v".repeat(metadata::BYTES_MAX)).unwrap();
        headers.insert("k", value);
        let status = metadata_len(&headers).unwrap_err();
        assert!(status.message().contains("65543 bytes"), "{status}");
        assert!(status.message().contains("65536 bytes"), "{status}");
    }
}
