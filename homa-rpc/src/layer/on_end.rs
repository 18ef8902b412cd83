//! Watching for the final status of a response.

use std::pin::Pin;
use std::task::{self, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::body::{Body, final_status, read_status};
use crate::message::status::Status;

/// Tells `end` how the call of `response` ends: at once if that is known, else when the body has been
/// read. A body dropped before drops `end`.
pub(super) fn on_end<E>(response: http::Response<Body>, end: E) -> http::Response<Body>
where
    E: FnOnce(Result<(), &Status>) + Send + 'static,
{
    match final_status(&response) {
        Some(outcome) => {
            end(outcome.as_ref().copied());
            response
        }
        None => response.map(|body| {
            let info = *body.info();
            let end = Some(end);
            let mut body = Body::new(Observed { body, end });
            *body.info_mut() = info;
            body
        }),
    }
}

pin_project_lite::pin_project! {
    /// A body that is read elsewhere, with what to run at its end.
    struct Observed<E> {
        #[pin]
        body: Body,
        end: Option<E>,
    }
}

impl<E: FnOnce(Result<(), &Status>)> http_body::Body for Observed<E> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        let outcome = match &frame {
            Some(Ok(frame)) if frame.is_data() => None,
            Some(Ok(frame)) => frame
                .trailers_ref()
                .map(|trailers| read_status(trailers).unwrap_or_else(|| Err(without_status()))),
            Some(Err(status)) => Some(Err(status.clone())),
            None => Some(Err(without_status())),
        };
        if let Some(outcome) = outcome
            && let Some(end) = this.end.take()
        {
            end(outcome.as_ref().copied());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn without_status() -> Status {
    Status::unknown("the response ended without a status")
}
