//! The responses of one call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::answer::{Conversation, Knowledge};
use crate::Streaming;
use crate::message::status::Status;
use crate::reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// One response to each request, in order. It ends when the requests do, and a request is read when the
/// response before it was taken.
#[derive(Debug)]
pub struct ServerReflectionInfoStream {
    requests: Streaming<ServerReflectionRequest>,
    conversation: Conversation,
}

impl ServerReflectionInfoStream {
    pub(super) fn new(requests: Streaming<ServerReflectionRequest>, known: Arc<Knowledge>) -> Self {
        Self {
            requests,
            conversation: Conversation::new(known),
        }
    }
}

impl Stream for ServerReflectionInfoStream {
    type Item = Result<ServerReflectionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let request = ready!(Pin::new(&mut self.requests).poll_next(cx));
        Poll::Ready(request.map(|request| Ok(self.conversation.answer(request?))))
    }
}
