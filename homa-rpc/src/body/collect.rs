//! Reading a body of any type to its end: one message and what follows.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::deframer::Deframer;
use super::{Body, End, Whole, read_status};
use crate::call::deadline::{self, Timer};
use crate::message::BoxError;
use crate::message::metadata::Metadata;
use crate::message::method::CallInfo;
use crate::message::status::Status;

/// What a body holds, and what it knows of its call.
type Contents = (Whole, CallInfo);

/// A body that has to be read. Boxed, since every call has room for it and hardly any needs it.
pub(crate) type Reading = Pin<Box<dyn Future<Output = Result<Contents, Status>> + Send>>;

/// The contents of `body`: taken out if it is ours, else to be read to the end.
///
/// `message_max` bounds what is read of a foreign body, in bytes without the prefix; `limit` names
/// it in the error.
pub(crate) fn take_or_read<B>(
    body: B,
    message_max: usize,
    limit: &'static str,
) -> Result<Contents, Reading>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let body = Body::new(body);
    let info = *body.info();
    match body.into_whole() {
        Ok(whole) => Ok((whole, info)),
        Err(body) => Err(Box::pin(read(body, message_max, limit))),
    }
}

/// How long a body may take to end once its message is there. The trailers of a unary call come with the
/// message or right behind it, so this allows for one packet that is lost and sent again. A stream that is
/// merely idle does not end in this time.
const END_MAX: Duration = Duration::from_millis(500);

async fn read(body: Body, message_max: usize, limit: &'static str) -> Result<Contents, Status> {
    let info = *body.info();
    let mut body = pin!(body);
    let mut messages = Deframer::new(message_max, limit);
    let mut message = None;
    let mut trailers = None;
    let mut end_due = None;
    while let Some(frame) = next_frame(body.as_mut(), message.is_some(), &mut end_due).await {
        match frame?.into_data() {
            Ok(data) => {
                messages.push(data);
                if message.is_none() {
                    message = messages.next()?;
                }
                if message.is_some() && !messages.is_empty() {
                    return Err(second_message());
                }
            }
            Err(frame) => {
                trailers = frame.into_trailers().ok();
                if trailers.is_some() {
                    // Nothing follows. Whoever watches the body may want to see that it says so.
                    let _end = poll_fn(|cx| Poll::Ready(body.as_mut().poll_frame(cx))).await;
                    break;
                }
            }
        }
    }
    let end = end(trailers);
    // A failure says more than that what it broke off is not whole.
    if !matches!(end, End::Failed(_)) {
        messages.finish()?;
    }
    Ok((Whole { message, end }, info))
}

fn second_message() -> Status {
    Status::unimplemented(
        "a gRPC body goes on behind its first message: one message was expected, a stream came",
    )
}

/// The next frame, unless the body must end and does not; `end_due` is when it is too late for that.
async fn next_frame(
    mut body: Pin<&mut Body>,
    must_end: bool,
    end_due: &mut Option<Pin<Box<Timer>>>,
) -> Option<Result<Frame<Bytes>, Status>> {
    poll_fn(|cx| {
        if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if !must_end {
            return Poll::Pending;
        }
        let timer = match end_due {
            Some(timer) => timer,
            None => match deadline::timer(Instant::now() + END_MAX) {
                Ok(timer) => end_due.insert(Box::pin(timer)),
                Err(status) => return Poll::Ready(Some(Err(status))),
            },
        };
        timer.as_mut().poll(cx).map(|()| {
            Some(Err(Status::unimplemented(format!(
                "a gRPC body goes on {END_MAX:?} after its first message: one message was expected, \
                 a stream came"
            ))))
        })
    })
    .await
}

fn end(trailers: Option<HeaderMap>) -> End {
    let Some(trailers) = trailers else {
        return End::Request;
    };
    match read_status(&trailers) {
        Some(Err(status)) => End::Failed(status),
        Some(Ok(())) => {
            let metadata = Metadata::from_headers(trailers);
            End::Ok((!metadata.is_empty()).then(|| Box::new(metadata)))
        }
        None => End::Request,
    }
}

pin_project_lite::pin_project! {
    /// A foreign body whose error has become a [`Status`].
    pub(super) struct WithStatus<B> {
        #[pin]
        body: B,
    }
}

impl<B> WithStatus<B> {
    pub(super) const fn new(body: B) -> Self {
        Self { body }
    }
}

impl<B> http_body::Body for WithStatus<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = self.project().body.poll_frame(cx);
        frame.map_err(|error| Status::from_error(error.into()))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
