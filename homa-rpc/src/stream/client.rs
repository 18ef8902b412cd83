//! The client's end of a call of several frames.
//!
//! ```text
//! CALL ─► (one PART at a time until any frame was answered) ─► PARTs within credit
//!      └► PULLs: one at least until END has come, more of them while replies come full
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use homa_transport::Message;
use http::HeaderMap;

use super::inbox::{End, Inbox};
use super::pulls::Pulls;
use super::serial::{ahead, left};
use super::{FIRST_CREDIT, Outbox, StreamError};
use crate::frame::{Content, Kind, Reply};
use crate::message::status::Status;

/// PARTs on their way, at most.
const PARTS_MAX: usize = 8;
/// A PART that overtook its CALL is sent again after this time, and then after twice as long each time.
const AGAIN_FIRST: Duration = Duration::from_micros(500);
const AGAIN_MAX: Duration = Duration::from_millis(100);

/// A frame to send.
#[derive(Clone, Debug)]
pub(crate) struct ClientFrame {
    pub(crate) kind: Kind,
    pub(crate) sequence: u32,
    pub(crate) credit: u32,
    pub(crate) content: Content<Message>,
    pub(crate) end: bool,
    /// How often it was sent before.
    tries: u32,
    /// It may have overtaken the CALL.
    is_early: bool,
}

impl ClientFrame {
    /// Whether the server may keep it unanswered.
    const fn is_pull(&self) -> bool {
        !matches!(self.kind, Kind::Part) || self.credit > 0
    }
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) trailing: HeaderMap,
    /// `None` is success.
    pub(crate) status: Option<Status>,
}

/// The client's end of one call. All times are since the call began.
#[derive(Debug)]
pub(crate) struct ClientCall {
    outbox: Outbox,
    /// Up to where the request may be sent, and up to where it was; bytes modulo 2^32.
    send_limit: u32,
    sent: u32,
    inbox: Inbox,
    pulls: Pulls,
    opened: bool,
    /// The server has answered a frame, so it has the CALL.
    confirmed: bool,
    parts_out: usize,
    /// PARTs that overtook the CALL, and when each is to go again.
    again: VecDeque<(Duration, ClientFrame)>,
    headers: Option<HeaderMap>,
    /// They were there.
    had_headers: bool,
    outcome: Option<Outcome>,
    /// A pull is due, and the application has not had its turn yet: it may have an item to go with it.
    defers: bool,
    /// The server no longer knows the call. How it ended may be under way still.
    unknown: Option<Status>,
}

impl ClientCall {
    /// A call whose frames have room for `content_max` bytes of content.
    pub(crate) fn new(content_max: usize) -> Self {
        Self::new_at(content_max, 0, 0)
    }

    /// The same with counters that start elsewhere than at 0, for tests.
    pub(crate) fn new_at(content_max: usize, sequence: u32, bytes: u32) -> Self {
        Self {
            outbox: Outbox::new(content_max, sequence),
            send_limit: bytes.wrapping_add(FIRST_CREDIT),
            sent: bytes,
            inbox: Inbox::new(sequence, 0),
            pulls: Pulls::new(),
            opened: false,
            confirmed: false,
            parts_out: 0,
            again: VecDeque::new(),
            headers: None,
            had_headers: false,
            outcome: None,
            defers: false,
            unknown: None,
        }
    }

    /// The rest of a call that was whole in its CALL frame, of whose response the first reply has come.
    pub(crate) fn continued(content_max: usize, first: Reply) -> Result<Self, Status> {
        let mut call = Self::new(content_max);
        call.opened = true;
        call.confirmed = true;
        call.outbox.finish();
        let _sent = call.outbox.take_end();
        call.receive(first, u32::MAX)?;
        Ok(call)
    }

    /// Bytes of the request, gRPC's: items with their heads, cut anywhere.
    pub(crate) fn write(&mut self, chunk: Bytes) {
        self.outbox.push(chunk);
    }

    /// The request is over once what was written is sent.
    pub(crate) fn finish(&mut self) {
        self.outbox.finish();
    }

    /// Bytes of the request that wait to be sent.
    pub(crate) const fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// The next frame to send.
    ///
    /// # Errors
    /// If the request cannot be sent.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Duration,
    ) -> Result<Option<ClientFrame>, StreamError> {
        if self.inbox.is_ended() || self.unknown.is_some() {
            return Ok(None);
        }
        if !self.opened {
            return self.call().map(Some);
        }
        if self.again.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, mut frame)) = self.again.pop_front()
        {
            frame.is_early = !self.confirmed;
            self.on_transmit(&frame);
            return Ok(Some(frame));
        }
        if let Some(frame) = self.part()? {
            return Ok(Some(frame));
        }
        Ok(self.pull())
    }

    fn call(&mut self) -> Result<ClientFrame, StreamError> {
        self.opened = true;
        let credit = self.pulls.next(0).unwrap_or_default();
        let taken = self.take()?;
        let frame = match taken {
            Some(taken) => ClientFrame {
                kind: Kind::Call,
                sequence: taken.sequence,
                credit,
                content: taken.content,
                end: taken.end,
                tries: 0,
                is_early: false,
            },
            None => ClientFrame {
                kind: Kind::Call,
                sequence: self.outbox.number(),
                credit,
                content: Content::None,
                end: false,
                tries: 0,
                is_early: false,
            },
        };
        self.on_transmit(&frame);
        Ok(frame)
    }

    fn take(&mut self) -> Result<Option<super::outbox::Taken>, StreamError> {
        let credit = left(self.send_limit, self.sent) as usize;
        let taken = self.outbox.take(credit, true)?;
        let taken = taken.or_else(|| self.outbox.take_end());
        if let Some(taken) = &taken {
            let cost = u32::try_from(taken.content.cost_to_send()).unwrap_or(u32::MAX);
            self.sent = self.sent.wrapping_add(cost);
        }
        Ok(taken)
    }

    fn part(&mut self) -> Result<Option<ClientFrame>, StreamError> {
        let parts_max = if self.confirmed { PARTS_MAX } else { 1 };
        if self.parts_out + self.again.len() >= parts_max {
            return Ok(None);
        }
        let Some(taken) = self.take()? else {
            return Ok(None);
        };
        let credit = match self.pulls.is_none_parked() {
            true => self.pulls.next(self.inbox.buffered()).unwrap_or_default(),
            false => 0,
        };
        let frame = ClientFrame {
            kind: Kind::Part,
            sequence: taken.sequence,
            credit,
            content: taken.content,
            end: taken.end,
            tries: 0,
            is_early: !self.confirmed,
        };
        self.on_transmit(&frame);
        Ok(Some(frame))
    }

    fn pull(&mut self) -> Option<ClientFrame> {
        if self.defers || !self.confirmed {
            return None;
        }
        let frame = ClientFrame {
            kind: Kind::Pull,
            sequence: self.outbox.next_sequence(),
            credit: self.pulls.next(self.inbox.buffered())?,
            content: Content::None,
            end: false,
            tries: 0,
            is_early: false,
        };
        self.on_transmit(&frame);
        Some(frame)
    }

    fn on_transmit(&mut self, frame: &ClientFrame) {
        self.parts_out += usize::from(frame.kind == Kind::Part);
        if frame.is_pull() {
            self.defers = false;
            self.pulls.on_sent(frame.credit);
        }
    }

    /// The reply to `frame` has come.
    ///
    /// # Errors
    /// If it ends the call otherwise than by its END.
    pub(crate) fn handle(
        &mut self,
        now: Duration,
        frame: ClientFrame,
        reply: Reply,
    ) -> Result<(), Status> {
        self.parts_out -= usize::from(frame.kind == Kind::Part);
        if frame.is_pull() {
            self.pulls.on_reply(frame.credit, reply.content.cost());
        }
        if self.inbox.is_ended() {
            return Ok(());
        }
        if reply.unknown_call {
            self.unknown_call(now, frame, reply);
        } else {
            self.confirmed = true;
            let allowed = if frame.is_pull() { frame.credit } else { 0 };
            self.receive(reply, allowed)?;
        }
        self.defers = self.pulls.is_none_parked() && !self.outbox.is_finished();
        let none_out = self.pulls.is_none_parked() && self.parts_out == 0;
        match self.unknown.take_if(|_| none_out && !self.inbox.is_ended()) {
            Some(status) => Err(status),
            None => Ok(()),
        }
    }

    /// A PART can overtake its CALL. It carries its number, so it can go again.
    fn unknown_call(&mut self, now: Duration, mut frame: ClientFrame, reply: Reply) {
        if !frame.is_early {
            let unknown = || Status::unavailable("the server does not know the call any more");
            self.unknown = Some(reply.status.unwrap_or_else(unknown));
            return;
        }
        let wait = AGAIN_FIRST.saturating_mul(1 << frame.tries.min(16));
        frame.tries += 1;
        self.again.push_back((now + wait.min(AGAIN_MAX), frame));
    }

    fn receive(&mut self, reply: Reply, allowed: u32) -> Result<(), Status> {
        let part = reply.part;
        if !part.end && ahead(part.credit, self.send_limit) > 0 {
            self.send_limit = part.credit;
        }
        let carries = part.headers || part.end || reply.content != Content::None;
        if !carries {
            return Ok(());
        }
        if part.end && self.inbox.has_had(part.sequence) {
            // It is no part of the response: the server could not read the frame, or dropped it.
            let outside =
                || Status::internal("the server ended the call with a frame that came before");
            return Err(reply.status.unwrap_or_else(outside));
        }
        let cost = reply.content.cost();
        if cost > allowed as usize {
            return Err(StreamError::OverCredit {
                cost: cost as u64,
                credit: allowed.into(),
            }
            .into());
        }
        let end = match reply.status {
            Some(_) if part.end => End::Failed,
            _ => End::whole(part.end),
        };
        let is_new = self.inbox.insert(part.sequence, reply.content, end)?;
        if !is_new {
            return Ok(());
        }
        if !self.had_headers && (part.headers || part.sequence == 0) {
            self.had_headers = true;
            self.headers = Some(reply.initial);
        }
        if part.end {
            self.outcome = Some(Outcome {
                trailing: reply.trailing,
                status: reply.status,
            });
        }
        if let Some(missing) = self.inbox.missing() {
            self.pulls.expect(missing);
        }
        Ok(())
    }

    /// The application has had its turn: a pull that is due goes by itself.
    pub(crate) const fn stop_deferring(&mut self) {
        self.defers = false;
    }

    /// A pull waits for the application's turn.
    pub(crate) const fn defers(&self) -> bool {
        self.defers
    }

    /// The initial metadata, once they have come.
    pub(crate) const fn headers(&mut self) -> Option<HeaderMap> {
        self.headers.take()
    }

    /// The next bytes of the response, gRPC's: items with their heads.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        self.inbox.pop()
    }

    pub(crate) const fn has_headers(&self) -> bool {
        self.headers.is_some()
    }

    /// The server can be asked for more.
    pub(crate) fn wants_pull(&self) -> bool {
        !self.inbox.is_ended() && self.pulls.next(self.inbox.buffered()).is_some()
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.inbox.has_ready()
    }

    /// How the call ended, once all of the response has come.
    pub(crate) const fn outcome(&self) -> Option<&Outcome> {
        match self.inbox.is_ended() {
            true => self.outcome.as_ref(),
            false => None,
        }
    }

    /// All of the response has come.
    pub(crate) const fn is_over(&self) -> bool {
        self.inbox.is_ended()
    }

    /// When to look at [`poll_transmit`](Self::poll_transmit) again if nothing happens.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let next = self.again.front().filter(|_| self.unknown.is_none());
        next.map(|(due, _)| *due)
    }
}

#[cfg(any(test, feature = "fuzz"))]
impl ClientCall {
    /// Bytes of the response that wait for the reader.
    pub(crate) const fn buffered(&self) -> usize {
        self.inbox.buffered()
    }
}
