//! The RPC wire format, version 1: what one Homa message of a call holds.
//!
//! `WIRE.md` in this package is the specification. Every message in either direction is a fixed
//! header of 64 bytes followed by sections whose lengths the header gives, all big-endian.

mod checksum;
mod content;
mod extension;
mod header;
mod peek;
mod reply;
mod request;
mod section;

use crate::message::metadata;
use crate::message::status::{Code, Status};

pub(crate) use content::{Content, ITEM_HEAD_LEN};
pub(crate) use header::{Kind, VERSION};
pub(crate) use peek::Peek;
pub(crate) use reply::{Reply, ReplyHead, ReplyPart, decode_reply, encode_reply, reply_overhead};
pub(crate) use request::{
    Call, CallHead, Part, PartHead, Request, call_overhead, decode_request, encode_call,
    encode_cancel, encode_part,
};

/// Single sections, for the fuzz targets.
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::{FrameError, section};
    use crate::message::status::Status;

    pub(crate) fn put_metadata(headers: &HeaderMap) -> Result<Bytes, Status> {
        let len = section::metadata_len(headers)?;
        let mut out = Vec::new();
        section::put_metadata(&mut out, headers)?;
        assert_eq!(len, out.len());
        Ok(out.into())
    }

    pub(crate) fn read_metadata(section: Bytes) -> Result<HeaderMap, FrameError> {
        section::read_metadata(section)
    }
}

/// Bytes in front of the value of each extension: type (2) and length (2).
const EXTENSION_HEAD_LEN: usize = 4;

/// Why bytes are not a frame that this version accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("RPC frame of wire version {0}, this side speaks version {VERSION}")]
    Version(u8),
    #[error("RPC frame of {have} bytes, its header needs {need}")]
    Header { have: usize, need: usize },
    #[error("RPC frame of {have} bytes, its sections add up to {need}")]
    Length { have: u64, need: u64 },
    #[error("RPC frame of kind {0:#04x}, which is not expected here")]
    Kind(u8),
    #[error("RPC frame with unknown flags {0:#06x}")]
    Flags(u16),
    #[error("RPC frame needs {0}, which this side does not support")]
    Unsupported(&'static str),
    #[error("RPC frame with the extension {0:#06x}, which this side does not understand")]
    Extension(u16),
    #[error("RPC frame with a truncated {0}")]
    Section(&'static str),
    #[error("RPC frame with a path that is not /service/method")]
    Path,
    #[error("RPC frame with an invalid metadata key or value")]
    Metadata,
    #[error(
        "RPC frame with metadata of {0} bytes, over the limit of {limit} bytes",
        limit = metadata::BYTES_MAX
    )]
    MetadataTooLong(usize),
    #[error(
        "RPC frame with metadata of more pairs than the limit of {limit}",
        limit = metadata::PAIRS_MAX
    )]
    MetadataTooMany,
    #[error("RPC frame whose status message is not UTF-8")]
    StatusMessage,
    #[error("RPC frame without a {0}")]
    Missing(&'static str),
    #[error("RPC frame with {0}")]
    Content(&'static str),
    #[error("RPC frame with a fragment up to byte {end} of a message of {total} bytes")]
    Fragment { end: u64, total: u32 },
    #[error("damaged RPC frame: its checksum is {said:#010x}, that of what came {have:#010x}")]
    Damaged { said: u32, have: u32 },
    #[error("RPC reply to call {have:#x}, expected call {want:#x}")]
    CallId { have: u64, want: u64 },
}

impl From<FrameError> for Status {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::Version(_) | FrameError::Unsupported(_) | FrameError::Extension(_) => {
                Code::Unimplemented
            }
            FrameError::MetadataTooLong(_) | FrameError::MetadataTooMany => Code::ResourceExhausted,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// The status for a frame that does not fit into one transport message.
fn too_long(what: &str, frame: usize, message: usize, max: usize) -> Status {
    Status::resource_exhausted(format!(
        "the {what} needs a frame of {frame} bytes ({message} of them message), over the limit of \
         {max} bytes"
    ))
    .with_delivery(homa_transport::Delivery::NotSent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    /// The bytes of the n-th example of the specification.
    fn example(n: usize) -> Vec<u8> {
        let section = include_str!("../../WIRE.md").split("## 9. Example").nth(1);
        let block = section.unwrap().split("```text\n").nth(n + 1).unwrap();
        let block = block.split("```").next().unwrap();
        let hex: String = block
            .lines()
            .filter_map(|line| line.split("   ").next())
            .flat_map(|line| line.chars().filter(char::is_ascii_hexdigit))
            .collect();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    const MESSAGE: &[u8] = &[0x0a, 2, b'h', b'i'];

    #[test]
    fn the_calls_of_the_specification_are_made_and_read() {
        let mut metadata = HeaderMap::new();
        metadata.insert("k", HeaderValue::from_static("v"));
        for (checksum, example) in [(false, example(0)), (true, example(2))] {
            let head = CallHead {
                call_id: 0x1122_3344_5566_7788,
                timeout: Some(Duration::from_millis(5)),
                cancel_frame: false,
                single: true,
                checksum,
                credit: 0,
                end: true,
                path: "/test.Echo/Say",
                metadata: &metadata,
            };
            let made = encode_call(head, Content::Message(MESSAGE.into()), 1000).unwrap();
            assert_eq!(made.into_bytes(), example);
            assert_eq!(Peek::at(&example).has_checksum, checksum);
            let Ok(Request::Call(mut call)) = decode_request(example.into()) else {
                panic!("not a call")
            };
            assert_eq!(call.path, "/test.Echo/Say");
            assert_eq!(call.metadata, metadata);
            assert_eq!(call.take_message().unwrap(), MESSAGE);
        }
    }

    #[test]
    fn the_reply_of_the_specification_is_made_and_read() {
        let none = HeaderMap::new();
        let head = ReplyHead {
            kind: Kind::Call,
            call_id: 0x1122_3344_5566_7788,
            checksum: false,
            cancel_told: false,
            load: 1,
            part: ReplyPart::WHOLE,
            unknown_call: false,
            initial: &none,
            trailing: &none,
            status: None,
        };
        let made = encode_reply(head, Content::Message(MESSAGE.into()), 1000).unwrap();
        assert_eq!(made.into_bytes(), example(1));
        let reply = decode_reply(example(1).into(), Kind::Call, head.call_id).unwrap();
        assert_eq!(reply.content, Content::Message(Bytes::from_static(MESSAGE)));
        assert!(reply.status.is_none() && reply.part == ReplyPart::WHOLE);
    }
}
