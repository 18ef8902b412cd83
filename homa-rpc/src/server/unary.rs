//! What generated services are made of: unary methods, without HTTP around them.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::body::{Body, End, UnaryCall, UnaryFuture, UnaryReply, Whole};
use crate::message::codec::Codec;
use crate::message::limits::MessageLimits;
use crate::message::metadata::Metadata;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::status::Status;

/// Serves one unary call: decodes the request, runs `handler`, encodes its response or status.
///
/// The request is decoded and `handler` called at once; the future that this returns is polled by the one
/// returned here.
pub fn unary<C, F, Fut>(call: UnaryCall, codec: C, limits: MessageLimits, handler: F) -> UnaryFuture
where
    C: Codec,
    F: FnOnce(Request<C::Decode>) -> Fut,
    Fut: Future<Output = Result<Response<C::Encode>, Status>> + Send + 'static,
{
    let request = match decode(call, &codec, limits) {
        Ok(request) => request,
        Err(status) => return failed(status),
    };
    let handling = handler(request);
    Box::pin(async move {
        // Not by `reply`, through which the response would be moved once more.
        match handling.await {
            Ok(response) => encode(response, &codec, limits).unwrap_or_else(UnaryReply::from),
            Err(status) => status.of_handler().into(),
        }
    })
}

/// The reply with the one message that a handler has given, or its failure.
pub(super) fn reply<C: Codec>(
    outcome: Result<Response<C::Encode>, Status>,
    codec: &C,
    limits: MessageLimits,
) -> UnaryReply {
    match outcome {
        Ok(response) => encode(response, codec, limits).unwrap_or_else(UnaryReply::from),
        Err(status) => status.of_handler().into(),
    }
}

/// The reply to a call of a method that the service does not have.
#[must_use]
pub fn unimplemented_method(call: &UnaryCall) -> UnaryFuture {
    failed(unimplemented_path(call.path()))
}

pub(super) fn unimplemented_path(path: &str) -> Status {
    Status::unimplemented(format!("method {path} is not implemented by this service"))
}

/// The reply that says how a call failed.
pub(super) fn failed(status: Status) -> UnaryFuture {
    Box::pin(ready(status.into()))
}

/// The reply of a service, as layers see it.
pub struct HttpFuture(pub(super) Replying);

/// How a reply comes into being.
pub(super) enum Replying {
    /// Without HTTP.
    Unary(UnaryFuture),
    /// As HTTP, by services that know nothing else.
    Http(Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>),
}

impl Future for HttpFuture {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Replying::Unary(reply) => reply.as_mut().poll(cx).map(UnaryReply::into_http),
            Replying::Http(response) => response.as_mut().poll(cx),
        }
        .map(Ok)
    }
}

impl fmt::Debug for HttpFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpFuture")
    }
}

/// The message of a method that takes one.
pub(super) fn message_of(whole: Whole) -> Result<Bytes, Status> {
    let missing = || Status::unimplemented("the request has no message, the method needs one");
    whole.message.ok_or_else(missing)
}

fn decode<C: Codec>(
    call: UnaryCall,
    codec: &C,
    limits: MessageLimits,
) -> Result<Request<C::Decode>, Status> {
    limits.check_decoding(call.message.len())?;
    let message = codec.decode(call.message)?;
    let metadata = Metadata::from_headers(call.headers);
    Ok(Request::of_call(
        metadata,
        call.extensions,
        call.info,
        message,
    ))
}

fn encode<C: Codec>(
    response: Response<C::Encode>,
    codec: &C,
    limits: MessageLimits,
) -> Result<UnaryReply, Status> {
    let (metadata, trailing, extensions, message) = response.into_call();
    let whole = Whole {
        message: Some(limits.encode(codec, message)?),
        end: End::Ok(trailing),
    };
    Ok(UnaryReply {
        headers: metadata.into_headers(),
        extensions,
        ..whole.into()
    })
}
