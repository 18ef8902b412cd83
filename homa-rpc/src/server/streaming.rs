//! What generated services are made of: methods that stream. Their calls are HTTP requests and responses with
//! and without layers.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;

use super::unary;
use crate::body::{self, Body, Encoded, Role, Streaming};
use crate::call::context::CallContext;
use crate::message::codec::Codec;
use crate::message::limits::{DECODING_LIMIT, MessageLimits};
use crate::message::metadata::Metadata;
use crate::message::method::CallInfo;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::status::Status;

/// A call of a method that streams.
#[derive(Debug)]
pub struct StreamingCall {
    request: http::Request<Body>,
    method: usize,
}

/// The response to such a call, to be waited for. A failure is a response as well.
pub type StreamingFuture = Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;

impl StreamingCall {
    /// The call that a request stands for; `method` is its place among the methods of its service.
    pub(super) const fn new(request: http::Request<Body>, method: usize) -> Self {
        Self { request, method }
    }

    /// `/package.Service/Method`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Which of the methods of its service it is for.
    #[must_use]
    pub const fn method_index(&self) -> usize {
        self.method
    }

    /// Its request, with the stream of messages that `codec` makes of the body.
    fn into_stream<C: Codec>(
        self,
        codec: &Arc<C>,
        limits: MessageLimits,
    ) -> (Request<Streaming<C::Decode>>, CallInfo) {
        let (parts, body) = self.request.into_parts();
        let info = *body.info();
        let messages = Streaming::request(body, Arc::clone(codec), limits);
        let metadata = Metadata::from_headers(parts.headers);
        let request = Request::of_call(metadata, parts.extensions, info, messages);
        (request, info)
    }

    /// Its request, whose body must be one message.
    async fn into_single<C: Codec>(
        self,
        codec: &C,
        limits: MessageLimits,
    ) -> Result<(Request<C::Decode>, CallInfo), Status> {
        let (parts, body) = self.request.into_parts();
        let read = match body::take_or_read(body, limits.decoding_max(), DECODING_LIMIT) {
            Ok(contents) => contents,
            Err(reading) => reading.await?,
        };
        let (whole, info) = read;
        let message = unary::message_of(whole)?;
        limits.check_decoding(message.len())?;
        let message = codec.decode(message)?;
        let metadata = Metadata::from_headers(parts.headers);
        let request = Request::of_call(metadata, parts.extensions, info, message);
        Ok((request, info))
    }
}

/// Serves a call with one request and a stream of responses.
pub fn server_streaming<C, F, Fut, S>(
    call: StreamingCall,
    codec: C,
    limits: MessageLimits,
    handler: F,
) -> StreamingFuture
where
    C: Codec,
    F: FnOnce(Request<C::Decode>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    S: Stream<Item = Result<C::Encode, Status>> + Send + 'static,
{
    Box::pin(async move {
        match call.into_single(&codec, limits).await {
            Ok((request, info)) => {
                let outcome = handler(request).await;
                stream(outcome, Arc::new(codec), limits, info)
            }
            Err(status) => body::failed(status),
        }
    })
}

/// Serves a call with a stream of requests and one response.
pub fn client_streaming<C, F, Fut>(
    call: StreamingCall,
    codec: C,
    limits: MessageLimits,
    handler: F,
) -> StreamingFuture
where
    C: Codec,
    F: FnOnce(Request<Streaming<C::Decode>>) -> Fut,
    Fut: Future<Output = Result<Response<C::Encode>, Status>> + Send + 'static,
{
    let codec = Arc::new(codec);
    let (request, _) = call.into_stream(&codec, limits);
    let handling = handler(request);
    Box::pin(async move { unary::reply(handling.await, &*codec, limits).into_http() })
}

/// Serves a call with a stream each way.
pub fn bidi_streaming<C, F, Fut, S>(
    call: StreamingCall,
    codec: C,
    limits: MessageLimits,
    handler: F,
) -> StreamingFuture
where
    C: Codec,
    F: FnOnce(Request<Streaming<C::Decode>>) -> Fut,
    Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    S: Stream<Item = Result<C::Encode, Status>> + Send + 'static,
{
    let codec = Arc::new(codec);
    let (request, info) = call.into_stream(&codec, limits);
    let handling = handler(request);
    Box::pin(async move { stream(handling.await, codec, limits, info) })
}

/// The response to a call of a method that the service does not have.
#[must_use]
pub fn unimplemented_streaming_method(call: &StreamingCall) -> StreamingFuture {
    let response = body::failed(unary::unimplemented_path(call.path()));
    Box::pin(ready(response))
}

/// The response that a handler has given, or its failure.
fn stream<C, S>(
    outcome: Result<Response<S>, Status>,
    codec: Arc<C>,
    limits: MessageLimits,
    info: CallInfo,
) -> http::Response<Body>
where
    C: Codec,
    S: Stream<Item = Result<C::Encode, Status>> + Send + 'static,
{
    let (metadata, trailing, extensions, messages) = match outcome {
        Ok(response) => response.into_call(),
        Err(status) => return body::failed(status.of_handler()),
    };
    let role = Role::Response(trailing);
    let encoded = Encoded::new(messages, codec, limits, role, CallContext::of(info));
    let mut response = http::Response::new(Body::new(encoded));
    *response.headers_mut() = metadata.into_headers();
    *response.extensions_mut() = extensions;
    response
}
