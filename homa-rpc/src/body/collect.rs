//! Reading a body of any type to its end: one message and what follows.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::{Body, End, PREFIX_LEN, Whole, read_status};
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

/// As [`take_or_read`], to be waited for in either case.
pub(crate) async fn collect<B>(
    body: B,
    message_max: usize,
    limit: &'static str,
) -> Result<Contents, Status>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    match take_or_read(body, message_max, limit) {
        Ok(contents) => Ok(contents),
        Err(reading) => reading.await,
    }
}

/// How long a body may take to end once its message is there. The trailers of a unary call come with the
/// message or right behind it, so this allows for one packet that is lost and sent again. A stream that is
/// merely idle does not end in this time.
const END_MAX: Duration = Duration::from_millis(500);

async fn read(body: Body, message_max: usize, limit: &'static str) -> Result<Contents, Status> {
    let info = *body.info();
    let mut body = pin!(body);
    let mut data = Joined::default();
    let mut trailers = None;
    let mut must_end = false;
    let mut end_due = None;
    while let Some(frame) = next_frame(body.as_mut(), must_end, &mut end_due).await {
        match frame?.into_data() {
            Ok(more) => {
                data.push(more);
                let Some(announced) = data.announced() else {
                    continue;
                };
                if announced > message_max {
                    return Err(Status::resource_exhausted(format!(
                        "a message of {announced} bytes is over the limit of {message_max} bytes \
                         ({limit})"
                    )));
                }
                if data.len() > PREFIX_LEN + announced {
                    // An error. How much more there is does not matter.
                    break;
                }
                must_end = data.len() == PREFIX_LEN + announced;
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
    let whole = Whole {
        message: strip_prefix(data.finish())?,
        end: end(trailers),
    };
    Ok((whole, info))
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
                "a gRPC body that goes on {END_MAX:?} after its first message: streams are not \
                 supported"
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

/// The one message behind its prefix, or `None` if there is nothing at all.
fn strip_prefix(mut data: Bytes) -> Result<Option<Bytes>, Status> {
    if data.is_empty() {
        return Ok(None);
    }
    if data.len() < PREFIX_LEN {
        return Err(Status::internal(format!(
            "a gRPC body of {} bytes is shorter than the prefix of a message",
            data.len()
        )));
    }
    let compressed = data.get_u8();
    if compressed != 0 {
        return Err(Status::unimplemented(format!(
            "a message with the compression flag {compressed}: compression is not supported"
        )));
    }
    let announced = u64::from(data.get_u32());
    let have = data.len() as u64;
    if announced < have {
        return Err(Status::unimplemented(format!(
            "a gRPC body with {} bytes behind its first message: streams are not supported",
            have - announced
        )));
    }
    if announced > have {
        return Err(Status::internal(format!(
            "a gRPC body whose message has {have} bytes, its prefix says {announced}"
        )));
    }
    Ok(Some(data))
}

/// Data frames put together; a single one is not copied.
#[derive(Default)]
struct Joined {
    first: Bytes,
    rest: BytesMut,
}

impl Joined {
    fn push(&mut self, more: Bytes) {
        if self.rest.is_empty() && self.first.is_empty() {
            self.first = more;
            return;
        }
        if self.rest.is_empty() {
            self.rest.extend_from_slice(&self.first);
            self.first.clear();
        }
        self.rest.extend_from_slice(&more);
    }

    /// Length of the message by its prefix, once that is there.
    fn announced(&self) -> Option<usize> {
        let head = if self.rest.is_empty() {
            &self.first
        } else {
            self.rest.as_ref()
        };
        let len = head.get(1..PREFIX_LEN)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(len)).ok()
    }

    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    fn finish(self) -> Bytes {
        if self.rest.is_empty() {
            self.first
        } else {
            self.rest.freeze()
        }
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
