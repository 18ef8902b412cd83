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

use super::attempt::{Attempt, PreparedCall};
use super::shared::Shared;
use crate::body::{self, Body, UnaryCall, UnaryReply};
use crate::call::context::CallContext;
use crate::call::deadline::{self, Timer};
use crate::message::BoxError;
use crate::message::limits::FRAME_LIMIT;
use crate::message::method::CallInfo;
use crate::message::status::{Code, Status};
use crate::util::downcast::try_cast;

/// Addresses of one host that a call tries at most.
const ADDRESSES_MAX: usize = 8;

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
    /// A foreign body has to be read or a name to be looked up first.
    Boxed(Pin<Box<dyn Future<Output = Result<UnaryReply, Status>> + Send>>),
}

impl ResponseFuture {
    pub(super) fn new<B>(channel: Arc<Shared>, request: http::Request<B>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (parts, body) = request.into_parts();
        let call = match try_cast::<B, Body>(body) {
            Ok(body) => {
                let info = *body.info();
                match body.into_whole() {
                    Ok(whole) => match whole.message {
                        Some(message) => {
                            CallFuture::new(channel, UnaryCall::of_http(parts, message, info))
                        }
                        None => CallFuture::failed(channel, no_message()),
                    },
                    Err(body) => CallFuture::reading(channel, parts, body, info),
                }
            }
            Err(body) => CallFuture::reading(channel, parts, body, CallInfo::NONE),
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

    /// A call whose message has to be read from a body.
    fn reading<B>(channel: Arc<Shared>, parts: Parts, body: B, info: CallInfo) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let call = UnaryCall::of_http(parts, Bytes::new(), info);
        let deadlines = effective_deadline(&channel, None, info.deadline, &call.headers);
        let (_, prepared) = PreparedCall::new(channel, call, deadlines.0);
        Self::begin(prepared, deadlines.1, |prepared| {
            State::Boxed(Box::pin(read_and_send(prepared.split_off(), body)))
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
        match prepared.channel.resolver.now() {
            Ok(Some(route)) => match prepared.start(route, message) {
                Ok(attempt) => Self::Sent(attempt),
                Err(status) => Self::Failed(Some(status)),
            },
            Ok(None) => Self::Boxed(Box::pin(send(prepared.split_off(), message))),
            Err(status) => Self::Failed(Some(status)),
        }
    }
}

async fn read_and_send<B>(prepared: PreparedCall, body: B) -> Result<UnaryReply, Status>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // What fits into no frame need not be read to the end.
    let message_max = match prepared.channel.resolver.now()? {
        Some(route) => route.socket.message_bytes_max(),
        None => prepared
            .channel
            .resolver
            .look_up()
            .await?
            .socket
            .message_bytes_max(),
    };
    let read = body::collect(body, message_max, FRAME_LIMIT).await;
    let (whole, _) = read.map_err(|status| status.with_delivery(Delivery::NotSent))?;
    let message = whole.message.ok_or_else(no_message)?;
    send(prepared, message).await
}

/// Sends the call, to one address of the host after the other while it provably arrived nowhere.
async fn send(prepared: PreparedCall, message: Bytes) -> Result<UnaryReply, Status> {
    let resolver = &prepared.channel.resolver;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let route = match resolver.now()? {
            Some(route) => route,
            None => resolver.look_up().await?,
        };
        match prepared.start(route.clone(), message.clone())?.await {
            Ok(reply) => {
                resolver.worked(&route);
                return reply;
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

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let reply = self.project().call.poll(cx);
        reply.map_ok(UnaryReply::into_http)
    }
}

impl Future for CallFuture {
    type Output = Result<UnaryReply, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.state {
            State::Failed(status) => Poll::Ready(Err(status
                .take()
                .unwrap_or_else(|| Status::internal("a call was polled after its end")))),
            State::Sent(attempt) => match Pin::new(&mut *attempt).poll(cx) {
                Poll::Ready(Ok(reply)) => {
                    this.channel.resolver.answered();
                    Poll::Ready(reply)
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
