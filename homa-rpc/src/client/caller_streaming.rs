//! Calls of methods that stream.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use homa_transport::Delivery;
use http::response::Parts;

use super::caller::{Caller, Prepared, expired, path};
use crate::body::{self, Body, CallService, Encoded, Role, StreamDeadline, Streaming};
use crate::call::context::CallContext;
use crate::call::deadline;
use crate::message::codec::Codec;
use crate::message::limits::MessageLimits;
use crate::message::metadata::Metadata;
use crate::message::method::MethodDescriptor;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::status::Status;

impl<T: CallService> Caller<T> {
    /// Makes a call with one request and a stream of responses.
    ///
    /// The future is ready when the server has answered with its metadata. The request's timeout starts with
    /// the first poll and holds for the stream as well. Dropping the future or the stream cancels the call.
    ///
    /// # Errors
    /// As [`unary`](Self::unary). A server that fails later has its status at the end of the stream.
    pub fn server_streaming<Req, Res, C>(
        &self,
        request: Request<Req>,
        method: &'static MethodDescriptor,
        codec: C,
    ) -> impl Future<Output = Result<Response<Streaming<Res>>, Status>>
    + Send
    + 'static
    + use<T, Req, Res, C>
    where
        C: Codec<Encode = Req, Decode = Res>,
        Req: Send + 'static,
        Res: Send + 'static,
    {
        let caller = self.clone();
        async move {
            let (call, message) = Prepared::new(request, method, caller.limits);
            let codec = Arc::new(codec);
            let encoder = Arc::clone(&codec);
            let encode = move |limits: MessageLimits| {
                let encoded = limits.encode(&*encoder, message);
                let message = encoded.map_err(|status| status.with_delivery(Delivery::NotSent))?;
                Ok(Body::request(message))
            };
            stream(caller.service, call, method, codec, encode).await
        }
    }

    /// Makes a call with a stream of requests and one response.
    ///
    /// Dropping the future cancels the call. The request's timeout starts with its first poll.
    ///
    /// # Errors
    /// As [`unary`](Self::unary).
    pub fn client_streaming<S, Res, C>(
        &self,
        request: Request<S>,
        method: &'static MethodDescriptor,
        codec: C,
    ) -> impl Future<Output = Result<Response<Res>, Status>> + Send + 'static + use<T, S, Res, C>
    where
        C: Codec<Encode = S::Item, Decode = Res>,
        S: Stream + Send + 'static,
        Res: Send + 'static,
    {
        let caller = self.clone();
        async move {
            let (call, messages) = Prepared::new(request, method, caller.limits);
            let (info, limits, timeout) = (call.info, call.limits, call.timeout);
            let call = pin!(CallContext::of(info).scope(async move {
                let codec = Arc::new(codec);
                let body = requests(messages, &codec, limits);
                let response = call.send(caller.service, method, body).await?;
                let (parts, messages) = Streaming::response(response, codec, limits, None);
                single(parts, messages).await
            }));
            deadline::enforce(info.deadline, call, || expired(method, timeout)).await
        }
    }

    /// Makes a call with a stream each way.
    ///
    /// The future is ready when the server has answered with its metadata, which it may do before it has read a
    /// request, or long after. The request's timeout starts with the first poll and holds for the stream as
    /// well. Dropping the future or the stream of responses cancels the call.
    ///
    /// # Errors
    /// As [`unary`](Self::unary). A server that fails later has its status at the end of the stream.
    pub fn bidi_streaming<S, Res, C>(
        &self,
        request: Request<S>,
        method: &'static MethodDescriptor,
        codec: C,
    ) -> impl Future<Output = Result<Response<Streaming<Res>>, Status>>
    + Send
    + 'static
    + use<T, S, Res, C>
    where
        C: Codec<Encode = S::Item, Decode = Res>,
        S: Stream + Send + 'static,
        Res: Send + 'static,
    {
        let caller = self.clone();
        async move {
            let (call, messages) = Prepared::new(request, method, caller.limits);
            let codec = Arc::new(codec);
            let encoder = Arc::clone(&codec);
            let encode = move |limits| Ok(requests(messages, &encoder, limits));
            stream(caller.service, call, method, codec, encode).await
        }
    }
}

/// Makes a call whose response is a stream.
async fn stream<T, C>(
    service: T,
    call: Prepared,
    method: &'static MethodDescriptor,
    codec: Arc<C>,
    encode: impl FnOnce(MessageLimits) -> Result<Body, Status>,
) -> Result<Response<Streaming<C::Decode>>, Status>
where
    T: CallService,
    C: Codec,
{
    let (info, limits, timeout) = (call.info, call.limits, call.timeout);
    let call = pin!(CallContext::of(info).scope(async move {
        let body = encode(limits)?;
        call.send(service, method, body).await
    }));
    let response = deadline::enforce(info.deadline, call, || expired(method, timeout)).await?;
    let deadline = match info.deadline {
        Some(at) => Some(StreamDeadline::new(at, expired(method, timeout))?),
        None => None,
    };
    let (parts, messages) = Streaming::response(response, codec, limits, deadline);
    let metadata = Metadata::from_headers(parts.headers);
    Ok(Response::of_call(
        metadata,
        None,
        parts.extensions,
        messages,
    ))
}

impl Prepared {
    /// Makes the call with this body. What fails before the response's first message is an error.
    async fn send<T: CallService>(
        self,
        mut service: T,
        method: &'static MethodDescriptor,
        mut body: Body,
    ) -> Result<http::Response<Body>, Status> {
        *body.info_mut() = self.info;
        let headers = self.metadata.into_headers();
        let mut request = body::http_request(path(method)?, headers, body);
        *request.extensions_mut() = self.extensions;
        let failed = |error: T::CallError| Status::from_error(error.into());
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
        let response = service.call(request).await.map_err(failed)?.map(Body::new);
        match body::failure_before_messages(&response) {
            Some(status) => Err(status),
            None => Ok(response),
        }
    }
}

/// The body of a stream of requests.
fn requests<S, C>(messages: S, codec: &Arc<C>, limits: MessageLimits) -> Body
where
    S: Stream<Item = C::Encode> + Send + 'static,
    C: Codec,
{
    let source = Source { messages };
    let context = CallContext::current();
    Body::new(Encoded::new(
        source,
        Arc::clone(codec),
        limits,
        Role::Request,
        context,
    ))
}

/// The response whose stream has to be one message.
async fn single<T>(parts: Parts, mut messages: Streaming<T>) -> Result<Response<T>, Status> {
    let Some(message) = messages.message().await? else {
        return Err(Status::unimplemented(
            "the response has no message, a method whose response is no stream needs one",
        ));
    };
    if messages.message().await?.is_some() {
        return Err(Status::unimplemented(
            "the response goes on behind its first message: one message was expected, a stream came",
        ));
    }
    let trailing = messages.trailers().await?;
    let trailing = trailing.filter(|metadata| !metadata.is_empty());
    let metadata = Metadata::from_headers(parts.headers);
    Ok(Response::of_call(
        metadata,
        trailing.map(Box::new),
        parts.extensions,
        message,
    ))
}

pin_project_lite::pin_project! {
    /// A client's messages, which do not fail.
    struct Source<S> {
        #[pin]
        messages: S,
    }
}

impl<S: Stream> Stream for Source<S> {
    type Item = Result<S::Item, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.project().messages.poll_next(cx);
        next.map(|message| message.map(Ok))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.messages.size_hint()
    }
}
