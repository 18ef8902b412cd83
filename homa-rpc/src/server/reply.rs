//! The answer owed to one request frame.

use std::sync::Arc;

use bytes::Bytes;
use homa_transport::{Responder, RpcError};
use http::HeaderMap;

use super::admission::CallLimiter;
use crate::body::{End, UnaryReply, Whole};
use crate::frame::{self, Content, FrameError, Kind, Peek, ReplyHead, ReplyPart};
use crate::message::status::Status;
use crate::stream::server::{Ending, ServerReply};

/// What is sent back.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) initial: HeaderMap,
    pub(super) trailing: HeaderMap,
    pub(super) message: Option<Bytes>,
    /// `None` is success.
    pub(super) status: Option<Status>,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self {
            trailing: status.metadata().as_headers().clone(),
            status: Some(status),
            ..Self::default()
        }
    }
}

impl From<UnaryReply> for Answer {
    fn from(reply: UnaryReply) -> Self {
        let Whole { message, end } = reply.whole;
        match end {
            End::Failed(status) => Self {
                initial: reply.headers,
                message,
                ..status.into()
            },
            End::Ok(trailing) => Self {
                initial: reply.headers,
                trailing: trailing.map_or_else(HeaderMap::new, |trailing| trailing.into_headers()),
                message,
                status: None,
            },
            End::Request => Status::unknown("the service's response ended without a status").into(),
        }
    }
}

impl Answer {
    /// What is behind its message.
    pub(super) fn ending(&self) -> Ending {
        Ending {
            trailing: self.trailing.clone(),
            status: self.status.clone(),
        }
    }
}

/// The right and the duty to answer one frame: dropped without an answer, it answers UNAVAILABLE.
#[derive(Debug)]
pub(super) struct PendingReply {
    responder: Option<Responder>,
    kind: Kind,
    call_id: u64,
    /// The request had a checksum.
    checksum: bool,
    /// Homa tells this side when the client gives the RPC up.
    cancel_told: bool,
    limiter: Arc<CallLimiter>,
}

impl PendingReply {
    /// The duty to answer by `responder` a frame that says this of itself. `cancel_told` as in
    /// [`ReplyHead`].
    pub(super) fn new(
        responder: Responder,
        peek: &Peek<'_>,
        limiter: &Arc<CallLimiter>,
        cancel_told: bool,
    ) -> Self {
        Self {
            kind: peek.kind,
            call_id: peek.call_id,
            checksum: peek.has_checksum,
            cancel_told,
            limiter: Arc::clone(limiter),
            responder: Some(responder),
        }
    }

    pub(super) const fn call_id(&self) -> u64 {
        self.call_id
    }

    pub(super) const fn responder(&self) -> Option<&Responder> {
        self.responder.as_ref()
    }

    /// The frame cannot be read. Of one that is damaged the call id cannot be believed either.
    pub(super) const fn doubt(&mut self, error: &FrameError) {
        if matches!(error, FrameError::Damaged { .. }) {
            self.call_id = 0;
        }
    }

    /// Answers. What fits into no frame becomes a status that says so.
    pub(super) fn send(mut self, answer: Answer) {
        self.answer(answer);
    }

    /// Drops the duty: nobody waits for the answer.
    pub(super) fn abandon(mut self) {
        self.responder = None;
    }

    /// Sends a frame of a call of several.
    ///
    /// # Errors
    /// If it cannot be made; then the client is told so, as the end of its call.
    pub(super) fn send_part(reply: ServerReply<Self>) -> Result<(), Status> {
        let ServerReply {
            mut to,
            part,
            initial,
            content,
            ending,
        } = reply;
        let Some(responder) = to.responder.take() else {
            return Ok(());
        };
        let max = responder.message_bytes_max();
        let (following, is_later) = (content.following(), content.is_later_piece());
        let head = to.head(part, &initial, &ending.trailing, ending.status.as_ref());
        let (frame, failure) = match frame::encode_reply(head, content, max) {
            Ok(frame) => (frame, None),
            Err(status) => {
                let (part, none) = (ReplyPart { end: true, ..part }, HeaderMap::new());
                let head = to.head(part, &none, &none, Some(&status));
                let frame = frame::encode_reply(head, Content::None, max)?;
                (frame, Some(status))
            }
        };
        let frame = frame.with_following(following);
        let frame = if is_later { frame.scheduled() } else { frame };
        if let Err((error, _)) = responder.respond(frame) {
            tracing::debug!(%error, "a reply could not be sent");
        }
        failure.map_or(Ok(()), Err)
    }

    /// Says that the call of this frame is not known here.
    pub(super) fn send_unknown_call(mut self) {
        let Some(responder) = self.responder.take() else {
            return;
        };
        let none = HeaderMap::new();
        let status = Status::unavailable(
            "the server does not know this call: it has ended, or the server was restarted",
        );
        let head = ReplyHead {
            unknown_call: true,
            ..self.head(ReplyPart::WHOLE, &none, &none, Some(&status))
        };
        let max = responder.message_bytes_max();
        if let Ok(frame) = frame::encode_reply(head, Content::None, max)
            && let Err((error, _)) = responder.respond(frame)
        {
            tracing::debug!(%error, "a reply could not be sent");
        }
    }

    /// Whether the reply that this answer becomes is too long for one frame because of its message.
    pub(super) fn is_too_long(&self, answer: &Answer) -> bool {
        let max = self
            .responder()
            .map_or(usize::MAX, Responder::message_bytes_max);
        // Hardly any message is long, and counting costs something.
        let Some(message) = answer.message.as_ref().filter(|m| m.len() > max / 2) else {
            return false;
        };
        let (initial, trailing) = (&answer.initial, &answer.trailing);
        let status = answer.status.as_ref();
        let head = self.head(ReplyPart::WHOLE, initial, trailing, status);
        frame::reply_overhead(&head).is_ok_and(|overhead| overhead + message.len() > max)
    }

    fn answer(&mut self, answer: Answer) {
        let Some(responder) = self.responder.take() else {
            return;
        };
        let max = responder.message_bytes_max();
        let frame = self.encode(answer, max).or_else(|status| {
            // Its own metadata, message and details are gone, so this one is short.
            self.encode(status.of_handler().into(), max)
        });
        let frame = match frame {
            Ok(frame) => frame,
            Err(status) => {
                tracing::error!(%status, "a reply could not be encoded");
                return;
            }
        };
        match responder.respond(frame) {
            Ok(()) => {}
            Err((RpcError::Stale, _)) => tracing::debug!("the client no longer waits for a reply"),
            Err((error, responder)) => self.explain(error, responder, max),
        }
    }

    /// Says in a short reply why the real one could not be sent.
    fn explain(&self, error: RpcError, responder: Responder, max: usize) {
        tracing::warn!(%error, "a reply could not be sent");
        let answer = Status::from(error).of_handler().into();
        if let Ok(frame) = self.encode(answer, max)
            && let Err((error, _)) = responder.respond(frame)
        {
            tracing::warn!(%error, "nor could a status be sent in its place");
        }
    }

    fn encode(&self, answer: Answer, max: usize) -> Result<homa_transport::Message, Status> {
        let (initial, trailing) = (&answer.initial, &answer.trailing);
        let status = answer.status.as_ref();
        let head = self.head(ReplyPart::WHOLE, initial, trailing, status);
        let content = answer
            .message
            .map_or(Content::None, |message| Content::Message(message.into()));
        frame::encode_reply(head, content, max)
    }

    fn head<'a>(
        &self,
        part: ReplyPart,
        initial: &'a HeaderMap,
        trailing: &'a HeaderMap,
        status: Option<&'a Status>,
    ) -> ReplyHead<'a> {
        ReplyHead {
            kind: self.kind,
            call_id: self.call_id,
            checksum: self.checksum,
            cancel_told: self.cancel_told,
            load: u32::try_from(self.limiter.in_progress()).unwrap_or(u32::MAX),
            part,
            unknown_call: false,
            initial,
            trailing,
            status,
        }
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        if self.responder.is_some() {
            self.answer(Status::unavailable("the server dropped the call unanswered").into());
        }
    }
}
