//! The RPC wire format, version 1: what one Homa message of a call holds.
//!
//! `WIRE.md` in this package is the specification. Every message in either direction is a fixed
//! header of 64 bytes followed by sections whose lengths the header gives, all big-endian. This
//! version of the crate speaks CALL and CANCEL; frames of the other kinds are refused.

mod header;
mod reply;
mod request;
mod section;

pub(crate) use header::{Kind, VERSION};
pub(crate) use reply::{ReplyHead, decode_reply, encode_reply};
pub(crate) use request::{
    Call, CallHead, Request, decode_request, encode_call, encode_cancel, peek,
};

use crate::metadata;
use crate::status::{Code, Status};

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
    #[error("RPC frame of kind {0} is not supported by this side")]
    KindUnsupported(&'static str),
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
        "RPC frame with metadata over {} pairs or {} bytes",
        metadata::PAIRS_MAX,
        metadata::BYTES_MAX
    )]
    MetadataTooLarge,
    #[error("RPC frame whose status message is not UTF-8")]
    StatusMessage,
    #[error("RPC frame without a {0}")]
    Missing(&'static str),
    #[error("RPC reply to call {have:#x}, expected call {want:#x}")]
    CallId { have: u64, want: u64 },
}

impl From<FrameError> for Status {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::Version(_)
            | FrameError::KindUnsupported(_)
            | FrameError::Unsupported(_)
            | FrameError::Extension(_) => Code::Unimplemented,
            FrameError::MetadataTooLarge => Code::ResourceExhausted,
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
