//! What generated services call to serve a unary method.

use std::future::Future;

use bytes::Bytes;

use crate::body::{self, Body, End, Whole};
use crate::codec::Codec;
use crate::error::BoxError;
use crate::limits::{DECODING_LIMIT, MessageLimits};
use crate::metadata::Metadata;
use crate::request::Request;
use crate::response::Response;
use crate::status::Status;

/// Serves one unary call: decodes the request, runs `handler`, encodes its response or status.
pub async fn unary<B, C, F, Fut>(
    request: http::Request<B>,
    codec: C,
    limits: MessageLimits,
    handler: F,
) -> http::Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    C: Codec,
    F: FnOnce(Request<C::Decode>) -> Fut,
    Fut: Future<Output = Result<Response<C::Encode>, Status>>,
{
    let request = match decode(request, &codec, limits).await {
        Ok(request) => request,
        Err(status) => return body::failed(status),
    };
    match handler(request).await {
        Ok(response) => encode(response, &codec, limits).unwrap_or_else(body::failed),
        Err(status) => body::failed(status.of_handler()),
    }
}

/// The response to a method that the service does not have.
#[must_use]
pub fn unimplemented_method(path: &str) -> http::Response<Body> {
    body::failed(Status::unimplemented(format!(
        "method {path} is not implemented by this service"
    )))
}

async fn decode<B, C>(
    request: http::Request<B>,
    codec: &C,
    limits: MessageLimits,
) -> Result<Request<C::Decode>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    C: Codec,
{
    let (parts, body) = request.into_parts();
    let (whole, info) = body::collect(body, limits.decoding_max(), DECODING_LIMIT).await?;
    let message = whole.message.ok_or_else(|| {
        Status::unimplemented("the request has no message, a unary method needs one")
    })?;
    limits.check_decoding(message.len())?;
    let message = codec.decode(message)?;
    let metadata = Metadata::from_headers(parts.headers);
    Ok(Request::from_parts(
        metadata,
        parts.extensions,
        info,
        message,
    ))
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
