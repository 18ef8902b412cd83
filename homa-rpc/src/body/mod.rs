//! [`Body`]: the body of a request or response as tower layers see it.
//!
//! A unary call is one whole message each way. The body holds it as it is: it clones cheaply and
//! is taken out at the other end without polling. Polled through [`http_body::Body`] it is gRPC:
//! each message behind a 5-byte prefix, the status in the trailers. So layers and stubs made for
//! gRPC over HTTP/2 work, and foreign bodies are accepted wherever ours are. Streams pass in this
//! form only.
//!
//! ```text
//! Stream of messages ──Encoded──► data frames, trailers ──Deframer──► Streaming
//! ```
//!
//! Unlike over HTTP/2 no `content-type` header is set by the stubs and the server: it would cost
//! allocations on each side and nothing here reads it.

mod collect;
mod deframer;
mod encoded;
pub(crate) mod foreign;
pub(crate) mod prefix;
mod service;
mod status;
mod streaming;
mod unary;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::call::context::CallContext;
use crate::message::BoxError;
use crate::message::metadata::Metadata;
use crate::message::method::CallInfo;
use crate::message::status::Status;
use crate::util::downcast::try_cast;

pub(crate) use collect::take_or_read;
pub(crate) use encoded::{Encoded, Role};
pub use service::CallService;
pub(crate) use status::{failed, failure_in_parts, read_status, reconcile, says_success, trailers};
pub(crate) use streaming::StreamDeadline;
pub use streaming::{BoxRequestStream, BoxStream, Streaming};
pub(crate) use unary::http_request;
pub use unary::{UnaryCall, UnaryFuture, UnaryReply};

use prefix::PREFIX_LEN;

type PolledBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = Status> + Send>>;

/// Body of a request or response. It is `Sync`, so a layer may hold a reference to a request
/// across an await.
pub struct Body {
    kind: Kind,
    info: CallInfo,
}

enum Kind {
    /// Nothing: the body of a response whose status stands in the headers.
    Empty,
    /// A whole message.
    Whole(Whole, Cursor),
    /// A stream, or somebody else's body. The lock makes it `Sync`; it is never waited for.
    Polled(Mutex<PolledBody>),
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

    /// Wraps a body of another type; takes it as it is if it is a `Body`. What is known of the call
    /// is what the task knows that runs this.
    #[must_use]
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        match try_cast::<B, Self>(body) {
            Ok(body) => body,
            Err(body) => Self {
                kind: Kind::Polled(Mutex::new(Box::pin(collect::WithStatus::new(body)))),
                info: CallContext::current().info(),
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

    /// The same body if it is cheap to copy: a whole message, not a stream or a foreign body.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        let kind = match &self.kind {
            Kind::Empty => Kind::Empty,
            Kind::Whole(whole, cursor) => Kind::Whole(whole.clone(), *cursor),
            Kind::Polled(_) => return None,
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

/// How the call ended, as far as a response tells without its body being read: `Some(Ok(()))` for
/// success, `None` if only the trailers will tell, of a stream or a body of another type. For layers that
/// count, retry or log by outcome.
///
/// A layer changes an outcome by its headers or HTTP status, or by another response
/// ([`Status::into_http`]).
#[must_use]
pub fn final_status<B: 'static>(response: &http::Response<B>) -> Option<Result<(), Status>> {
    let body = (response.body() as &dyn Any).downcast_ref::<Body>();
    let end = match body.map(|body| &body.kind) {
        Some(Kind::Whole(whole, _)) => Some(&whole.end),
        _ => None,
    };
    let typed = match end {
        Some(End::Failed(status)) => Some(status),
        _ => None,
    };
    let (http, headers) = (response.status(), response.headers());
    match status::failure_in_head(http, headers, response.extensions(), typed) {
        Some(failure) => Some(Err(failure)),
        None => matches!(end, Some(End::Ok(_))).then_some(Ok(())),
    }
}

/// How a call failed before any message: what a response tells without its body being polled, if it has
/// none.
pub(crate) fn failure_before_messages(response: &http::Response<Body>) -> Option<Status> {
    let typed = match &response.body().kind {
        Kind::Whole(
            Whole {
                message: None,
                end: End::Failed(status),
            },
            _,
        ) => Some(status),
        _ => None,
    };
    let (http, headers) = (response.status(), response.headers());
    status::failure_in_head(http, headers, response.extensions(), typed)
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

fn lock(body: &Mutex<PolledBody>) -> MutexGuard<'_, PolledBody> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(whole, cursor) => Poll::Ready(whole.next_frame(cursor).transpose()),
            Kind::Polled(body) => {
                let body = body.get_mut().unwrap_or_else(PoisonError::into_inner);
                body.as_mut().poll_frame(cx)
            }
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
            Kind::Polled(body) => lock(body).is_end_stream(),
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
            Kind::Polled(body) => return lock(body).size_hint(),
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

    fn next_frame(&self, cursor: &mut Cursor) -> Result<Option<Frame<Bytes>>, Status> {
        if *cursor == Cursor::Prefix {
            match &self.message {
                Some(message) => {
                    let prefix = prefix::write(message.len())?;
                    *cursor = if message.is_empty() {
                        Cursor::Trailers
                    } else {
                        Cursor::Message
                    };
                    return Ok(Some(Frame::data(Bytes::copy_from_slice(&prefix))));
                }
                None => *cursor = Cursor::Trailers,
            }
        }
        if *cursor == Cursor::Message {
            *cursor = Cursor::Trailers;
            return Ok(self.message.clone().map(Frame::data));
        }
        if *cursor == Cursor::End || !self.has_trailers() {
            *cursor = Cursor::End;
            return Ok(None);
        }
        *cursor = Cursor::End;
        let trailers = match &self.end {
            End::Failed(status) => {
                let mut trailers = HeaderMap::new();
                status::put_status(&mut trailers, status);
                trailers
            }
            End::Ok(metadata) => status::success(metadata.as_deref()),
            End::Request => return Ok(None),
        };
        Ok(Some(Frame::trailers(trailers)))
    }
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
            Kind::Polled(_) => out.field("kind", &"polled"),
        };
        out.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
