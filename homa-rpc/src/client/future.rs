//! The future of one call on a [`Channel`](crate::Channel).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use bytes::Bytes;
use homa_transport::Delivery;
use http::{HeaderMap, Uri};
use tokio::time::Instant;

use super::attempt::{Attempt, Outgoing};
use super::shared::Shared;
use crate::body::{self, Body};
use crate::call::context::Context;
use crate::call::deadline::{self, Timer};
use crate::message::BoxError;
use crate::message::limits::FRAME_LIMIT;
use crate::message::status::{Code, Status};
use crate::util::downcast::try_cast;

/// Addresses of one host that a call tries at most.
const ADDRESSES_MAX: usize = 8;

pin_project_lite::pin_project! {
    /// Future of a call. Dropped before its end, the call is cancelled.
    #[must_use = "a call is sent by polling its future"]
    pub struct ResponseFuture {
        channel: Arc<Shared>,
        uri: Uri,
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
    Boxed(Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>),
}

impl ResponseFuture {
    pub(super) fn new<B>(channel: Arc<Shared>, request: http::Request<B>) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let body = try_cast::<B, Body>(body);
        let known = body.as_ref().ok().and_then(|body| body.info().deadline);
        // Our stubs send whole messages and watch over the deadline themselves.
        let (stub, other) = match &body {
            Ok(body) if body.message().is_some() => (known, None),
            _ => (None, known),
        };
        let (deadline, own) = effective_deadline(&channel, stub, other, &parts.headers);
        let mut outgoing = Outgoing {
            channel,
            uri: parts.uri,
            headers: parts.headers,
            deadline,
        };
        let mut state = match body.map(Body::into_whole) {
            _ if deadline::has_passed(deadline) => {
                let status = expired(&outgoing.channel, &outgoing.uri);
                State::Failed(Some(status.with_delivery(Delivery::NotSent)))
            }
            Ok(Ok(whole)) => match whole.message {
                Some(message) => State::of(&mut outgoing, message),
                None => State::Failed(Some(no_message())),
            },
            Ok(Err(body)) => State::Boxed(Box::pin(read_and_send(outgoing.split_off(), body))),
            Err(body) => State::Boxed(Box::pin(read_and_send(outgoing.split_off(), body))),
        };
        let mut timer = None;
        if let Some(own) = own {
            match deadline::timer(own) {
                Ok(sleep) => timer = Some(sleep),
                Err(status) => state = State::Failed(Some(status)),
            }
        }
        Self {
            channel: outgoing.channel,
            uri: outgoing.uri,
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
    let own = deadline::earliest([own, other, Context::current().deadline()]);
    match (stub, own) {
        (Some(stub), Some(own)) if own < stub => (Some(own), Some(own)),
        (Some(stub), _) => (Some(stub), None),
        (None, own) => (own, own),
    }
}

fn expired(channel: &Shared, uri: &Uri) -> Status {
    Status::deadline_exceeded(format!(
        "the deadline passed while waiting for {} ({})",
        channel.target,
        uri.path()
    ))
}

fn no_message() -> Status {
    Status::unimplemented("the request has no message, a unary call needs one")
        .with_delivery(Delivery::NotSent)
}

impl State {
    fn of(outgoing: &mut Outgoing, message: Bytes) -> Self {
        match outgoing.channel.routes.now() {
            Ok(Some(route)) => match outgoing.start(route, message) {
                Ok(attempt) => Self::Sent(attempt),
                Err(status) => Self::Failed(Some(status)),
            },
            Ok(None) => Self::Boxed(Box::pin(send(outgoing.split_off(), message))),
            Err(status) => Self::Failed(Some(status)),
        }
    }
}

async fn read_and_send<B>(outgoing: Outgoing, body: B) -> Result<http::Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // What fits into no frame need not be read to the end.
    let message_max = match outgoing.channel.routes.now()? {
        Some(route) => route.socket.message_bytes_max(),
        None => outgoing
            .channel
            .routes
            .look_up()
            .await?
            .socket
            .message_bytes_max(),
    };
    let read = body::collect(body, message_max, FRAME_LIMIT).await;
    let (whole, _) = read.map_err(|status| status.with_delivery(Delivery::NotSent))?;
    let message = whole.message.ok_or_else(no_message)?;
    send(outgoing, message).await
}

/// Sends the call, to one address of the host after the other while it provably arrived nowhere.
async fn send(outgoing: Outgoing, message: Bytes) -> Result<http::Response<Body>, Status> {
    let routes = &outgoing.channel.routes;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let route = match routes.now()? {
            Some(route) => route,
            None => routes.look_up().await?,
        };
        match outgoing.start(route.clone(), message.clone())?.await {
            Ok(response) => {
                routes.worked(&route);
                return response;
            }
            Err(error) => {
                let more = routes.failed(&route, &error);
                let safe = error.delivery() == Delivery::NotSent;
                if !(more && safe && attempts < ADDRESSES_MAX) {
                    return Err(outgoing.channel.failure(error));
                }
            }
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.state {
            State::Failed(status) => Poll::Ready(Err(status
                .take()
                .unwrap_or_else(|| Status::internal("a call was polled after its end")))),
            State::Sent(attempt) => match Pin::new(&mut *attempt).poll(cx) {
                Poll::Ready(Ok(response)) => {
                    this.channel.routes.answered();
                    Poll::Ready(response)
                }
                Poll::Ready(Err(error)) => {
                    this.channel.routes.failed(&attempt.route(), &error);
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
                _ => expired(this.channel, this.uri),
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
            .field("uri", &self.uri)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
