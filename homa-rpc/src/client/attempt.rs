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
use crate::frame::{self, CallHead, Content, FrameError, Kind, Reply};
use crate::message::metadata::Metadata;
use crate::message::method::CallInfo;
use crate::message::status::{Code, Status};

/// Ids of calls: unique in this process, with a random start, so that a process that gets the
/// port of a dead one doesn't repeat its ids.
static NEXT_CALL_ID: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));

/// The id of a new call.
pub(super) fn next_call_id() -> u64 {
    NEXT_CALL_ID.fetch_add(1, Ordering::Relaxed)
}

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

    /// What its CALL frame says, with the time that is left now. It is whole, and may be given up by CANCEL.
    pub(super) fn head(&self, call_id: u64, single: bool) -> CallHead<'_> {
        let time_left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        CallHead {
            call_id,
            timeout: self.deadline.map(time_left),
            cancel_frame: true,
            single,
            checksum: self.channel.checksums,
            credit: 0,
            end: true,
            path: self.path.path(),
            metadata: &self.headers,
        }
    }

    /// Whether the call with this message fits into one frame of `max` bytes.
    pub(super) fn fits(&self, message: &Bytes, max: usize) -> Result<bool, Status> {
        // Hardly any message is long, and counting costs something.
        if message.len() < max / 2 {
            return Ok(true);
        }
        let overhead = frame::call_overhead(&self.head(0, true))?;
        Ok(overhead + message.len() <= max)
    }

    /// Makes the frame of a call that fits into one, and the RPC that carries it.
    pub(super) fn start(&self, route: Route, message: Bytes) -> Result<Attempt, Status> {
        let call_id = next_call_id();
        let resolver = &self.channel.resolver;
        let cancel_frame = resolver.needs_cancel_frame(&route);
        let head = CallHead {
            cancel_frame,
            ..self.head(call_id, true)
        };
        let max = route.socket.message_bytes_max();
        let frame = frame::encode_call(head, Content::Message(message.into()), max)?;
        let cancel = if cancel_frame {
            let (socket, peer) = (&route.socket, route.peer);
            let home = resolver.home()?.clone();
            let checksum = self.channel.checksums;
            Some(CancelFrame::new(home, socket, peer, call_id, checksum))
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

/// What a server has said to a whole call.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, boxing it would cost an allocation per call"
)]
pub(super) enum Answer {
    Whole(UnaryReply),
    /// There is more to come than this.
    More(Box<Reply>),
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
    /// The id of its call.
    pub(super) const fn call_id(&self) -> u64 {
        self.call_id
    }

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
    type Output = Result<Result<Answer, Status>, RpcError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(cancel) = &mut self.cancel {
            cancel.arm(true);
        }
        if let Some(watch) = &mut self.watch {
            watch.begun.get_or_insert_with(Instant::now);
        }
        let result = ready!(Pin::new(&mut self.call).poll(cx));
        if let Some(cancel) = &mut self.cancel {
            cancel.arm(false);
        }
        Poll::Ready(result.map(|frame| {
            let mut reply = read_reply(frame, Kind::Call, self.call_id, self.peer)?;
            if let Some(channel) = &self.learns {
                channel
                    .resolver
                    .cancels_are_told(self.number, reply.cancel_told);
            }
            Ok(match reply.take_whole() {
                Some(message) => Answer::Whole(unary_reply(reply, message, self.peer)),
                None => Answer::More(Box::new(reply)),
            })
        }))
    }
}

/// Reads the reply of `peer` to a frame of this kind.
pub(super) fn read_reply(
    frame: Bytes,
    kind: Kind,
    call_id: u64,
    peer: SocketAddr,
) -> Result<Reply, Status> {
    frame::decode_reply(frame, kind, call_id).map_err(|error| {
        let text = format!("malformed reply from {peer}: {error}");
        // A server may only use what this side said it can read.
        let code = match error {
            FrameError::Unsupported(_) => Code::Internal,
            error => Status::from(error).code(),
        };
        Status::new(code, text)
    })
}

fn unary_reply(reply: Reply, message: Option<Bytes>, peer: SocketAddr) -> UnaryReply {
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
        whole: Whole { message, end },
        info: CallInfo {
            peer: Some(peer),
            ..CallInfo::NONE
        },
    }
}

/// Tells the server by a frame that a call is given up, where the transport cannot tell it.
pub(super) struct CancelFrame {
    home: Handle,
    socket: Arc<dyn Transport>,
    peer: SocketAddr,
    call_id: u64,
    checksum: bool,
    /// True while the call is in progress.
    armed: bool,
}

impl CancelFrame {
    /// For a call that is about to be sent.
    pub(super) fn new(
        home: Handle,
        socket: &Arc<dyn Transport>,
        peer: SocketAddr,
        call_id: u64,
        checksum: bool,
    ) -> Self {
        Self {
            home,
            socket: Arc::clone(socket),
            peer,
            call_id,
            checksum,
            armed: false,
        }
    }

    /// The call is in progress, or not any more.
    pub(super) const fn arm(&mut self, is_in_progress: bool) {
        self.armed = is_in_progress;
    }
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
