//! The seam between messages and what carries them.
//!
//! [`Transport`] is all that an RPC layer sees: `Socket` implements it by the protocol in userspace,
//! `KernelSocket` by the Linux kernel module. It is chosen at run time, hence usable as
//! `dyn Transport`, and poll-based, so that a call costs no boxed future.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::{CloseReason, RpcError};
use crate::message::Message;
use crate::stats::Stats;
use crate::wire::MESSAGE_BYTES_MAX;

/// Handle of a call in progress: a number of the transport's choice, which never names a later call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey(u64);

impl CallKey {
    /// The handle with this number. Only the transport that starts the call makes one.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Handle of a request that is being served: a number as with [`CallKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey(u64);

impl RequestKey {
    /// The handle with this number. Only what answers the request makes one.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Sends requests and takes them, one message each way per RPC.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends `request` to `peer` and returns the handle of the call. Never blocks.
    ///
    /// [`call`] wraps this, [`Transport::poll_response`] and [`Transport::cancel`] into a future.
    ///
    /// # Errors
    /// When nothing was sent: the message is empty or too long, the socket is closed, too many
    /// RPCs are in progress, the address is unusable.
    fn start_call(&self, peer: SocketAddr, request: Message) -> Result<CallKey, RpcError>;

    /// The response, when it is there. The RPC is over once this returns `Ready`.
    ///
    /// # Errors
    /// When the RPC failed; [`RpcError::Stale`] for a handle whose RPC is over.
    fn poll_response(&self, call: CallKey, cx: &mut Context<'_>) -> Poll<Result<Bytes, RpcError>>;

    /// Whether anything has come from the peer since the RPC `call`, which is in progress, began: if not, the
    /// peer may be gone. False where the transport cannot know, which is the default.
    fn peer_heard(&self, call: CallKey) -> bool {
        let _ = call;
        false
    }

    /// A handle of this transport whose calls to `peer` all leave by one of its ports; `None`, the default, if
    /// those of this one do. [`pinned`] gives either.
    fn pin(&self, peer: SocketAddr) -> Option<Arc<dyn Transport>> {
        let _ = peer;
        None
    }

    /// Gives up an RPC of [`Transport::start_call`]; the server is told if this transport can.
    fn cancel(&self, call: CallKey);

    /// Whether [`Transport::cancel`] tells the server, so that its handler can stop. Likewise whether this
    /// transport as a server is told, so that [`Respond::poll_cancelled`] becomes ready.
    fn cancel_reaches_server(&self) -> bool;

    /// Hands every incoming request to `sink`, from now on. `sink` runs in the driver task: it
    /// must return soon (spawn the work). Before that, requests are not taken, and their clients ask
    /// again. A sink that holds a handle of this transport keeps it open.
    ///
    /// # Errors
    /// [`RpcError::Closed`].
    fn serve(&self, sink: RequestSink) -> Result<(), RpcError>;

    /// Address of this end. The port is the Homa port.
    fn local_addr(&self) -> SocketAddr;

    /// Longest message, in bytes. The default is that of the protocol.
    fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    /// Counters since the start.
    fn stats(&self) -> Stats;

    /// Ready when the transport no longer works, with the reason, and its port is free. One task may wait
    /// for this at a time.
    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<CloseReason>;

    /// Stops taking requests and closes: calls in progress fail, acks owed are sent. When this returns, the
    /// port is free, or the name of an in-process socket. It waits at most for system calls under way,
    /// which don't block.
    fn close(&self);
}

/// What answers the requests that a [`Transport`] has handed over. It is what [`Responder`]s hold, so it
/// does not keep the transport open.
pub trait Respond: fmt::Debug + Send + Sync + 'static {
    /// Answers a request. Use [`Responder::respond`].
    ///
    /// # Errors
    /// When the message is empty or too long (the request can still be answered), when the RPC has
    /// ended ([`RpcError::Stale`]) or the socket is closed.
    fn respond(&self, request: RequestKey, response: Message) -> Result<(), RpcError>;

    /// Gives up a request without an answer; the client will time out.
    fn abandon(&self, request: RequestKey);

    /// Ready when the client has given up this request, or is gone, before it was answered.
    fn poll_cancelled(&self, request: RequestKey, cx: &mut Context<'_>) -> Poll<()>;

    /// Whether a request of `peer` is being received right now: bytes of one came within the last second, or
    /// one waits for what is ours to do, a GRANT or room for its bytes. False where the transport cannot know,
    /// which is the default.
    fn receiving_from(&self, peer: SocketAddr) -> bool {
        let _ = peer;
        false
    }

    /// Longest response, in bytes. The default is that of the protocol.
    fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
    }
}

/// What takes the incoming requests of a server.
pub type RequestSink = Arc<dyn Fn(Incoming) + Send + Sync>;

/// A request that has arrived.
#[derive(Debug)]
pub struct Incoming {
    /// The client: its address and Homa port.
    pub peer: SocketAddr,
    /// The request message.
    pub message: Bytes,
    /// The way to answer it.
    pub responder: Responder,
}

/// The right to answer one request. Dropped without an answer, the request is abandoned.
#[derive(Debug)]
pub struct Responder {
    by: Arc<dyn Respond>,
    request: Option<RequestKey>,
}

impl Responder {
    /// The right to answer `request` by `by`.
    #[must_use]
    pub fn new(by: Arc<dyn Respond>, request: RequestKey) -> Self {
        Self {
            by,
            request: Some(request),
        }
    }

    /// Sends the response.
    ///
    /// # Errors
    /// As [`Respond::respond`]. After an error the responder comes back with it, so that a
    /// shorter answer can be sent instead.
    pub fn respond(mut self, response: Message) -> Result<(), (RpcError, Self)> {
        let Some(request) = self.request else {
            return Ok(());
        };
        match self.by.respond(request, response) {
            Ok(()) => {
                self.request = None;
                Ok(())
            }
            Err(error) => Err((error, self)),
        }
    }

    /// Ready when the client has given up this request or is gone.
    pub fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.request {
            Some(request) => self.by.poll_cancelled(request, cx),
            None => Poll::Ready(()),
        }
    }

    /// Whether a request of `peer` is being received right now, as [`Respond::receiving_from`]. Of a socket of
    /// several shards only the one that took this request is asked: all calls of a pinned handle come to it.
    #[must_use]
    pub fn receiving_from(&self, peer: SocketAddr) -> bool {
        self.by.receiving_from(peer)
    }

    /// Longest response, in bytes.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.by.message_bytes_max()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.by.abandon(request);
        }
    }
}

/// A handle of `transport` whose calls to `peer` all leave by one port, and so come to one shard of the
/// server. It keeps the transport open as any handle does.
#[must_use]
pub fn pinned(transport: &Arc<dyn Transport>, peer: SocketAddr) -> Arc<dyn Transport> {
    let pinned = transport.pin(peer);
    pinned.unwrap_or_else(|| Arc::clone(transport))
}

/// Sends `request` to `peer` on `transport` and waits for the response. The request is sent by the
/// first poll.
#[must_use]
pub fn call(transport: Arc<dyn Transport>, peer: SocketAddr, request: Message) -> Call {
    Call {
        transport,
        state: CallState::Unsent { peer, request },
    }
}

/// Future of one RPC, see [`call`]. Dropped before the end, the RPC is cancelled.
#[derive(Debug)]
pub struct Call {
    transport: Arc<dyn Transport>,
    state: CallState,
}

impl Call {
    /// What carries the RPC.
    #[must_use]
    pub const fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Whether anything has come from the peer since the RPC began; `None` if it is not in progress.
    #[must_use]
    pub fn peer_heard(&self) -> Option<bool> {
        match self.state {
            CallState::Waiting(call) => Some(self.transport.peer_heard(call)),
            CallState::Unsent { .. } | CallState::Done => None,
        }
    }
}

#[derive(Debug)]
enum CallState {
    Unsent { peer: SocketAddr, request: Message },
    Waiting(CallKey),
    Done,
}

impl Future for Call {
    type Output = Result<Bytes, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let CallState::Unsent { peer, request } = &mut self.state {
            let (peer, request) = (*peer, std::mem::take(request));
            self.state = CallState::Done;
            match self.transport.start_call(peer, request) {
                Ok(rpc) => self.state = CallState::Waiting(rpc),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let CallState::Waiting(rpc) = self.state else {
            return Poll::Ready(Err(RpcError::Stale));
        };
        let result = self.transport.poll_response(rpc, cx);
        if result.is_ready() {
            self.state = CallState::Done;
        }
        result
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let CallState::Waiting(rpc) = self.state {
            self.transport.cancel(rpc);
        }
    }
}
