//! [`Body`]: the body of a request or response as tower layers see it.
//!
//! A unary call is one whole message each way. The body holds it as it is: it clones cheaply and
//! is taken out at the other end without polling. Polled through [`http_body::Body`] it is gRPC:
//! each message behind a 5-byte prefix, the status in the trailers. So layers and stubs made for
//! gRPC over HTTP/2 work, and foreign bodies are accepted wherever ours are.
//!
//! Unlike over HTTP/2 no `content-type` header is set by the stubs and the server: it would cost
//! allocations on each side and nothing here reads it.

mod collect;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use crate::cast::try_cast;
use crate::error::{self, BoxError};
use crate::metadata::Metadata;
use crate::method::CallInfo;
use crate::status::{Code, Status};

pub(crate) use collect::collect;

/// Length of gRPC's prefix: a flag byte and the message's length.
const PREFIX_LEN: usize = 5;

/// Body of a request or response.
pub struct Body {
    kind: Kind,
    info: CallInfo,
}

enum Kind {
    /// Nothing: the body of a response whose status stands in the headers.
    Empty,
    /// A whole message.
    Whole(Whole, Cursor),
    /// Somebody else's body.
    Foreign(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Status> + Send>>),
}

/// A body's contents: at most one message, then the end.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    /// The message, without prefix.
    pub(crate) message: Option<Bytes>,
    /// What follows the message.
    pub(crate) end: End,
}

/// What follows the message.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// A request just ends.
    Request,
    /// A response succeeds, with metadata.
    Ok(Option<Box<Metadata>>),
    /// A response fails; the status has the metadata.
    Failed(Status),
}

/// How much of a whole message has been polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cursor {
    Prefix,
    Message,
    Trailers,
    End,
}

impl Body {
    /// A body without a message and trailers.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            kind: Kind::Empty,
            info: CallInfo::NONE,
        }
    }

    /// The body of a request that is one message.
    #[must_use]
    pub fn request(message: Bytes) -> Self {
        Self::whole(Whole {
            message: Some(message),
            end: End::Request,
        })
    }

    pub(crate) fn whole(whole: Whole) -> Self {
        Self {
            kind: Kind::Whole(whole, Cursor::Prefix),
            info: CallInfo::default(),
        }
    }

    /// Wraps a body of another type; takes it as it is if it is a `Body`.
    #[must_use]
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        match try_cast::<B, Self>(body) {
            Ok(body) => body,
            Err(body) => Self {
                kind: Kind::Foreign(Box::pin(collect::WithStatus::new(body))),
                info: CallInfo::default(),
            },
        }
    }

    /// What is known of the call this body belongs to.
    #[must_use]
    pub const fn info(&self) -> &CallInfo {
        &self.info
    }

    /// What is known of the call this body belongs to, to be changed.
    #[must_use]
    pub const fn info_mut(&mut self) -> &mut CallInfo {
        &mut self.info
    }

    /// The same body if it is cheap to copy: a whole message, not a foreign body.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        let kind = match &self.kind {
            Kind::Empty => Kind::Empty,
            Kind::Whole(whole, cursor) => Kind::Whole(whole.clone(), *cursor),
            Kind::Foreign(_) => return None,
        };
        Some(Self {
            kind,
            info: self.info,
        })
    }

    /// The message of an untouched body that is one whole message, without prefix.
    #[must_use]
    pub fn message(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Whole(whole, Cursor::Prefix) => whole.message.as_ref(),
            _ => None,
        }
    }

    /// The contents, if they can be had without polling.
    pub(crate) fn into_whole(self) -> Result<Whole, Self> {
        match self.kind {
            Kind::Whole(whole, Cursor::Prefix) => Ok(whole),
            _ => Err(self),
        }
    }
}

/// The response that says how a call failed: status in the headers, no message.
pub(crate) fn failed(status: Status) -> http::Response<Body> {
    // Status 0 in the headers would read as success without a message.
    let status = if status.code() == Code::Ok {
        Status::unknown(format!(
            "a call failed with the code OK: {}",
            status.message()
        ))
    } else {
        status
    };
    let mut response = http::Response::new(Body::empty());
    put_status(response.headers_mut(), &status);
    *response.body_mut() = Body::whole(Whole {
        message: None,
        end: End::Failed(status),
    });
    response
}

/// The status of a response, if it can be known without reading a foreign body: `Some(Ok(()))` for
/// success. For layers that count, retry or log by outcome.
#[must_use]
pub fn final_status(response: &http::Response<Body>) -> Option<Result<(), Status>> {
    if response.status() != http::StatusCode::OK {
        return Some(Err(error::from_http_status(response.status())));
    }
    match &response.body().kind {
        Kind::Whole(whole, _) => match &whole.end {
            End::Ok(_) => Some(Ok(())),
            End::Failed(status) => Some(Err(status.clone())),
            End::Request => None,
        },
        Kind::Empty | Kind::Foreign(_) => read_status(response.headers()),
    }
}

/// A copy of a request whose body is a whole message; `None` if the body cannot be copied.
/// For layers that retry or hedge.
#[must_use]
pub fn try_clone_request(request: &http::Request<Body>) -> Option<http::Request<Body>> {
    let mut copy = http::Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Adds a status with its metadata to headers or trailers.
pub(crate) fn put_status(headers: &mut HeaderMap, status: &Status) {
    for (name, value) in status.metadata().as_headers() {
        // Full: 32,768 entries, far over what is ever sent; the frame's limit reports that.
        let _full = headers.try_append(name, value.clone());
    }
    headers.insert(GRPC_STATUS, u16::from(status.code().number()).into());
    if !status.message().is_empty()
        && let Ok(text) = HeaderValue::from_str(&percent_encode(status.message()))
    {
        headers.insert(GRPC_MESSAGE, text);
    }
    if !status.details().is_empty()
        && let Ok(details) = crate::metadata::encode_bin(GRPC_DETAILS.as_str(), status.details())
    {
        headers.insert(GRPC_DETAILS, details);
    }
}

/// The status that headers or trailers hold, with all of them as its metadata. `None` if there is
/// none.
pub(crate) fn read_status(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let number = headers.get(GRPC_STATUS)?;
    let code = number.to_str().ok().and_then(|text| text.parse().ok());
    let code = match code.and_then(Code::new) {
        Some(Code::Ok) => return Some(Ok(())),
        Some(code) => code,
        None => Code::Unknown,
    };
    let text = headers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes);
    let details = headers
        .get(GRPC_DETAILS)
        .and_then(|value| crate::metadata::decode_bin(GRPC_DETAILS.as_str(), value).ok());
    let status = Status::with_details(
        code,
        text.map(percent_decode).unwrap_or_default(),
        details.unwrap_or_default(),
    );
    Some(Err(
        status.with_metadata(Metadata::from_headers(headers.clone()))
    ))
}

/// Printable ASCII but `%` stays, every other byte becomes `%XX`.
/// Source: grpc, PROTOCOL-HTTP2.md, "Percent-Encoded".
fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ok = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Reverse of [`percent_encode`]; what is no valid escape is kept as it is.
fn percent_decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail
            .get(..2)
            .filter(|hex| first == b'%' && hex.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() {
            tail.get(2..).unwrap_or_default()
        } else {
            tail
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(whole, cursor) => Poll::Ready(whole.next_frame(cursor).map(Ok)),
            Kind::Foreign(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Whole(whole, cursor) => match cursor {
                Cursor::Prefix => whole.message.is_none() && !whole.has_trailers(),
                Cursor::Message => false,
                Cursor::Trailers => !whole.has_trailers(),
                Cursor::End => true,
            },
            Kind::Foreign(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let len = match &self.kind {
            Kind::Empty => 0,
            Kind::Whole(whole, cursor) => match (&whole.message, cursor) {
                (Some(message), Cursor::Prefix) => PREFIX_LEN + message.len(),
                (Some(message), Cursor::Message) => message.len(),
                _ => 0,
            },
            Kind::Foreign(body) => return body.size_hint(),
        };
        SizeHint::with_exact(len as u64)
    }
}

impl Whole {
    fn has_trailers(&self) -> bool {
        match &self.end {
            End::Request => false,
            End::Ok(_) => true,
            // Without a message the status stands in the headers.
            End::Failed(_) => self.message.is_some(),
        }
    }

    fn next_frame(&self, cursor: &mut Cursor) -> Option<Frame<Bytes>> {
        if *cursor == Cursor::Prefix {
            match &self.message {
                Some(message) => {
                    *cursor = if message.is_empty() {
                        Cursor::Trailers
                    } else {
                        Cursor::Message
                    };
                    return Some(Frame::data(prefix(message)));
                }
                None => *cursor = Cursor::Trailers,
            }
        }
        if *cursor == Cursor::Message {
            *cursor = Cursor::Trailers;
            return self.message.clone().map(Frame::data);
        }
        if *cursor == Cursor::End || !self.has_trailers() {
            *cursor = Cursor::End;
            return None;
        }
        *cursor = Cursor::End;
        let mut trailers = HeaderMap::new();
        match &self.end {
            End::Failed(status) => put_status(&mut trailers, status),
            End::Ok(metadata) => {
                if let Some(metadata) = metadata {
                    trailers = metadata.as_headers().clone();
                }
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
            }
            End::Request => {}
        }
        Some(Frame::trailers(trailers))
    }
}

fn prefix(message: &Bytes) -> Bytes {
    let mut prefix = BytesMut::with_capacity(PREFIX_LEN);
    prefix.put_u8(0);
    // A message over 4 GiB cannot come into being: frames are shorter.
    prefix.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    prefix.freeze()
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Body");
        match &self.kind {
            Kind::Empty => out.field("kind", &"empty"),
            Kind::Whole(whole, _) => out.field("whole", whole),
            Kind::Foreign(_) => out.field("kind", &"foreign"),
        };
        out.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
