//! [`Streaming`]: the messages of a body, one after the other.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use http_body::Body as _;
use tokio::time::Instant;

use super::deframer::Deframer;
use super::status::read_status;
use super::{Body, says_success};
use crate::call::deadline::{self, Timer};
use crate::message::codec::Codec;
use crate::message::limits::{DECODING_LIMIT, MessageLimits};
use crate::message::metadata::Metadata;
use crate::message::status::{Code, Status};

/// A stream of messages: on a client the response, on a server the request of a method that streams.
///
/// Dropping it gives up what has not come yet. On a client that cancels the call.
///
/// ```
/// # async fn example(mut items: homa_rpc::Streaming<String>) -> Result<(), homa_rpc::Status> {
/// while let Some(item) = items.message().await? {
///     println!("{item}");
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream that is dropped is cancelled"]
pub struct Streaming<T> {
    source: Source<T>,
    /// Only on a client: servers watch over the whole handler.
    deadline: Option<Box<StreamDeadline>>,
    trailers: Option<Metadata>,
}

/// Where messages come from.
enum Source<T> {
    Body(Box<Reader<T>>),
    /// The lock makes it `Sync`; it is never waited for.
    Typed(Mutex<BoxStream<T>>),
    /// No more will come.
    Ended,
}

/// Reads the messages of a body.
struct Reader<T> {
    body: Body,
    messages: Deframer,
    decoder: Arc<dyn Decode<T>>,
    side: Side,
}

/// A stream whose type is hidden: what a handler can answer with in a method that streams.
///
/// ```
/// use homa_rpc::{BoxStream, Status};
///
/// # fn example(stream: impl futures_core::Stream<Item = Result<u32, Status>> + Send + 'static) {
/// let boxed: BoxStream<u32> = Box::pin(stream);
/// # }
/// ```
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

/// A stream of requests whose type is hidden: what the trait of a generated client takes.
pub type BoxRequestStream<T> = Pin<Box<dyn Stream<Item = T> + Send + 'static>>;

/// What the messages are of.
#[derive(Clone, Copy)]
enum Side {
    Request,
    /// With whether the status stands in the headers already: a success then, for which no trailers come.
    Response {
        succeeded: bool,
    },
}

/// The half of a codec that matters here.
trait Decode<T>: Send + Sync {
    fn decode(&self, bytes: Bytes) -> Result<T, Status>;
}

impl<C: Codec> Decode<C::Decode> for C {
    fn decode(&self, bytes: Bytes) -> Result<C::Decode, Status> {
        Codec::decode(self, bytes)
    }
}

/// When a stream has to be over, and how it ends if it is not.
pub(crate) struct StreamDeadline {
    at: Instant,
    timer: Pin<Box<Timer>>,
    expired: Status,
}

impl StreamDeadline {
    /// # Errors
    /// Without a runtime.
    pub(crate) fn new(at: Instant, expired: Status) -> Result<Self, Status> {
        let timer = Box::pin(deadline::timer(at)?);
        Ok(Self { at, timer, expired })
    }
}

impl<T> Streaming<T> {
    /// A stream of messages that come from no call: for tests that call a handler, or stand in for a server.
    ///
    /// ```
    /// # async fn example(items: impl futures_core::Stream<Item = Result<u32, homa_rpc::Status>> + Send + 'static) {
    /// let request = homa_rpc::Request::new(homa_rpc::Streaming::from_stream(items));
    /// # }
    /// ```
    pub fn from_stream<S>(messages: S) -> Self
    where
        S: Stream<Item = Result<T, Status>> + Send + 'static,
    {
        Self {
            source: Source::Typed(Mutex::new(Box::pin(messages))),
            deadline: None,
            trailers: None,
        }
    }

    /// The messages of a request.
    pub(crate) fn request<C: Codec<Decode = T>>(
        body: Body,
        codec: Arc<C>,
        limits: MessageLimits,
    ) -> Self {
        Self {
            source: Source::Body(Box::new(Reader::new(body, codec, limits, Side::Request))),
            deadline: None,
            trailers: None,
        }
    }

    /// The messages of a response, and the rest of that. It has to be one that does not
    /// [fail](super::failure_before_messages).
    pub(crate) fn response<C: Codec<Decode = T>>(
        response: http::Response<Body>,
        codec: Arc<C>,
        limits: MessageLimits,
        deadline: Option<StreamDeadline>,
    ) -> (http::response::Parts, Self) {
        let (parts, body) = response.into_parts();
        let succeeded = says_success(&parts.headers);
        let side = Side::Response { succeeded };
        let messages = Self {
            source: Source::Body(Box::new(Reader::new(body, codec, limits, side))),
            deadline: deadline.map(Box::new),
            trailers: None,
        };
        (parts, messages)
    }

    /// The next message; `None` once there are no more. After an error there are none.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// The status with which the stream ended, or one made here: DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED if a
    /// message is too long, INTERNAL if one cannot be read, UNKNOWN if a response ends without a status.
    pub async fn message(&mut self) -> Result<Option<T>, Status> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx))
            .await
            .transpose()
    }

    /// The metadata behind the messages. Messages that have not been read are read and dropped. `None` if there
    /// is no such thing: in requests, after an error, or if it was taken before.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub async fn trailers(&mut self) -> Result<Option<Metadata>, Status> {
        while self.message().await?.is_some() {}
        Ok(self.trailers.take())
    }

    fn poll_message(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Option<T>, Status>> {
        match &mut self.source {
            Source::Body(reader) => reader.poll_message(cx, &mut self.trailers),
            Source::Typed(messages) => {
                let messages = messages.get_mut().unwrap_or_else(PoisonError::into_inner);
                messages.as_mut().poll_next(cx).map(Option::transpose)
            }
            Source::Ended => Poll::Ready(Ok(None)),
        }
    }
}

impl<T> Reader<T> {
    fn new<C: Codec<Decode = T>>(
        body: Body,
        codec: Arc<C>,
        limits: MessageLimits,
        side: Side,
    ) -> Self {
        Self {
            body,
            messages: Deframer::new(limits.decoding_max(), DECODING_LIMIT),
            decoder: codec,
            side,
        }
    }

    /// The next message. At the end the metadata behind the last one is put into `metadata`.
    fn poll_message(
        &mut self,
        cx: &mut task::Context<'_>,
        metadata: &mut Option<Metadata>,
    ) -> Poll<Result<Option<T>, Status>> {
        loop {
            if let Some(message) = self.messages.next()? {
                return Poll::Ready(self.decoder.decode(message).map(Some));
            }
            let trailers = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => {
                        self.messages.push(data);
                        continue;
                    }
                    Err(frame) => frame.into_trailers().ok(),
                },
                None => None,
            };
            if trailers.is_some() {
                // Nothing follows. Whoever watches the body may want to see that it says so.
                let _end: Poll<_> = Pin::new(&mut self.body).poll_frame(cx);
            }
            *metadata = self.end(trailers)?;
            return Poll::Ready(Ok(None));
        }
    }

    /// The metadata behind the messages, if the body, which has ended with these trailers, may end so.
    fn end(&self, trailers: Option<HeaderMap>) -> Result<Option<Metadata>, Status> {
        let succeeded = match self.side {
            Side::Request => {
                self.messages.finish()?;
                return Ok(None);
            }
            Side::Response { succeeded } => succeeded,
        };
        let status = trailers.as_ref().and_then(read_status).transpose()?;
        // Of a body that was cut off, that is what there is to say.
        self.messages.finish()?;
        if status.is_none() && !succeeded {
            return Err(Status::unknown("the response ended without a status"));
        }
        Ok(trailers.map(Metadata::from_headers))
    }
}

impl<T> Stream for Streaming<T> {
    type Item = Result<T, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<T, Status>>> {
        let result = self.poll_message(cx);
        let result = match &mut self.deadline {
            None => ready!(result),
            // A passed deadline wins, whatever else there is, except over a more exact word of the same.
            Some(deadline) => match result {
                Poll::Ready(Err(status)) if status.code() == Code::DeadlineExceeded => Err(status),
                Poll::Ready(result) if !deadline::has_passed(Some(deadline.at)) => result,
                Poll::Ready(_) => Err(deadline.expired.clone()),
                Poll::Pending => {
                    ready!(deadline.timer.as_mut().poll(cx));
                    Err(deadline.expired.clone())
                }
            },
        };
        if !matches!(result, Ok(Some(_))) {
            // Dropping the body cancels what has not ended.
            self.source = Source::Ended;
            self.deadline = None;
        }
        Poll::Ready(result.transpose())
    }
}

impl<T> fmt::Debug for Streaming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.source {
            Source::Body(reader) => match reader.side {
                Side::Request => "request",
                Side::Response { .. } => "response",
            },
            Source::Typed(_) => "stream",
            Source::Ended => "ended",
        };
        f.debug_struct("Streaming")
            .field("source", &source)
            .finish_non_exhaustive()
    }
}
