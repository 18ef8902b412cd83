//! What the clones of a channel share.

use std::sync::Arc;
use std::time::Duration;

use homa_transport::RpcError;

use super::resolver::Resolver;
use crate::message::status::Status;
use crate::net::uri::Uri;

/// What the clones of a channel share.
pub(super) struct Shared {
    pub(super) target: Uri,
    pub(super) timeout: Option<Duration>,
    /// Frames have checksums.
    pub(super) checksums: bool,
    pub(super) resolver: Resolver,
}

impl Shared {
    /// The status for a failed RPC, which names the server.
    pub(super) fn failure(&self, error: RpcError) -> Status {
        let delivery = error.delivery();
        let status = Status::from(error.clone());
        if !matches!(
            error,
            RpcError::Closed { .. }
                | RpcError::TooManyRpcs { .. }
                | RpcError::TooManyPeers { .. }
                | RpcError::MessageTooLong { .. }
        ) {
            return status;
        }
        // These do not name the server.
        Status::new(status.code(), format!("call to {}: {error}", self.target))
            .with_delivery(delivery)
            .with_source(Arc::new(error))
    }
}
