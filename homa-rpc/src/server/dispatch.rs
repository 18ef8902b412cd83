//! From a request frame to the handler and back: one task per call.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll, Waker};

use bytes::Bytes;
use homa_transport::Incoming;
use http::Extensions;
use http::uri::PathAndQuery;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::admission::{CallLimiter, CallPermit};
use super::cancel::{Cancellable, Cancellations};
use super::handle::handle;
use super::methods::{Method, Methods};
use super::overload::{Overload, Reason, Refusal};
use super::quota::{MethodPermit, PeerPermit, PeerQuota};
use super::reply::{Answer, PendingReply};
use super::router::Route;
use super::stats::Counters;
use crate::body::{CallService, UnaryCall};
use crate::call::context::{CallContext, DropReason};
use crate::call::deadline::{self, Timer};
use crate::frame::{self, Call, Kind, Peek, Request};
use crate::message::method::CallInfo;
use crate::message::status::Status;
use crate::util::name_map::Names;

/// What the calls of one server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limiter: Arc<CallLimiter>,
    pub(super) cancellations: Arc<Cancellations>,
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

    /// Answers a call by how it ended, if anybody waits for that.
    fn end(&self, outcome: Outcome, reply: PendingReply, path: &PathAndQuery) {
        match outcome {
            Outcome::Answer(answer) => reply.send(answer),
            Outcome::Cancelled => {
                self.counters.calls_cancelled.add_one();
                reply.abandon();
            }
            Outcome::Panicked => {
                self.counters.handlers_panicked.add_one();
                tracing::error!(%path, "a handler panicked");
                reply.send(Status::unknown("the handler panicked").into());
            }
            Outcome::DeadlinePassed => {
                self.counters.calls_expired.add_one();
                let status = Status::deadline_exceeded(format!(
                    "the deadline passed while the server worked on {path}"
                ));
                reply.send(status.into());
            }
            Outcome::Stopped => {
                self.counters.calls_stopped.add_one();
                let status = Status::unavailable("the server shut down before the call was over");
                reply.send(status.into());
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
        if peek.kind == Kind::Cancel {
            return self.cancel(peer, frame, reply);
        }
        let entered = match self.shared.enter(peer, frame.len()) {
            Ok(entered) => entered,
            Err(refusal) => return self.shared.refuse(reply, refusal),
        };
        // Reading the clock costs as much as a small allocation.
        let arrived = peek.has_timeout.then(Instant::now);
        if self.shared.begins_inline(&peek) {
            let shared = Arc::clone(&self.shared);
            let call = self.run(peer, frame, entered, reply, arrived);
            return begin_inline(runtime, &shared.counters, call);
        }
        self.shared.counters.handlers_spawned.add_one();
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

    async fn run(
        self: Arc<Self>,
        peer: SocketAddr,
        frame: Bytes,
        mut entered: Entered,
        mut reply: PendingReply,
        arrived: Option<Instant>,
    ) {
        let shared = &self.shared;
        let call = match frame::decode_request(frame) {
            Ok(Request::Call(call)) => call,
            Ok(Request::Cancel) => return reply.send(Answer::default()),
            Err(error) => {
                tracing::debug!(%peer, %error, "a request frame was refused");
                reply.doubt(&error);
                return shared.refuse(reply, Refusal::new(Reason::Malformed, error.into()));
            }
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
        let path = call.path.clone();
        let info = CallInfo {
            peer: Some(peer),
            deadline,
            method: method.and_then(|method| method.descriptor),
            idempotent: None,
        };
        let message_max = reply
            .responder()
            .map_or(usize::MAX, homa_transport::Responder::message_bytes_max);
        let outcome = {
            // Pinned here: passed on by value it would be stored twice in the task.
            let route = method.and_then(|method| method.route.as_ref());
            let call = unary_call(call, info, route);
            let route = route.map(|(route, _)| route);
            let handler = handle(&self.service, route, call, message_max, &shared.overload);
            let mut handler = pin!(Some(CallContext::of(info).scope(handler)));
            let limiter = &shared.limiter;
            let outcome = race(handler.as_mut(), limiter, &reply, deadline, cancellable).await;
            // Layers that are dropped with it learn why.
            DropReason::scope(outcome.cause(), || handler.set(None));
            outcome
        };
        // A client that has its reply may call again before this task is over.
        drop((permit, entered.peer.take()));
        entered.server.release();
        shared.end(outcome, reply, &path);
        // Leaves after the reply, so that a server that waits for its calls has sent them.
        drop(entered);
    }
}

fn unary_call(call: Call, info: CallInfo, route: Option<&(Route, usize)>) -> UnaryCall {
    UnaryCall {
        path: call.path,
        headers: call.metadata,
        extensions: Extensions::new(),
        message: call.message,
        info,
        method: route.map(|(_, index)| *index),
    }
}

/// How a dispatched call ended.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, boxing it would cost an allocation per call"
)]
enum Outcome {
    Answer(Answer),
    Cancelled,
    Panicked,
    DeadlinePassed,
    Stopped,
}

impl Outcome {
    const fn cause(&self) -> Option<DropReason> {
        match self {
            Self::Answer(_) => None,
            Self::Cancelled => Some(DropReason::Cancelled),
            Self::Panicked => Some(DropReason::Panic),
            Self::DeadlinePassed => Some(DropReason::Deadline),
            Self::Stopped => Some(DropReason::Shutdown),
        }
    }
}

/// Runs the handler until it is done or not wanted any more.
async fn race(
    mut handler: Pin<&mut Option<impl Future<Output = Answer>>>,
    limiter: &CallLimiter,
    reply: &PendingReply,
    deadline: Option<Instant>,
    mut cancellable: Option<Cancellable>,
) -> Outcome {
    let mut stopping = pin!(limiter.stopping());
    let mut timer = pin!(deadline.map(Timer::new));
    poll_fn(|cx| {
        // The handler first: one that is done at once costs nothing more.
        let Some(running) = handler.as_mut().as_pin_mut() else {
            return Poll::Ready(Outcome::Stopped);
        };
        match catch_unwind(AssertUnwindSafe(|| running.poll(cx))) {
            Ok(Poll::Ready(answer)) => {
                // A passed deadline wins.
                return Poll::Ready(if deadline::has_passed(deadline) {
                    Outcome::DeadlinePassed
                } else {
                    Outcome::Answer(answer)
                });
            }
            Ok(Poll::Pending) => {}
            Err(_panic) => return Poll::Ready(Outcome::Panicked),
        }
        if let Some(timer) = timer.as_mut().as_pin_mut()
            && timer.poll(cx).is_ready()
        {
            return Poll::Ready(Outcome::DeadlinePassed);
        }
        if let Some(responder) = reply.responder()
            && responder.poll_cancelled(cx).is_ready()
        {
            return Poll::Ready(Outcome::Cancelled);
        }
        if let Some(cancellable) = &mut cancellable
            && pin!(&mut cancellable.cancelled).poll(cx).is_ready()
        {
            return Poll::Ready(Outcome::Cancelled);
        }
        if limiter.is_stopped() || stopping.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Outcome::Stopped);
        }
        Poll::Pending
    })
    .await
}
