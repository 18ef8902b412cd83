//! Reading a body of any type to its end: one message and what follows.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{Body, End, PREFIX_LEN, Whole, read_status};
use crate::cast::try_cast;
use crate::error::BoxError;
use crate::metadata::Metadata;
use crate::method::CallInfo;
use crate::status::Status;

/// The contents of `body`: taken out if it is ours, else read to the end.
///
/// `message_max` bounds what is read of a foreign body, in bytes without the prefix.
pub(crate) async fn collect<B>(body: B, message_max: usize) -> Result<(Whole, CallInfo), Status>
where
    B: http_body::Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    match try_cast::<B, Body>(body) {
        Ok(body) => {
            let info = *body.info();
            match body.into_whole() {
                Ok(whole) => Ok((whole, info)),
                Err(body) => Ok((read(body, message_max).await?, info)),
            }
        }
        Err(body) => Ok((read(body, message_max).await?, CallInfo::default())),
    }
}

async fn read<B>(body: B, message_max: usize) -> Result<Whole, Status>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let mut data = Joined::default();
    let mut trailers = None;
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame
            .map_err(|error| Status::from_error(error.into()))?
            .into_data()
        {
            Ok(more) => {
                data.push(more);
                if data.len() > message_max.saturating_add(PREFIX_LEN) {
                    return Err(Status::resource_exhausted(format!(
                        "a message of at least {} bytes is over the limit of {message_max} bytes",
                        data.len() - PREFIX_LEN
                    )));
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(Whole {
        message: strip_prefix(data.finish())?,
        end: end(trailers),
    })
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
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
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
