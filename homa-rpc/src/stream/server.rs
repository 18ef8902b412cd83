//! The server's end of a call of several frames.
//!
//! ```text
//! CALL, PULL, PART with credit ─► parked ─► answered with items, headers, END, credit, or when it is too old
//! PART without credit ──────────────────► answered at once, with credit
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use homa_transport::Message;
use http::HeaderMap;

use super::inbox::{End, Inbox};
use super::window::Window;
use super::{FIRST_CREDIT, Outbox, StreamError, WAITS_MAX};
use crate::frame::{Content, ITEM_HEAD_LEN, Part, ReplyPart};
use crate::message::status::Status;

/// Frames of a call that are kept unanswered, at most.
const PARKED_MAX: usize = 16;
/// A frame is kept unanswered for so long: then it is answered empty, and the client shows that it is there by
/// a new one.
const PARKED_AGE_MAX: Duration = Duration::from_secs(15);
/// A client without a parked frame is gone after so long.
const ABSENT_MAX: Duration = Duration::from_secs(10);
/// A message of which a part is missing is given up when no more has come for so long.
const STANDSTILL_MAX: Duration = Duration::from_secs(10);

/// How a call ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) trailing: HeaderMap,
    /// `None` is success.
    pub(crate) status: Option<Status>,
}

impl From<Status> for Ending {
    fn from(status: Status) -> Self {
        Self {
            trailing: status.metadata().as_headers().clone(),
            status: Some(status),
        }
    }
}

/// A reply to be sent. `to` is the right to answer that came with the frame.
#[derive(Debug)]
pub(crate) struct ServerReply<R> {
    pub(crate) to: R,
    pub(crate) part: ReplyPart,
    pub(crate) initial: HeaderMap,
    pub(crate) content: Content<Message>,
    /// With `part.end`.
    pub(crate) ending: Ending,
}

/// What time has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Nothing was heard of the client.
    ClientGone,
    /// A message does not go on.
    Standstill,
}

/// A frame that waits for its reply.
#[derive(Debug)]
struct Parked<R> {
    to: R,
    /// Bytes that the reply may carry.
    credit: u32,
    since: Duration,
}

impl<R> Parked<R> {
    /// The reply may carry an item, or a piece of one.
    const fn takes_items(&self) -> bool {
        self.credit as usize >= ITEM_HEAD_LEN
    }
}

#[derive(Debug)]
enum Headers {
    Waiting,
    Ready(HeaderMap),
    Sent,
}

/// The server's end of one call. `R` is the right to answer a frame. All times are since the call began.
#[derive(Debug)]
pub(crate) struct ServerCall<R> {
    inbox: Inbox,
    window: Window,
    outbox: Outbox,
    headers: Headers,
    ending: Option<Ending>,
    parked: VecDeque<Parked<R>>,
    /// To be answered at once.
    at_once: VecDeque<R>,
    /// When a frame came or was answered last: a client that has its answer needs a moment for the next frame.
    heard: Duration,
    /// When the request came nearer to its end, or the client was told that it may send more.
    progress: Duration,
    /// The client expects one message, and so sends one.
    is_single: bool,
}

impl<R> ServerCall<R> {
    /// A call whose CALL frame is `first`; `content_max` bytes of content fit into a reply.
    ///
    /// # Errors
    /// If its content is against the rules; `to` comes back.
    pub(crate) fn open(first: First, to: R, content_max: usize) -> Result<Self, (StreamError, R)> {
        Self::open_at(first, to, content_max, 0, 0)
    }

    /// The same with counters that start elsewhere than at 0, for tests.
    pub(crate) fn open_at(
        first: First,
        to: R,
        content_max: usize,
        sequence: u32,
        bytes: u32,
    ) -> Result<Self, (StreamError, R)> {
        let mut call = Self::new(content_max, sequence, bytes);
        let credit = match first.end {
            // What is whole in its frame needs no credit: it has come.
            true => u32::MAX,
            false => FIRST_CREDIT,
        };
        let received = call.receive(sequence, first.content, first.end, credit, Duration::ZERO);
        if let Err(error) = received {
            return Err((error, to));
        }
        call.is_single = first.single;
        let credit = match (first.credit, first.single) {
            (0, true) => FIRST_CREDIT,
            (credit, _) => credit,
        };
        call.park(to, credit, Duration::ZERO);
        Ok(call)
    }

    /// A call that was whole in its CALL frame and has a response that does not fit into one frame.
    pub(crate) fn responding(to: R, content_max: usize) -> Self {
        let mut call = Self::new(content_max, 0, 0);
        call.inbox.discard();
        call.park(to, FIRST_CREDIT, Duration::ZERO);
        call
    }

    fn new(content_max: usize, sequence: u32, bytes: u32) -> Self {
        Self {
            inbox: Inbox::new(sequence, bytes),
            window: Window::new(bytes),
            outbox: Outbox::new(content_max, sequence),
            headers: Headers::Waiting,
            ending: None,
            parked: VecDeque::new(),
            at_once: VecDeque::new(),
            heard: Duration::ZERO,
            progress: Duration::ZERO,
            is_single: false,
        }
    }

    /// A frame behind the CALL has come.
    pub(crate) fn handle(&mut self, now: Duration, part: Part, to: R) -> Result<(), StreamError> {
        self.heard = now;
        let credit = self.window.left(self.inbox.received());
        let received = match part.carries {
            true => self.receive(part.sequence, part.content, part.end, credit, now),
            false => Ok(()),
        };
        if part.is_pull {
            self.park(to, part.credit, now);
        } else {
            self.at_once.push_back(to);
        }
        received
    }

    fn park(&mut self, to: R, credit: u32, since: Duration) {
        self.parked.push_back(Parked { to, credit, since });
    }

    fn receive(
        &mut self,
        sequence: u32,
        content: Content,
        end: bool,
        credit: u32,
        now: Duration,
    ) -> Result<(), StreamError> {
        let cost = content.cost();
        if cost > credit as usize && self.inbox.is_new(sequence) {
            return Err(StreamError::OverCredit {
                cost: cost as u64,
                credit: credit.into(),
            });
        }
        if self.inbox.insert(sequence, content, End::whole(end))? {
            self.progress = now;
        }
        if let Some(missing) = self.inbox.missing() {
            self.window.expect(missing);
        }
        Ok(())
    }

    /// The next bytes of the request, gRPC's: items with their heads.
    pub(crate) fn read(&mut self) -> Option<Bytes> {
        self.inbox.pop()
    }

    /// The request has come and was read.
    pub(crate) fn is_read(&self) -> bool {
        self.inbox.is_read()
    }

    /// There are bytes to read.
    pub(crate) fn has_ready(&self) -> bool {
        self.inbox.has_ready()
    }

    /// Nobody reads the request any more.
    pub(crate) fn discard(&mut self) {
        self.inbox.discard();
    }

    /// Bytes of the request that are held: those that wait for the reader, those of a message that is not whole
    /// yet, and all of a single message. With the length of the message that is not whole.
    pub(crate) fn held(&self) -> (usize, Option<usize>) {
        let buffered = self.inbox.buffered();
        let (partial, total) = match self.inbox.partial() {
            Some((have, total)) => (have as usize, Some(total as usize)),
            None => (0, None),
        };
        let held = match self.is_single {
            true => self.inbox.received_in_all(),
            false => buffered.max(partial),
        };
        (held, total)
    }

    /// The handler has returned its response.
    pub(crate) fn respond(&mut self, initial: HeaderMap) {
        if matches!(self.headers, Headers::Waiting) {
            self.headers = Headers::Ready(initial);
        }
    }

    /// Bytes of the response, gRPC's: items with their heads, cut anywhere.
    pub(crate) fn write(&mut self, chunk: Bytes) {
        if self.ending.is_none() {
            self.outbox.push(chunk);
        }
    }

    /// Bytes of the response that wait to be sent.
    pub(crate) const fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// The response is over once what was written is sent.
    pub(crate) fn finish(&mut self, ending: Ending) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            self.outbox.finish();
        }
    }

    /// The call is over, whatever is unsent.
    pub(crate) fn abort(&mut self, status: Status) {
        if !self.outbox.is_end_sent() {
            self.ending = Some(status.into());
            self.outbox.abort();
            self.inbox.discard();
        }
    }

    /// A reply could not be made, and the client was told so as the end of the call.
    pub(crate) fn on_failure_told(&mut self) {
        self.inbox.discard();
        self.outbox.abort();
        let _end = self.outbox.take_end();
    }

    /// How the call ended is on its way to the client.
    pub(crate) const fn is_over(&self) -> bool {
        self.outbox.is_end_sent()
    }

    /// The rights to answer that wait, for their owner to look whether the client has given them up.
    pub(crate) fn parked(&self) -> impl Iterator<Item = &R> {
        self.parked.iter().map(|parked| &parked.to)
    }

    /// The same, taken out.
    pub(crate) fn take_parked(&mut self) -> impl Iterator<Item = R> + use<R> {
        let parked = std::mem::take(&mut self.parked).into_iter();
        parked
            .map(|parked| parked.to)
            .chain(std::mem::take(&mut self.at_once))
    }

    /// The next reply to send.
    ///
    /// # Errors
    /// If the response cannot be sent.
    pub(crate) fn poll_reply(
        &mut self,
        now: Duration,
    ) -> Result<Option<ServerReply<R>>, StreamError> {
        let told = self.window.told();
        let reply = self.next_reply(now)?;
        if reply.is_some() {
            self.heard = now;
        }
        if told != self.window.told() {
            self.progress = now;
        }
        Ok(reply)
    }

    fn next_reply(&mut self, now: Duration) -> Result<Option<ServerReply<R>>, StreamError> {
        if let Some(to) = self.at_once.pop_front() {
            return Ok(Some(self.empty(to)));
        }
        if !matches!(self.headers, Headers::Waiting)
            && self.outbox.len() > 0
            && let Some(at) = self.parked.iter().position(Parked::takes_items)
            && let Some(parked) = self.parked.get(at)
            && let Some(taken) = self.outbox.take(parked.credit as usize, false)?
        {
            let parked = self.parked.remove(at);
            return Ok(parked.map(|parked| {
                let part = self.part(taken.sequence, taken.end);
                self.reply(parked.to, part, taken.content)
            }));
        }
        if self.parked.is_empty() {
            return Ok(None);
        }
        if let Some(taken) = self.outbox.take_end() {
            let part = self.part(taken.sequence, true);
            return Ok(self.unpark().map(|to| self.reply(to, part, Content::None)));
        }
        if matches!(self.headers, Headers::Ready(_)) {
            let sequence = self.outbox.number();
            let part = self.part(sequence, false);
            return Ok(self.unpark().map(|to| self.reply(to, part, Content::None)));
        }
        let oldest = self.parked.front().map_or(now, |parked| parked.since);
        let answers_empty = self.is_over()
            || self.parked.len() > PARKED_MAX
            || now >= oldest + PARKED_AGE_MAX
            || self.has_credit_to_tell();
        Ok(if answers_empty {
            self.unpark().map(|to| self.empty(to))
        } else {
            None
        })
    }

    /// The parked frame that can be spared best: one that brings no items, or else the oldest.
    fn unpark(&mut self) -> Option<R> {
        let at = self.parked.iter().position(|parked| parked.credit == 0);
        let parked = self.parked.remove(at.unwrap_or(0))?;
        Some(parked.to)
    }

    fn part(&mut self, sequence: u32, end: bool) -> ReplyPart {
        ReplyPart {
            sequence,
            credit: self.credit(),
            headers: matches!(self.headers, Headers::Ready(_)),
            end,
        }
    }

    /// The client may be waiting for credit.
    pub(crate) fn has_credit_to_tell(&self) -> bool {
        !self.inbox.is_ended()
            && !self.inbox.discards()
            && self.window.is_worth_telling(self.inbox.taken())
    }

    fn credit(&mut self) -> u32 {
        if self.inbox.discards() {
            return self.window.told();
        }
        self.window.tell(self.inbox.taken(), self.inbox.received())
    }

    fn empty(&mut self, to: R) -> ServerReply<R> {
        let part = ReplyPart {
            sequence: self.outbox.next_sequence(),
            credit: self.credit(),
            headers: false,
            end: false,
        };
        ServerReply {
            to,
            part,
            initial: HeaderMap::new(),
            content: Content::None,
            ending: Ending::default(),
        }
    }

    fn reply(&mut self, to: R, part: ReplyPart, content: Content<Message>) -> ServerReply<R> {
        let initial = match std::mem::replace(&mut self.headers, Headers::Sent) {
            Headers::Ready(initial) => initial,
            Headers::Waiting | Headers::Sent => HeaderMap::new(),
        };
        let ending = match part.end {
            true => self.ending.clone().unwrap_or_default(),
            false => Ending::default(),
        };
        ServerReply {
            to,
            part,
            initial,
            content,
            ending,
        }
    }

    /// When to look at [`poll_reply`](Self::poll_reply) and [`overdue`](Self::overdue) again if nothing happens.
    pub(crate) fn next_timeout(&self) -> Duration {
        let parked = self.parked.front();
        let absent = parked.map_or(self.heard + ABSENT_MAX, |parked| {
            parked.since + PARKED_AGE_MAX
        });
        match self.is_incomplete() {
            true => absent.min(self.progress + STANDSTILL_MAX),
            false => absent,
        }
    }

    /// The client owes the rest of a message, and may send it.
    fn is_incomplete(&self) -> bool {
        let left = self.window.left(self.inbox.received());
        let may_send = |missing: u32| left as usize >= WAITS_MAX.min(missing as usize);
        !self.inbox.discards()
            && (self.inbox.has_gap() || self.inbox.missing().is_some_and(may_send))
    }

    /// What has not come in time.
    pub(crate) fn overdue(&self, now: Duration) -> Option<Overdue> {
        if self.parked.is_empty() && now >= self.heard + ABSENT_MAX {
            return Some(Overdue::ClientGone);
        }
        (self.is_incomplete() && now >= self.progress + STANDSTILL_MAX)
            .then_some(Overdue::Standstill)
    }

    /// A frame of the client's is being received, which is progress.
    pub(crate) const fn on_receiving(&mut self, now: Duration) {
        self.heard = now;
        self.progress = now;
    }
}

#[cfg(any(test, feature = "fuzz"))]
impl<R> ServerCall<R> {
    /// Bytes of the request that wait for the reader.
    pub(crate) const fn buffered(&self) -> usize {
        self.inbox.buffered()
    }

    /// Bytes of the request that came, modulo 2^32.
    pub(crate) const fn received(&self) -> u32 {
        self.inbox.received()
    }

    /// A frame has not come that those behind it had to come after.
    pub(crate) fn has_gap(&self) -> bool {
        self.inbox.has_gap()
    }
}

/// What a CALL frame says for this.
#[derive(Debug)]
pub(crate) struct First {
    pub(crate) content: Content,
    pub(crate) end: bool,
    pub(crate) credit: u32,
    pub(crate) single: bool,
}
