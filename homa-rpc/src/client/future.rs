//! The future of one call on a [`Channel`](crate::Channel).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use bytes::Bytes;
use homa_transport::Delivery;
use http::HeaderMap;
use http::request::Parts;
use http::uri::PathAndQuery;
use tokio::time::Instant;

use super::attempt::{Answer, Attempt, PreparedCall};
use super::resolver::{ADDRESSES_MAX, Route};
use super::shared::Shared;
use super::stream;
use crate::body::{Body, UnaryCall, UnaryReply};
use crate::call::context::CallContext;
use crate::call::deadline::{self, Timer};
use crate::frame::Reply;
use crate::message::BoxError;
use crate::message::method::{CallInfo, MethodDescriptor};
use crate::message::status::{Code, Status};

pin_project_lite::pin_project! {
    /// Future of a call. Dropped before its end, the call is cancelled.
    #[must_use = "a call is sent by polling its future"]
    pub struct ResponseFuture {
        #[pin]
        call: CallFuture,
    }
}

pin_project_lite::pin_project! {
    /// The same without HTTP.
    #[must_use = "a call is sent by polling its future"]
    pub(super) struct CallFuture {
        channel: Arc<Shared>,
        path: PathAndQuery,
        deadline: Option<Instant>,
        state: State,
        // Only for limits that no stub enforces.
        #[pin]
        timer: Option<Timer>,
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, boxing it would cost an allocation per call"
)]
enum State {
    /// All there is to say.
    Failed(Option<Status>),
    /// Sent, or about to be by the first poll.
    Sent(Attempt),
    /// A name has to be looked up first, or there are several frames.
    Boxed(Pin<Box<dyn Future<Output = Result<Carried, Status>> + Send>>),
}

/// What has come of a call.
pub(super) enum Carried {
    /// A whole response.
    Whole(UnaryReply),
    /// One whose body has to be read.
    Streamed(http::Response<Body>),
}

impl ResponseFuture {
    pub(super) fn new<B>(channel: Arc<Shared>, request: http::Request<B>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (parts, body) = request.into_parts();
        let body = Body::new(body);
        let info = *body.info();
        let is_unary = info.method.is_none_or(MethodDescriptor::is_unary);
        let call = match body.into_whole() {
            Ok(whole) if is_unary => match whole.message {
                Some(message) => CallFuture::new(channel, UnaryCall::of_http(parts, message, info)),
                None => CallFuture::failed(channel, no_message()),
            },
            Ok(whole) => CallFuture::streaming(channel, parts, Body::whole(whole), info),
            Err(body) => CallFuture::streaming(channel, parts, body, info),
        };
        Self { call }
    }
}

impl CallFuture {
    /// The call of a stub of ours, which watches over the deadline that it gives by itself.
    pub(super) fn new(channel: Arc<Shared>, call: UnaryCall) -> Self {
        let deadlines = effective_deadline(&channel, call.info.deadline, None, &call.headers);
        let (message, prepared) = PreparedCall::new(channel, call, deadlines.0);
        Self::begin(prepared, deadlines.1, |prepared| {
            State::of(prepared, message)
        })
    }

    /// A call whose request has to be read from a body.
    fn streaming(channel: Arc<Shared>, parts: Parts, body: Body, info: CallInfo) -> Self {
        let call = UnaryCall::of_http(parts, Bytes::new(), info);
        let deadlines = effective_deadline(&channel, None, info.deadline, &call.headers);
        let (_, prepared) = PreparedCall::new(channel, call, deadlines.0);
        let is_single = info.method.is_some_and(MethodDescriptor::is_unary);
        Self::begin(prepared, deadlines.1, |prepared| {
            let prepared = prepared.split_off();
            State::Boxed(Box::pin(async move {
                let response = stream::open(prepared, body, is_single).await;
                response.map(Carried::Streamed)
            }))
        })
    }

    fn failed(channel: Arc<Shared>, status: Status) -> Self {
        Self {
            channel,
            path: PathAndQuery::from_static("/"),
            deadline: None,
            state: State::Failed(Some(status)),
            timer: None,
        }
    }

    /// Begins a call unless it is too late. `own` is the deadline over which nobody else watches.
    fn begin(
        mut prepared: PreparedCall,
        own: Option<Instant>,
        state: impl FnOnce(&mut PreparedCall) -> State,
    ) -> Self {
        let deadline = prepared.deadline;
        let mut state = if deadline::has_passed(deadline) {
            let status = expired(&prepared.channel, &prepared.path);
            State::Failed(Some(status.with_delivery(Delivery::NotSent)))
        } else {
            state(&mut prepared)
        };
        let mut timer = None;
        if let Some(own) = own {
            match deadline::timer(own) {
                Ok(sleep) => timer = Some(sleep),
                Err(status) => state = State::Failed(Some(status)),
            }
        }
        Self {
            channel: prepared.channel,
            path: prepared.path,
            deadline,
            state,
            timer,
        }
    }
}

/// When the call must be over, and that again if nobody else watches over it.
fn effective_deadline(
    channel: &Shared,
    stub: Option<Instant>,
    other: Option<Instant>,
    headers: &HeaderMap,
) -> (Option<Instant>, Option<Instant>) {
    // Looking for a name costs something, even in an empty map.
    let header = (!headers.is_empty())
        .then(|| headers.get("grpc-timeout"))
        .flatten()
        .and_then(|value| value.to_str().ok())
        .and_then(deadline::parse_grpc_timeout);
    let own = [header, channel.timeout].into_iter().flatten().min();
    let own = own.and_then(deadline::after);
    let own = deadline::earliest([own, other, CallContext::current().deadline()]);
    match (stub, own) {
        (Some(stub), Some(own)) if own < stub => (Some(own), Some(own)),
        (Some(stub), _) => (Some(stub), None),
        (None, own) => (own, own),
    }
}

fn expired(channel: &Shared, path: &PathAndQuery) -> Status {
    Status::deadline_exceeded(format!(
        "the deadline passed while waiting for {} ({})",
        channel.target,
        path.path()
    ))
}

fn no_message() -> Status {
    Status::unimplemented("the request has no message, a unary call needs one")
        .with_delivery(Delivery::NotSent)
}

impl State {
    fn of(prepared: &mut PreparedCall, message: Bytes) -> Self {
        let route = match prepared.channel.resolver.now() {
            Ok(route) => route,
            Err(status) => return Self::Failed(Some(status)),
        };
        let fits = |route: &Route| prepared.fits(&message, route.socket.message_bytes_max());
        let started = match route {
            Some(route) => match fits(&route) {
                Ok(true) => prepared.start(route, message),
                Ok(false) => return Self::Boxed(Box::pin(send(prepared.split_off(), message))),
                Err(status) => Err(status),
            },
            None => return Self::Boxed(Box::pin(send(prepared.split_off(), message))),
        };
        match started {
            Ok(attempt) => Self::Sent(attempt),
            Err(status) => Self::Failed(Some(status)),
        }
    }

    /// There is more to come than the first reply.
    fn more(attempt: &Attempt, prepared: PreparedCall, first: Reply) -> Self {
        let (route, call_id) = (attempt.route(), attempt.call_id());
        let resuming = stream::resume(prepared, route, call_id, first);
        Self::Boxed(Box::pin(async { resuming.await.map(Carried::Streamed) }))
    }
}

/// Sends the call, to one address of the host after the other while it provably arrived nowhere.
async fn send(mut prepared: PreparedCall, message: Bytes) -> Result<Carried, Status> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let resolver = &prepared.channel.resolver;
        let route = match resolver.now()? {
            Some(route) => route,
            None => resolver.look_up().await?,
        };
        if !prepared.fits(&message, route.socket.message_bytes_max())? {
            let opening = stream::open(prepared.split_off(), Body::request(message), true);
            return opening.await.map(Carried::Streamed);
        }
        let mut attempt = prepared.start(route.clone(), message.clone())?;
        match Pin::new(&mut attempt).await {
            Ok(answer) => {
                resolver.worked(&route);
                return carried(&mut prepared, &attempt, answer?).await;
            }
            Err(error) => {
                let more = resolver.failed(&route, &error);
                let safe = error.delivery() == Delivery::NotSent;
                if !(more && safe && attempts < ADDRESSES_MAX) {
                    return Err(prepared.channel.failure(error));
                }
            }
        }
    }
}

/// The rest of a call that has an answer.
async fn carried(
    prepared: &mut PreparedCall,
    attempt: &Attempt,
    answer: Answer,
) -> Result<Carried, Status> {
    match answer {
        Answer::Whole(reply) => Ok(Carried::Whole(reply)),
        Answer::More(first) => {
            let (route, call_id) = (attempt.route(), attempt.call_id());
            let response = stream::resume(prepared.split_off(), route, call_id, *first);
            response.await.map(Carried::Streamed)
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let carried = self.project().call.poll(cx);
        carried.map_ok(|carried| match carried {
            Carried::Whole(reply) => reply.into_http(),
            Carried::Streamed(response) => response,
        })
    }
}

impl Future for CallFuture {
    type Output = Result<Carried, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.state {
            State::Failed(status) => Poll::Ready(Err(status
                .take()
                .unwrap_or_else(|| Status::internal("a call was polled after its end")))),
            State::Sent(attempt) => match Pin::new(&mut *attempt).poll(cx) {
                Poll::Ready(Ok(answer)) => {
                    this.channel.resolver.answered();
                    match answer {
                        Ok(Answer::Whole(reply)) => Poll::Ready(Ok(Carried::Whole(reply))),
                        Ok(Answer::More(first)) => {
                            let prepared = PreparedCall {
                                channel: Arc::clone(this.channel),
                                path: this.path.clone(),
                                headers: HeaderMap::new(),
                                deadline: *this.deadline,
                            };
                            *this.state = State::more(attempt, prepared, *first);
                            cx.waker().wake_by_ref();
                            Poll::Pending
                        }
                        Err(status) => Poll::Ready(Err(status)),
                    }
                }
                Poll::Ready(Err(error)) => {
                    this.channel.resolver.failed(&attempt.route(), &error);
                    Poll::Ready(Err(this.channel.failure(error)))
                }
                Poll::Pending => Poll::Pending,
            },
            State::Boxed(future) => future.as_mut().poll(cx),
        };
        let timed_out = match this.timer.as_pin_mut() {
            Some(timer) if result.is_pending() => timer.poll(cx).is_ready(),
            _ => false,
        };
        // A passed deadline wins, whatever else has come to light.
        if timed_out || deadline::has_passed(*this.deadline) {
            let status = match result {
                Poll::Ready(Err(status)) if status.code() == Code::DeadlineExceeded => status,
                _ => expired(this.channel, this.path),
            };
            // Dropping the call cancels it.
            *this.state = State::Failed(None);
            return Poll::Ready(Err(status));
        }
        if result.is_ready() {
            *this.state = State::Failed(None);
        }
        result
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("path", &self.call.path)
            .field("deadline", &self.call.deadline)
            .finish_non_exhaustive()
    }
}
