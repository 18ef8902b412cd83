//! What generated services call to serve a unary method.

use std::future::Future;

use bytes::Bytes;
use http::{Extensions, HeaderMap};

use crate::body::{self, Body, End, Reading, Whole};
use crate::message::BoxError;
use crate::message::codec::Codec;
use crate::message::limits::{DECODING_LIMIT, MessageLimits};
use crate::message::metadata::Metadata;
use crate::message::method::CallInfo;
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::status::Status;

/// Serves one unary call: decodes the request, runs `handler`, encodes its response or status.
///
/// A request that need not be read first is decoded at once, and `handler` called; the future that it
/// returns is polled by the one returned here.
pub fn unary<B, C, F, Fut>(
    request: http::Request<B>,
    codec: C,
    limits: MessageLimits,
    handler: F,
) -> impl Future<Output = http::Response<Body>> + use<B, C, F, Fut>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    C: Codec,
    F: FnOnce(Request<C::Decode>) -> Fut,
    Fut: Future<Output = Result<Response<C::Encode>, Status>>,
{
    let (parts, body) = request.into_parts();
    let beside = (parts.headers, parts.extensions);
    let begun = match body::take_or_read(body, limits.decoding_max(), DECODING_LIMIT) {
        Ok((whole, info)) => match decode(beside, whole, info, &codec, limits) {
            Ok(request) => Begun::Handling(handler(request)),
            Err(status) => Begun::Failed(status),
        },
        Err(reading) => Begun::Reading(reading, beside, handler),
    };
    async move {
        let handling = match begun {
            Begun::Handling(handling) => handling,
            Begun::Failed(status) => return body::failed(status),
            Begun::Reading(reading, beside, handler) => {
                let read = reading.await;
                let decoded =
                    read.and_then(|(whole, info)| decode(beside, whole, info, &codec, limits));
                match decoded {
                    Ok(request) => handler(request),
                    Err(status) => return body::failed(status),
                }
            }
        };
        match handling.await {
            Ok(response) => encode(response, &codec, limits).unwrap_or_else(body::failed),
            Err(status) => body::failed(status.of_handler()),
        }
    }
}

/// What a request has beside its body.
type Beside = (HeaderMap, Extensions);

/// How far a call has got without waiting.
enum Begun<Fut, F> {
    Handling(Fut),
    Failed(Status),
    Reading(Reading, Beside, F),
}

/// The response to a method that the service does not have.
#[must_use]
pub fn unimplemented_method(path: &str) -> http::Response<Body> {
    body::failed(Status::unimplemented(format!(
        "method {path} is not implemented by this service"
    )))
}

fn decode<C: Codec>(
    (headers, extensions): Beside,
    whole: Whole,
    info: CallInfo,
    codec: &C,
    limits: MessageLimits,
) -> Result<Request<C::Decode>, Status> {
    let message = whole.message.ok_or_else(|| {
        Status::unimplemented("the request has no message, a unary method needs one")
    })?;
    limits.check_decoding(message.len())?;
    let message = codec.decode(message)?;
    let metadata = Metadata::from_headers(headers);
    Ok(Request::from_parts(metadata, extensions, info, message))
}

fn encode<C: Codec>(
    response: Response<C::Encode>,
    codec: &C,
    limits: MessageLimits,
) -> Result<http::Response<Body>, Status> {
    let (metadata, trailing, extensions, message) = response.into_parts();
    let message = limits.encode(codec, message)?;
    let mut response = http::Response::new(Body::whole(Whole {
        message: Some(message),
        end: End::Ok(trailing),
    }));
    *response.headers_mut() = metadata.into_headers();
    *response.extensions_mut() = extensions;
    Ok(response)
}
