//! Watching for the final status of a response.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::body::{Body, final_status, read_status, says_success};
use crate::call::deadline::{self, Timer};
use crate::message::status::Status;

/// Tells `end` how the call of `response` ends: at once if that is known, else when the body has been
/// read. A body dropped before drops `end`. One that is not over at `deadline` ends with the status that
/// `expired` makes.
///
/// # Errors
/// Without a runtime that could watch over the deadline.
pub(super) fn on_end<E>(
    response: http::Response<Body>,
    deadline: Option<Instant>,
    expired: fn() -> Status,
    end: E,
) -> Result<http::Response<Body>, Status>
where
    E: FnOnce(Result<(), &Status>) + Send + Unpin + 'static,
{
    if let Some(outcome) = final_status(&response) {
        end(outcome.as_ref().copied());
        return Ok(response);
    }
    let succeeded = says_success(response.headers());
    let limit = match deadline {
        Some(at) => Some(Limit {
            at,
            timer: Box::pin(deadline::timer(at)?),
            expired,
        }),
        None => None,
    };
    Ok(response.map(|body| {
        let info = *body.info();
        let mut body = Body::new(Observed {
            body,
            succeeded,
            limit,
            end: Some(end),
        });
        *body.info_mut() = info;
        body
    }))
}

/// A body that is read elsewhere, with what to run at its end.
struct Observed<E> {
    body: Body,
    /// The headers tell of success, so that no trailers need to come.
    succeeded: bool,
    limit: Option<Limit>,
    end: Option<E>,
}

/// When a body has to be over.
struct Limit {
    at: Instant,
    timer: Pin<Box<Timer>>,
    expired: fn() -> Status,
}

impl<E> Observed<E> {
    /// The next frame, or an error if it is too late for one.
    fn frame(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let Some(limit) = &mut self.limit else {
            return frame;
        };
        let is_late = match &frame {
            Poll::Ready(_) => deadline::has_passed(Some(limit.at)),
            Poll::Pending => limit.timer.as_mut().poll(cx).is_ready(),
        };
        if !is_late {
            return frame;
        }
        let status = (limit.expired)();
        self.limit = None;
        // Dropped, so that whoever makes it stops.
        self.body = Body::empty();
        Poll::Ready(Some(Err(status)))
    }
}

impl<E: FnOnce(Result<(), &Status>) + Unpin> http_body::Body for Observed<E> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = task::ready!(self.frame(cx));
        let outcome = match &frame {
            Some(Ok(frame)) if frame.is_data() => None,
            Some(Ok(frame)) => frame
                .trailers_ref()
                .map(|trailers| read_status(trailers).unwrap_or_else(|| Err(without_status()))),
            Some(Err(status)) => Some(Err(status.clone())),
            None if self.succeeded => Some(Ok(())),
            None => Some(Err(without_status())),
        };
        if let Some(outcome) = outcome
            && let Some(end) = self.end.take()
        {
            // What has ended cannot be late.
            self.limit = None;
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
