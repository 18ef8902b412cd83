//! What a peer can do against the rules of streams.

use crate::message::status::Status;

/// Why a frame of a call, or what the application wants to send, is not accepted. It ends the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    /// Of the peer.
    #[error("the frame {sequence} of a call came when {next} was the next, too far ahead")]
    TooFarAhead { sequence: u32, next: u32 },
    #[error("a frame of {cost} bytes of items is over the credit of {credit} bytes")]
    OverCredit { cost: u64, credit: u64 },
    #[error("a frame behind the one with END")]
    AfterEnd,
    #[error("END came {have} bytes into a message of {total} bytes")]
    Truncated { have: u32, total: u32 },
    #[error(
        "expected byte {want} of a message of {total} bytes, a fragment from byte {have} of {have_total} came"
    )]
    Fragment {
        want: u32,
        total: u32,
        have: u32,
        have_total: u32,
    },
    #[error("expected byte {want} of a message of {total} bytes, other items came")]
    Interrupted { want: u32, total: u32 },
    #[error("a run of stream items of {len} bytes does not end with an item")]
    Items { len: usize },
    /// Of a body that is to be sent.
    #[error("a body ends {have} bytes into a message of {total} bytes")]
    BodyTruncated { have: u64, total: u64 },
    #[error("a message of {total} bytes has the compression flag {flag}, which is not supported")]
    Compressed { flag: u8, total: u32 },
}

impl From<StreamError> for Status {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Compressed { .. } => Self::unimplemented(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}
