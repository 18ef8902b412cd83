//! What one end receives: frames in any order become a stream of bytes as gRPC has them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::StreamError;
use super::serial::ahead;
use crate::frame::{Content, ITEM_HEAD_LEN};

/// A frame that came so many numbers too early is against the rules.
const EARLY_MAX: i32 = 64;

/// Chunks shorter than this are short, in bytes.
const SHORT: usize = 256;
/// So many short chunks in a row become one.
const SHORT_MAX: usize = 64;

/// Frames that have arrived.
pub(super) struct Inbox {
    /// The number of the next frame.
    next: u32,
    /// Frames that came too early, by their numbers.
    early: BTreeMap<u32, (Content, End)>,
    /// For the reader: bytes, and what they cost.
    ready: VecDeque<(Bytes, usize)>,
    /// How many short ones came behind the last long one, whether they were read or not.
    short: usize,
    /// Cost of what waits here.
    buffered: usize,
    /// Cost of all that came, modulo 2^32.
    received: u32,
    received_in_all: usize,
    /// The message of which some came.
    cut: Option<Cut>,
    ended: bool,
    /// Nobody reads what comes.
    discards: bool,
}

/// What a frame says of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// More may follow.
    No,
    /// All that was to come has.
    Whole,
    /// Nothing follows, also not of the message of which some came.
    Failed,
}

impl End {
    /// The end of what nothing fails.
    pub(super) const fn whole(end: bool) -> Self {
        if end { Self::Whole } else { Self::No }
    }
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    have: u32,
    total: u32,
}

impl Inbox {
    /// `first` is the number of the first frame, `received` what counts as received; both are 0 but in tests.
    pub(super) const fn new(first: u32, received: u32) -> Self {
        Self {
            next: first,
            early: BTreeMap::new(),
            ready: VecDeque::new(),
            short: 0,
            buffered: 0,
            received,
            received_in_all: 0,
            cut: None,
            ended: false,
            discards: false,
        }
    }

    /// Takes a frame that carries something. False if it came before.
    pub(super) fn insert(
        &mut self,
        sequence: u32,
        content: Content,
        end: End,
    ) -> Result<bool, StreamError> {
        if !self.is_new(sequence) {
            return Ok(false);
        }
        let early = ahead(sequence, self.next);
        if self.ended {
            return Err(StreamError::AfterEnd);
        }
        let cost = content.cost();
        if early >= EARLY_MAX {
            return Err(StreamError::TooFarAhead {
                sequence,
                next: self.next,
            });
        }
        self.buffered += cost;
        self.received_in_all += cost;
        self.received = self
            .received
            .wrapping_add(u32::try_from(cost).unwrap_or(u32::MAX));
        if early > 0 {
            self.early.insert(sequence, (content, end));
            return Ok(true);
        }
        self.accept(content, end)?;
        while let Some((content, end)) = self.early.remove(&self.next) {
            self.accept(content, end)?;
        }
        Ok(true)
    }

    /// No frame of this number has come.
    pub(super) fn is_new(&self, sequence: u32) -> bool {
        !self.has_had(sequence) && !self.early.contains_key(&sequence)
    }

    /// The frame of this number was accepted.
    pub(super) const fn has_had(&self, sequence: u32) -> bool {
        ahead(sequence, self.next) < 0
    }

    /// Takes the next frame.
    fn accept(&mut self, content: Content, end: End) -> Result<(), StreamError> {
        if self.ended {
            return Err(StreamError::AfterEnd);
        }
        self.next = self.next.wrapping_add(1);
        if let Some(Cut { have, total }) = self.cut
            && matches!(content, Content::Message(_) | Content::Items(_))
        {
            return Err(StreamError::Interrupted { want: have, total });
        }
        match content {
            Content::None => {}
            Content::Message(message) => {
                let head = head(u32::try_from(message.len()).unwrap_or(u32::MAX));
                self.make_ready(head, ITEM_HEAD_LEN);
                let cost = message.len();
                self.make_ready(message, cost);
            }
            Content::Items(run) => {
                check_run(&run)?;
                let cost = run.len();
                self.make_ready(run, cost);
            }
            Content::Fragment {
                piece,
                offset,
                total,
            } => self.fragment(piece, offset, total)?,
        }
        if end == End::No {
            return Ok(());
        }
        if let Some(Cut { have, total }) = self.cut
            && end == End::Whole
        {
            return Err(StreamError::Truncated { have, total });
        }
        if !self.early.is_empty() {
            return Err(StreamError::AfterEnd);
        }
        // Last, so that what is against the rules is no end for the reader.
        self.cut = None;
        self.ended = true;
        Ok(())
    }

    fn fragment(&mut self, piece: Bytes, offset: u32, total: u32) -> Result<(), StreamError> {
        let cut = self.cut.unwrap_or(Cut { have: 0, total });
        if offset != cut.have || total != cut.total {
            return Err(StreamError::Fragment {
                want: cut.have,
                total: cut.total,
                have: offset,
                have_total: total,
            });
        }
        if offset == 0 {
            self.make_ready(head(total), 0);
        }
        let have = cut.have + u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.cut = (have < total).then_some(Cut { have, total });
        let cost = piece.len();
        self.make_ready(piece, cost);
        Ok(())
    }

    fn make_ready(&mut self, chunk: Bytes, cost: usize) {
        if self.discards {
            self.buffered -= cost;
        } else if !chunk.is_empty() {
            self.short = match chunk.len() < SHORT {
                true => self.short + 1,
                false => 0,
            };
            self.ready.push_back((chunk, cost));
            if self.short == SHORT_MAX {
                self.join();
            }
        }
    }

    /// Makes one chunk of the short ones at the end: each takes far more memory than it has bytes.
    fn join(&mut self) {
        let first = self.ready.len().saturating_sub(self.short);
        let len = self.ready.range(first..).map(|(chunk, _)| chunk.len());
        let mut joined = BytesMut::with_capacity(len.sum());
        let mut costs = 0;
        for (chunk, cost) in self.ready.drain(first..) {
            joined.put(chunk);
            costs += cost;
        }
        self.ready.push_back((joined.freeze(), costs));
        self.short = 0;
    }

    /// The next bytes for the reader.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let (chunk, cost) = self.ready.pop_front()?;
        self.buffered -= cost;
        Some(chunk)
    }

    /// Nobody reads what comes: it is dropped, which counts as read.
    pub(super) fn discard(&mut self) {
        self.discards = true;
        while self.pop().is_some() {}
    }

    /// Nobody reads what comes.
    pub(super) const fn discards(&self) -> bool {
        self.discards
    }

    /// Cost of what waits here.
    pub(super) const fn buffered(&self) -> usize {
        self.buffered
    }

    /// Cost of all that came, modulo 2^32.
    pub(super) const fn received(&self) -> u32 {
        self.received
    }

    /// The same of what was read.
    pub(super) fn taken(&self) -> u32 {
        let buffered = u32::try_from(self.buffered).unwrap_or(u32::MAX);
        self.received.wrapping_sub(buffered)
    }

    /// Bytes that are missing of the message of which some came.
    pub(super) fn missing(&self) -> Option<u32> {
        self.cut.map(|cut| cut.total - cut.have)
    }

    /// Bytes that came of a message that is not whole yet, and its length.
    pub(super) fn partial(&self) -> Option<(u32, u32)> {
        self.cut.map(|cut| (cut.have, cut.total))
    }

    /// Cost of all that came.
    pub(super) const fn received_in_all(&self) -> usize {
        self.received_in_all
    }

    /// A frame has not come that those behind it had to come after.
    pub(super) fn has_gap(&self) -> bool {
        !self.early.is_empty()
    }

    /// All has come.
    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// All has come and was read.
    pub(super) fn is_read(&self) -> bool {
        self.ended && self.ready.is_empty()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("next", &self.next)
            .field("early", &self.early.len())
            .field("buffered", &self.buffered)
            .field("received", &self.received)
            .field("cut", &self.cut)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// What stands in front of an item of this length.
fn head(len: u32) -> Bytes {
    let mut head = BytesMut::with_capacity(ITEM_HEAD_LEN);
    head.put_u8(0);
    head.put_u32(len);
    head.freeze()
}

/// A run consists of whole items.
fn check_run(run: &Bytes) -> Result<(), StreamError> {
    let broken = StreamError::Items { len: run.len() };
    let mut rest = run.as_ref();
    while !rest.is_empty() {
        let Some(([_flag, len @ ..], after)) = rest.split_first_chunk::<ITEM_HEAD_LEN>() else {
            return Err(broken);
        };
        let Some(after) = after.get(u32::from_be_bytes(*len) as usize..) else {
            return Err(broken);
        };
        rest = after;
    }
    Ok(())
}
