//! What an endpoint tells its driver.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::endpoint::RpcKey;
use crate::error::RpcError;

/// Something the application has to know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A request has arrived. Answer it with [`Endpoint::send_response`](crate::Endpoint::send_response), or give it up with
    /// [`Endpoint::abort`](crate::Endpoint::abort).
    Request {
        /// Handle for the answer.
        rpc: RpcKey,
        /// The client.
        peer: SocketAddr,
        /// The request.
        message: Bytes,
    },
    /// The response to a request of ours has arrived; the RPC is over.
    Response {
        /// What was given to [`Endpoint::send_request`](crate::Endpoint::send_request).
        cookie: u64,
        /// The response.
        message: Bytes,
    },
    /// A request of ours has failed; the RPC is over.
    Failed {
        /// What was given to [`Endpoint::send_request`](crate::Endpoint::send_request).
        cookie: u64,
        /// Why.
        error: RpcError,
    },
    /// A peer asked for a look at the trace ([`Endpoint::trace`](crate::Endpoint::trace)), and the configuration allows it.
    Frozen,
    /// The client has given up a request before it was answered; the RPC is over.
    Cancelled {
        /// Handle of the request.
        rpc: RpcKey,
    },
}
