//! What a service is to a server: its name, its methods, and the way from a call to the one that it is for.

use bytes::Bytes;

use super::streaming::{StreamingCall, StreamingFuture, unimplemented_streaming_method};
use super::unary::{HttpFuture, Replying, failed, message_of};
use crate::body::{self, Body, UnaryCall, UnaryFuture};
use crate::message::BoxError;
use crate::message::limits::{DECODING_LIMIT, MessageLimits};
use crate::message::method::{MethodDescriptor, MethodKind};

/// A service with the name under which it is called.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service that can be served",
    label = "expected a service, such as the generated `GreeterServer`",
    note = "what implements a generated trait `Greeter` is served as `GreeterServer::new(..)`",
    note = "a service of another kind needs `homa_rpc::server::NamedService`, which says how it is called"
)]
pub trait NamedService {
    /// `package.Service`.
    const NAME: &'static str;

    /// Its methods, as far as they are known: layers and handlers learn from here which one is called
    /// ([`CallInfo::method`](crate::CallInfo::method)).
    const METHODS: &'static [MethodDescriptor] = &[];

    /// The service without HTTP, if there is that: of generated ones, not of what is around one.
    #[doc(hidden)]
    fn unary(&self) -> Option<&dyn UnaryService> {
        None
    }
}

/// A service that answers unary calls without HTTP, and calls that stream.
pub trait UnaryService {
    /// Limits of its messages.
    fn limits(&self) -> MessageLimits;

    /// Answers a call of one of its unary methods.
    fn serve(&self, call: UnaryCall) -> UnaryFuture;

    /// Answers a call of one of its methods that stream.
    fn serve_streaming(&self, call: StreamingCall) -> StreamingFuture {
        unimplemented_streaming_method(&call)
    }
}

/// Serves an HTTP request, as layers hand it on, by a service that knows nothing of HTTP.
pub fn serve_http<S, B>(service: &S, request: http::Request<B>) -> HttpFuture
where
    S: UnaryService + NamedService + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let path = request.uri().path();
    let method = S::METHODS.iter().position(|method| method.path() == path);
    let known = method.and_then(|index| Some((index, S::METHODS.get(index)?.kind())));
    if let Some((index, kind)) = known
        && kind != MethodKind::Unary
    {
        let call = StreamingCall::new(request.map(Body::new), index);
        return HttpFuture(Replying::Http(service.serve_streaming(call)));
    }
    let (parts, body) = request.into_parts();
    let of_http = move |parts, message, info| UnaryCall {
        method,
        ..UnaryCall::of_http(parts, message, info)
    };
    let max = service.limits().decoding_max();
    let replying = match body::take_or_read(body, max, DECODING_LIMIT) {
        Ok((whole, info)) => match message_of(whole) {
            Ok(message) => service.serve(of_http(parts, message, info)),
            Err(status) => failed(status),
        },
        Err(reading) => {
            let service = service.clone();
            Box::pin(async move {
                let read = reading.await;
                match read.and_then(|(whole, info)| Ok((message_of(whole)?, info))) {
                    Ok((message, info)) => {
                        let replying = service.serve(of_http(parts, message, info));
                        // Not held while the handler runs.
                        drop(service);
                        replying.await
                    }
                    Err(status) => status.into(),
                }
            })
        }
    };
    HttpFuture(Replying::Unary(replying))
}
