//! From a request frame to the handler and back: one task per call.

mod handle;
mod race;
mod streamed;

use std::future::Future;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{self, Poll, Waker};

use bytes::Bytes;
use homa_transport::Incoming;
use http::Extensions;
use http::uri::PathAndQuery;
use tokio::runtime::Handle;
use tokio::time::Instant;

use self::handle::handle;
use self::race::{Outcome, race};
use super::admission::{CallLimiter, CallPermit};
use super::cancel::{Cancellable, Cancellations};
use super::methods::{Method, Methods};
use super::overload::{Overload, Reason, Refusal};
use super::quota::{MethodPermit, PeerPermit, PeerQuota};
use super::reply::{Answer, PendingReply};
use super::router::Route;
use super::stats::Counters;
use super::stream::Calls;
use crate::body::{CallService, UnaryCall};
use crate::call::context::{CallContext, DropReason};
use crate::call::deadline;
use crate::frame::{self, Call, FrameError, Kind, Peek, Request};
use crate::message::method::{CallInfo, MethodDescriptor};
use crate::message::status::Status;
use crate::util::name_map::Names;

/// What the calls of one server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limiter: Arc<CallLimiter>,
    pub(super) cancellations: Arc<Cancellations>,
    /// Calls of several frames.
    pub(super) calls: Arc<Calls>,
    pub(super) counters: Counters,
    pub(super) overload: Overload,
    pub(super) peer_quota: Option<Arc<PeerQuota>>,
    pub(super) methods: Methods,
    /// Names of the services whose handlers are polled in the driver first.
    pub(super) inline: Names,
}

/// A call that was let in.
struct Entered {
    server: CallPermit,
    peer: Option<PeerPermit>,
}

/// A call that may be dispatched.
struct Admitted<'a> {
    deadline: Option<Instant>,
    /// `None` if nothing is known of the method.
    method: Option<&'a Method>,
    permit: Option<MethodPermit>,
    cancellable: Option<Cancellable>,
}

impl Shared {
    /// Admits a call with a frame of `len` bytes, or says why not.
    fn enter(&self, peer: SocketAddr, len: usize) -> Result<Entered, Refusal> {
        Ok(Entered {
            server: self.limiter.enter(len)?,
            peer: match &self.peer_quota {
                Some(quota) => Some(quota.enter(peer)?),
                None => None,
            },
        })
    }

    /// Admits a call by what its frame says, or says why not.
    fn admit(
        &self,
        call: &Call,
        peer: SocketAddr,
        arrived: Option<Instant>,
    ) -> Result<Admitted<'_>, Refusal> {
        let deadline = arrived
            .zip(call.timeout)
            .and_then(|(arrived, timeout)| arrived.checked_add(timeout));
        if deadline::has_passed(deadline) {
            let status = Status::deadline_exceeded("the deadline passed before dispatch");
            return Err(Refusal::new(Reason::Expired, status));
        }
        let path = call.path.path();
        let method = self.methods.get(path);
        let quota = method.and_then(|method| method.quota.as_ref());
        let permit = quota.map(|quota| quota.enter(path)).transpose()?;
        let mut cancellable = None;
        if call.cancel_frame {
            cancellable = self.cancellations.begin(peer, call.call_id);
            if cancellable.is_none() {
                let text = "the call was cancelled before it came, or another one has its id";
                return Err(Refusal::new(Reason::Usual, Status::cancelled(text)));
            }
        }
        Ok(Admitted {
            deadline,
            method,
            permit,
            cancellable,
        })
    }

    /// The CALL in a frame. One that cannot be read is refused.
    fn decode(
        &self,
        peer: SocketAddr,
        frame: Bytes,
        mut reply: PendingReply,
    ) -> Option<(Call, PendingReply)> {
        let error = match frame::decode_request(frame) {
            Ok(Request::Call(call)) => return Some((call, reply)),
            Ok(Request::Part(_) | Request::Cancel) => FrameError::Kind(0),
            Err(error) => error,
        };
        tracing::debug!(%peer, %error, "a request frame was refused");
        reply.doubt(&error);
        self.refuse(reply, Refusal::new(Reason::Malformed, error.into()));
        None
    }

    fn begins_inline(&self, peek: &Peek<'_>) -> bool {
        !self.inline.is_empty()
            && peek
                .service()
                .is_some_and(|name| self.inline.contains(name))
    }

    /// Turns a call away.
    fn refuse(&self, reply: PendingReply, refusal: Refusal) {
        self.counters.calls_refused.add_one();
        self.overload.note(refusal.reason);
        reply.send(refusal.status.refused().into());
    }

    /// Counts a call that ended before its handler was done, and says what to tell the client: nothing if
    /// it does not wait any more.
    fn broken_off(&self, why: DropReason, path: &PathAndQuery) -> Option<Status> {
        match why {
            DropReason::Cancelled => {
                self.counters.calls_cancelled.add_one();
                None
            }
            DropReason::Panic => {
                self.counters.handlers_panicked.add_one();
                tracing::error!(%path, "a handler panicked");
                Some(why.status())
            }
            DropReason::Deadline => {
                self.counters.calls_expired.add_one();
                Some(Status::deadline_exceeded(format!(
                    "the deadline passed while the server worked on {path}"
                )))
            }
            DropReason::Shutdown => {
                self.counters.calls_stopped.add_one();
                Some(why.status())
            }
        }
    }
}

/// Takes requests; hides the type of the service.
pub(super) trait Accept: Send + Sync {
    /// Takes a request. Runs in the driver of the socket, so the work is spawned on `runtime`.
    /// `cancel_told` if the socket is told when a client gives an RPC up.
    fn accept(self: Arc<Self>, runtime: &Handle, incoming: Incoming, cancel_told: bool);
}

/// The service with all its layers.
pub(super) struct Dispatcher<S> {
    pub(super) service: S,
    pub(super) shared: Arc<Shared>,
}

impl<S: CallService + Sync> Accept for Dispatcher<S> {
    fn accept(self: Arc<Self>, runtime: &Handle, incoming: Incoming, cancel_told: bool) {
        let Incoming {
            peer,
            message: frame,
            responder,
            ..
        } = incoming;
        let peek = Peek::at(&frame);
        let reply = PendingReply::new(responder, &peek, &self.shared.limiter, cancel_told);
        match peek.kind {
            Kind::Call => {}
            Kind::Part | Kind::Pull => return self.shared.go_on(peer, frame, reply),
            Kind::Cancel => return self.cancel(peer, frame, reply),
        }
        let len = match peek.is_whole {
            true => frame.len(),
            // What it has of the request is counted with what follows, as long as it is held.
            false => peek.head_len,
        };
        let entered = match self.shared.enter(peer, len) {
            Ok(entered) => entered,
            Err(refusal) => return self.shared.refuse(reply, refusal),
        };
        // Reading the clock costs as much as a small allocation.
        let arrived = peek.has_timeout.then(Instant::now);
        let counters = &self.shared.counters;
        if !peek.is_whole {
            // More frames may come right behind this one, so the call has to be known when this returns.
            if let Some(call) = self.shared.begin(peer, frame, reply, arrived, entered) {
                counters.handlers_spawned.add_one();
                runtime.spawn(Box::pin(Arc::clone(&self).serve_stream(call)));
            }
            return;
        }
        if self.shared.begins_inline(&peek) {
            let shared = Arc::clone(&self.shared);
            let call = self.run(peer, frame, entered, reply, arrived);
            return begin_inline(runtime, &shared.counters, call);
        }
        counters.handlers_spawned.add_one();
        // Boxed, since the runtime moves a task's future three times.
        runtime.spawn(Box::pin(self.run(peer, frame, entered, reply, arrived)));
    }
}

/// Polls a call here, in the driver of the socket, and spawns what is not over with that.
fn begin_inline(
    runtime: &Handle,
    counters: &Counters,
    call: impl Future<Output = ()> + Send + 'static,
) {
    let mut call = Box::pin(call);
    // Nobody is woken by this first poll: the task polls again when it starts.
    let mut cx = task::Context::from_waker(Waker::noop());
    match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut cx))) {
        Ok(Poll::Ready(())) => counters.handlers_inline.add_one(),
        Ok(Poll::Pending) => {
            counters.handlers_spawned.add_one();
            runtime.spawn(call);
        }
        // A destructor of the service's; the call has been answered.
        Err(_panic) => tracing::error!("a service panicked when a call was over"),
    }
}

impl<S: CallService + Sync> Dispatcher<S> {
    fn cancel(&self, peer: SocketAddr, frame: Bytes, mut reply: PendingReply) {
        match frame::decode_request(frame) {
            Ok(_) => {
                self.shared.cancellations.cancel(peer, reply.call_id());
                reply.send(Answer::default());
            }
            Err(error) => {
                reply.doubt(&error);
                reply.send(Status::from(error).refused().into());
            }
        }
    }

    /// Serves a call that is whole in its frame.
    async fn run(
        self: Arc<Self>,
        peer: SocketAddr,
        frame: Bytes,
        mut entered: Entered,
        reply: PendingReply,
        arrived: Option<Instant>,
    ) {
        let shared = &self.shared;
        let Some((mut call, reply)) = shared.decode(peer, frame, reply) else {
            return;
        };
        let Admitted {
            deadline,
            method,
            permit,
            cancellable,
        } = match shared.admit(&call, peer, arrived) {
            Ok(admitted) => admitted,
            Err(refusal) => return shared.refuse(reply, refusal),
        };
        let descriptor = method.and_then(|method| method.descriptor);
        let info = CallInfo {
            peer: Some(peer),
            deadline,
            method: descriptor,
            idempotent: None,
        };
        let is_unary = descriptor.map_or(call.single, MethodDescriptor::is_unary);
        let message = if is_unary { call.take_message() } else { None };
        let Some(message) = message else {
            let guards = (entered, permit, cancellable);
            if let Some(streamed) = shared.open(call, info, reply, guards) {
                Box::pin(self.serve_stream(streamed)).await;
            }
            return;
        };
        let path = call.path.clone();
        let outcome = {
            // Pinned here: passed on by value it would be stored twice in the task.
            let route = method.and_then(|method| method.route.as_ref());
            let call = unary_call(call, message, info, route);
            let route = route.map(|(route, _)| route);
            let message_max = usize::MAX;
            let handler = handle(&self.service, route, call, message_max, &shared.overload);
            let mut handler = pin!(Some(CallContext::of(info).scope(handler)));
            let gone = |cx: &mut task::Context<'_>| match reply.responder() {
                Some(responder) => responder.poll_cancelled(cx).map(|()| None),
                None => Poll::Pending,
            };
            let limiter = &shared.limiter;
            let outcome = race(handler.as_mut(), limiter, deadline, cancellable, gone).await;
            // Layers that are dropped with it learn why.
            DropReason::scope(outcome.cause(), || handler.set(None));
            outcome
        };
        // A client that has its reply may call again before this task is over.
        drop((permit, entered.peer.take()));
        entered.server.release();
        match outcome {
            Outcome::Done(answer) if reply.is_too_long(&answer) => {
                Box::pin(shared.send_long(peer, reply, answer)).await;
            }
            Outcome::Done(answer) => reply.send(answer),
            Outcome::BrokenOff(why, _) => match shared.broken_off(why, &path) {
                Some(status) => reply.send(status.into()),
                None => reply.abandon(),
            },
        }
        // Leaves after the reply, so that a server that waits for its calls has sent them.
        drop(entered);
    }
}

fn unary_call(
    call: Call,
    message: Bytes,
    info: CallInfo,
    route: Option<&(Route, usize)>,
) -> UnaryCall {
    UnaryCall {
        path: call.path,
        headers: call.metadata,
        extensions: Extensions::new(),
        message,
        info,
        method: route.map(|(_, index)| *index),
    }
}
