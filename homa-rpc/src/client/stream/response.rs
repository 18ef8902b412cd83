//! The response of a call of several frames, as a body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::Call;
use crate::body;
use crate::message::status::Status;
use crate::util::register;

/// Yields the items of the response behind their heads, then the trailers. Dropped before its end, it gives the
/// call up.
pub(super) struct ResponseBody {
    call: Arc<Call>,
    is_over: bool,
}

impl ResponseBody {
    pub(super) const fn new(call: Arc<Call>) -> Self {
        Self {
            call,
            is_over: false,
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut state = self.call.lock();
        if let Some(chunk) = state.machine.read() {
            // What was read makes room for more.
            let driver = match state.machine.wants_pull() {
                true => state.driver.take(),
                false => None,
            };
            drop(state);
            if let Some(driver) = driver {
                driver.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let end = if let Some(status) = &state.failed {
            Err(status.clone())
        } else if let Some(outcome) = state.machine.outcome() {
            Ok(Frame::trailers(body::trailers(
                outcome.trailing.clone(),
                outcome.status.as_ref(),
            )))
        } else {
            register(&mut state.reader, cx);
            return Poll::Pending;
        };
        drop(state);
        self.is_over = true;
        Poll::Ready(Some(end))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if !self.is_over {
            self.call.give_up();
        }
    }
}
