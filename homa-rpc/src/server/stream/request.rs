//! The request of a call of several frames, as a body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::Call;
use crate::message::status::Status;
use crate::util::register;

/// Yields the items of the request behind their heads. Dropped before its end, the rest is not asked for.
pub(in crate::server) struct RequestBody {
    call: Arc<Call>,
}

impl RequestBody {
    pub(in crate::server) const fn new(call: Arc<Call>) -> Self {
        Self { call }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = self.call.lock();
        if let Some(chunk) = state.machine.read() {
            // What was read makes room for more, which the client may wait for.
            let tells = state.machine.has_credit_to_tell();
            drop(state);
            self.call.count_bytes();
            if tells {
                self.call.flush();
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if state.machine.is_read() {
            return Poll::Ready(None);
        }
        if let Some(status) = &state.failed {
            return Poll::Ready(Some(Err(status.clone())));
        }
        register(&mut state.reader, cx);
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.call.lock().machine.is_read()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.call.lock().machine.discard();
    }
}
