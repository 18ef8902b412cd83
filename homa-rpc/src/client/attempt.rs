//! One RPC of the transport that carries a call.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use homa_transport::{RpcError, Transport, transport};
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::resolver::Route;
use super::shared::Shared;
use crate::body::{End, UnaryCall, UnaryReply, Whole};
use crate::frame::{self, CallHead, FrameError, Kind, Reply};
use crate::message::metadata::Metadata;
use crate::message::method::CallInfo;
use crate::message::status::{Code, Status};

/// Ids of calls: unique in this process, with a random start, so that a process that gets the
/// port of a dead one doesn't repeat its ids.
static NEXT_CALL_ID: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));

/// A call that can be sent, more than once if need be.
pub(super) struct PreparedCall {
    pub(super) channel: Arc<Shared>,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) deadline: Option<Instant>,
}

impl PreparedCall {
    /// A call without its message, which comes back.
    pub(super) fn new(
        channel: Arc<Shared>,
        call: UnaryCall,
        deadline: Option<Instant>,
    ) -> (Bytes, Self) {
        let prepared = Self {
            channel,
            path: call.path,
            headers: call.headers,
            deadline,
        };
        (call.message, prepared)
    }

    /// The same with the headers of this one.
    pub(super) fn split_off(&mut self) -> Self {
        Self {
            channel: Arc::clone(&self.channel),
            path: self.path.clone(),
            headers: std::mem::take(&mut self.headers),
            deadline: self.deadline,
        }
    }

    /// Makes the frame, with the time that is left now, and the RPC that carries it.
    pub(super) fn start(&self, route: Route, message: Bytes) -> Result<Attempt, Status> {
        let call_id = NEXT_CALL_ID.fetch_add(1, Ordering::Relaxed);
        let resolver = &self.channel.resolver;
        let (cancel_frame, checksum) =
            (resolver.needs_cancel_frame(&route), self.channel.checksums);
        let head = CallHead {
            call_id,
            timeout: self
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now())),
            cancel_frame,
            checksum,
            path: self.path.path(),
            metadata: &self.headers,
        };
        let max = route.socket.message_bytes_max();
        let frame = frame::encode_call(head, message, max)?;
        let cancel = if cancel_frame {
            Some(CancelFrame {
                home: resolver.home()?.clone(),
                socket: Arc::clone(&route.socket),
                peer: route.peer,
                call_id,
                checksum,
                armed: false,
            })
        } else {
            None
        };
        let watch = resolver.has_name().then(|| Watch {
            channel: Arc::clone(&self.channel),
            begun: None,
        });
        let learns = resolver.cancels_differ().then(|| Arc::clone(&self.channel));
        Ok(Attempt {
            peer: route.peer,
            number: route.number,
            watch,
            learns,
            call: transport::call(route.socket, route.peer, frame),
            call_id,
            cancel,
        })
    }
}

/// An RPC on its way. Yields what the server said, or how the transport failed.
pub(super) struct Attempt {
    // Dropped first: the RPC is given up before the server is told.
    call: transport::Call,
    peer: SocketAddr,
    /// The number of its route.
    number: u64,
    call_id: u64,
    cancel: Option<CancelFrame>,
    /// If there may be another route than this one.
    watch: Option<Watch>,
    /// If the reply has something to say about the server.
    learns: Option<Arc<Shared>>,
}

/// The channel that is told of a call given up in silence.
struct Watch {
    channel: Arc<Shared>,
    begun: Option<Instant>,
}

impl Attempt {
    /// The way it takes.
    pub(super) fn route(&self) -> Route {
        Route {
            socket: Arc::clone(self.call.transport()),
            peer: self.peer,
            number: self.number,
        }
    }
}

impl Drop for Attempt {
    /// Every call that is given up ends here, whether by a deadline or by its caller.
    fn drop(&mut self) {
        if let Some(Watch {
            channel,
            begun: Some(begun),
        }) = &self.watch
            && self.call.peer_heard() == Some(false)
        {
            let lasted = begun.elapsed();
            channel.resolver.given_up_in_silence(&self.route(), lasted);
        }
    }
}

impl Future for Attempt {
    type Output = Result<Result<UnaryReply, Status>, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(cancel) = &mut self.cancel {
            cancel.armed = true;
        }
        if let Some(watch) = &mut self.watch {
            watch.begun.get_or_insert_with(Instant::now);
        }
        let result = ready!(Pin::new(&mut self.call).poll(cx));
        if let Some(cancel) = &mut self.cancel {
            cancel.armed = false;
        }
        Poll::Ready(result.map(|frame| {
            let reply = read_reply(frame, self.call_id, self.peer)?;
            if let Some(channel) = &self.learns {
                channel
                    .resolver
                    .cancels_are_told(self.number, reply.cancel_told);
            }
            Ok(unary_reply(reply, self.peer))
        }))
    }
}

fn read_reply(frame: Bytes, call_id: u64, peer: SocketAddr) -> Result<Reply, Status> {
    frame::decode_reply(frame, Kind::Call, call_id).map_err(|error| {
        let text = format!("malformed reply from {peer}: {error}");
        // A server may only use what this side said it can read.
        let code = match error {
            FrameError::Unsupported(_) => Code::Internal,
            error => Status::from(error).code(),
        };
        Status::new(code, text)
    })
}

fn unary_reply(reply: Reply, peer: SocketAddr) -> UnaryReply {
    let end = match reply.status {
        Some(status) => End::Failed(status),
        None => End::Ok((!reply.trailing.is_empty()).then(|| {
            let metadata = Metadata::from_headers(reply.trailing);
            Box::new(metadata)
        })),
    };
    UnaryReply {
        headers: reply.initial,
        extensions: Extensions::new(),
        whole: Whole {
            message: reply.message,
            end,
        },
        info: CallInfo {
            peer: Some(peer),
            ..CallInfo::NONE
        },
    }
}

/// Tells the server by a frame that a call is given up, where the transport cannot tell it.
struct CancelFrame {
    home: Handle,
    socket: Arc<dyn Transport>,
    peer: SocketAddr,
    call_id: u64,
    checksum: bool,
    /// True while the call is in progress.
    armed: bool,
}

impl Drop for CancelFrame {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let frame = frame::encode_cancel(self.call_id, self.checksum);
        let call = transport::call(Arc::clone(&self.socket), self.peer, frame);
        self.home.spawn(async move {
            if let Err(error) = call.await {
                tracing::debug!(%error, "a cancel frame was not delivered");
            }
        });
    }
}
