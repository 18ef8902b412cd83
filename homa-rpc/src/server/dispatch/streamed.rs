//! Calls of several frames: how they begin, go on and are served.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::super::cancel::Cancellable;
use super::super::overload::{Reason, Refusal};
use super::super::quota::MethodPermit;
use super::super::reply::{Answer, PendingReply};
use super::super::stream::{Call as Stream, Registered, RequestBody, send, send_message};
use super::handle::respond;
use super::race::{Outcome, race};
use super::{Admitted, Dispatcher, Entered, Shared};
use crate::body::{self, Body, CallService};
use crate::call::context::{CallContext, DropReason};
use crate::frame::{self, Call, FrameError, Request};
use crate::message::method::CallInfo;
use crate::message::status::Status;
use crate::stream::server::First;

/// What a call holds while it is in progress.
pub(super) type Guards = (Entered, Option<MethodPermit>, Option<Cancellable>);

/// A call of several frames that was let in.
pub(super) struct StreamedCall {
    request: http::Request<Body>,
    info: CallInfo,
    stream: Arc<Stream>,
    registered: Registered,
    guards: Guards,
}

impl Shared {
    /// Begins a call whose request goes on behind its CALL frame.
    pub(super) fn begin(
        &self,
        peer: SocketAddr,
        frame: Bytes,
        reply: PendingReply,
        arrived: Option<Instant>,
        entered: Entered,
    ) -> Option<StreamedCall> {
        let (call, reply) = self.decode(peer, frame, reply)?;
        let Admitted {
            deadline,
            method,
            permit,
            cancellable,
        } = match self.admit(&call, peer, arrived) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.refuse(reply, refusal);
                return None;
            }
        };
        let info = CallInfo {
            peer: Some(peer),
            deadline,
            method: method.and_then(|method| method.descriptor),
            idempotent: None,
        };
        self.open(call, info, reply, (entered, permit, cancellable))
    }

    /// Takes frames for a call from now on.
    pub(super) fn open(
        &self,
        call: Call,
        info: CallInfo,
        reply: PendingReply,
        guards: Guards,
    ) -> Option<StreamedCall> {
        let peer = info.peer?;
        let first = First {
            content: call.content,
            end: call.end,
            credit: call.credit,
            single: call.single,
        };
        let stream = match Stream::open(&self.calls, peer, first, reply) {
            Ok(stream) => stream,
            Err((error, reply)) => {
                self.refuse(reply, Refusal::new(Reason::Malformed, error.into()));
                return None;
            }
        };
        let Some(registered) = self.calls.register(peer, call.call_id, &stream) else {
            stream.abort(Status::cancelled("another call has the same id").refused());
            return None;
        };
        stream.count_bytes();
        let mut body = Body::new(RequestBody::new(Arc::clone(&stream)));
        *body.info_mut() = info;
        Some(StreamedCall {
            request: body::http_request(call.path, call.metadata, body),
            info,
            stream,
            registered,
            guards,
        })
    }

    /// A PART or PULL has come.
    pub(super) fn go_on(&self, peer: SocketAddr, frame: Bytes, mut reply: PendingReply) {
        let Some(stream) = self.calls.find(peer, reply.call_id()) else {
            self.counters.frames_refused.add_one();
            return reply.send_unknown_call();
        };
        let error = match frame::decode_request(frame) {
            Ok(Request::Part(part)) => return stream.handle(part, reply),
            Ok(Request::Call(_) | Request::Cancel) => FrameError::Kind(0),
            Err(error) => error,
        };
        self.counters.frames_refused.add_one();
        tracing::debug!(%peer, %error, "a frame of a call was refused");
        reply.doubt(&error);
        reply.send(Status::from(error).into());
    }

    /// Sends an answer that does not fit into one frame, to the end or until the client is gone.
    pub(super) async fn send_long(&self, peer: SocketAddr, reply: PendingReply, answer: Answer) {
        let call_id = reply.call_id();
        let stream = Stream::responding(&self.calls, peer, reply);
        let Some(_registered) = self.calls.register(peer, call_id, &stream) else {
            stream.abort(Status::cancelled("another call has the same id"));
            return;
        };
        let ending = answer.ending();
        if let Some(message) = &answer.message {
            send_message(&stream, answer.initial, message, ending);
        }
        self.until_over(&stream).await;
    }

    /// Waits until how the call ended is on its way, or the client is gone, or the server stops.
    async fn until_over(&self, stream: &Arc<Stream>) {
        let mut over = pin!(Some(over(stream)));
        let limiter = &self.limiter;
        let _outcome = race(over.as_mut(), limiter, None, None, &mut gone(stream)).await;
    }
}

impl<S: CallService + Sync> Dispatcher<S> {
    pub(super) async fn serve_stream(self: Arc<Self>, call: StreamedCall) {
        let StreamedCall {
            request,
            info,
            stream,
            registered,
            guards: (entered, permit, cancellable),
        } = call;
        let shared = &self.shared;
        let uri = request.uri().clone();
        let outcome = {
            let handler = async {
                match respond(&self.service, request, &shared.overload).await {
                    Ok(response) => send(&stream, response).await,
                    Err(status) => stream.finish(status.into()),
                }
                over(&stream).await;
            };
            let mut handler = pin!(Some(CallContext::of(info).scope(handler)));
            let mut gone = gone(&stream);
            let limiter = &shared.limiter;
            let outcome = race(
                handler.as_mut(),
                limiter,
                info.deadline,
                cancellable,
                &mut gone,
            )
            .await;
            // Layers that are dropped with it learn why.
            DropReason::scope(outcome.cause(), || handler.set(None));
            outcome
        };
        if let Outcome::BrokenOff(why, status) = outcome {
            let path = uri.path_and_query();
            let told = status.or_else(|| path.and_then(|path| shared.broken_off(why, path)));
            if let Some(status) = told {
                stream.abort(status);
                shared.until_over(&stream).await;
            }
        }
        if stream.is_broken() {
            shared.counters.calls_broken.add_one();
        }
        drop((registered, permit, entered));
    }
}

/// Waits until how the call ended is on its way.
async fn over(stream: &Arc<Stream>) {
    poll_fn(|cx| stream.poll_over(cx)).await;
}

/// Ready when the client is gone, or has broken the rules.
fn gone(stream: &Arc<Stream>) -> impl FnMut(&mut Context<'_>) -> Poll<Option<Status>> {
    let mut timer = Box::pin(sleep_until(stream.next_timeout()));
    move |cx| {
        if let Poll::Ready(gone) = stream.poll_gone(cx) {
            return Poll::Ready(gone.into_status());
        }
        loop {
            let next = stream.next_timeout();
            if next < timer.deadline() {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(gone) = stream.on_time() {
                return Poll::Ready(gone.into_status());
            }
            timer.as_mut().reset(stream.next_timeout());
        }
    }
}
