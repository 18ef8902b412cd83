//! Why a client cannot be made or cannot send.

use homa_transport::BindError;

use super::uri::UriError;

/// Why a channel cannot be made, or cannot send.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The URI is not one that can be called.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// A call was made outside a tokio runtime. It is the source of the call's [`Status`](crate::Status).
    #[error("a call must be made inside a tokio runtime")]
    NoRuntime,
    /// The client's socket could not be opened. It is the source of the call's [`Status`](crate::Status).
    #[error("cannot open a socket to call from: {0}")]
    Socket(#[from] BindError),
}
