//! What one end sends: a stream of bytes as gRPC has them, each item behind its head, cut into frames.

use std::collections::VecDeque;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use homa_transport::Message;

use super::{PIECE_MAX, RUN_MAX, StreamError, WAITS_MAX};
use crate::frame::{Content, ITEM_HEAD_LEN};

/// Slices shorter than this are copied together: a slice more costs more than to copy so little.
const COPIED_MAX: usize = 1_024;

/// Items that wait to be sent.
pub(crate) struct Outbox {
    /// Items with their heads, cut anywhere.
    chunks: VecDeque<Bytes>,
    len: usize,
    /// The item of which a piece was sent.
    cut: Option<Cut>,
    /// The number of the next frame.
    sequence: u32,
    run_max: usize,
    piece_max: usize,
    end: End,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Bytes that were sent.
    offset: u32,
    total: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Nothing follows what waits.
    Known,
    Sent,
}

/// The contents of a frame.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) sequence: u32,
    pub(crate) content: Content<Message>,
    pub(crate) end: bool,
}

impl Outbox {
    /// `content_max` is what fits into one frame. `first` is the number of the first frame, which is 0 but in
    /// tests.
    pub(crate) fn new(content_max: usize, first: u32) -> Self {
        Self {
            chunks: VecDeque::new(),
            len: 0,
            cut: None,
            sequence: first,
            run_max: RUN_MAX.min(content_max),
            piece_max: PIECE_MAX.min(content_max),
            end: End::Open,
        }
    }

    /// Adds bytes of items with their heads, cut anywhere.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Nothing follows.
    pub(crate) fn finish(&mut self) {
        if self.end == End::Open {
            self.end = End::Known;
        }
    }

    /// Forgets what waits: nothing follows what was sent.
    pub(crate) fn abort(&mut self) {
        self.chunks.clear();
        self.len = 0;
        self.cut = None;
        self.finish();
    }

    /// Bytes that wait.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_finished(&self) -> bool {
        !matches!(self.end, End::Open)
    }

    pub(crate) const fn is_end_sent(&self) -> bool {
        matches!(self.end, End::Sent)
    }

    /// The number of the next frame that carries anything.
    pub(crate) const fn next_sequence(&self) -> u32 {
        self.sequence
    }

    /// Uses up a number for a frame that carries something else.
    pub(crate) const fn number(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        sequence
    }

    /// The next frame's contents within `credit`, if there are any. An item over the credit is cut; if
    /// `patient`, only one that is long.
    pub(crate) fn take(
        &mut self,
        credit: usize,
        patient: bool,
    ) -> Result<Option<Taken>, StreamError> {
        let content = match self.cut {
            Some(cut) => self.piece(cut, credit, patient)?,
            None => self.items(credit, patient)?,
        };
        match content {
            Some(content) => Ok(Some(self.taken(content))),
            None => Ok(None),
        }
    }

    /// The frame with nothing but END, if that is all there is to send.
    pub(crate) fn take_end(&mut self) -> Option<Taken> {
        (self.end == End::Known && self.len == 0 && self.cut.is_none())
            .then(|| self.taken(Content::None))
    }

    fn taken(&mut self, content: Content<Message>) -> Taken {
        let end = self.end == End::Known && self.len == 0 && self.cut.is_none();
        if end {
            self.end = End::Sent;
        }
        Taken {
            sequence: self.number(),
            content,
            end,
        }
    }

    fn items(
        &mut self,
        credit: usize,
        patient: bool,
    ) -> Result<Option<Content<Message>>, StreamError> {
        let Some((flag, item)) = Walk::over(&self.chunks).head() else {
            return self.truncated(ITEM_HEAD_LEN as u64);
        };
        let wire = ITEM_HEAD_LEN + item as usize;
        if wire <= self.run_max && wire <= credit {
            if wire > self.len {
                return self.truncated(wire as u64);
            }
            let run = self.run_len(credit.min(self.run_max));
            return Ok(Some(Content::Items(self.split(run))));
        }
        if credit < ITEM_HEAD_LEN || (patient && credit < wire.min(WAITS_MAX)) {
            return Ok(None);
        }
        if flag != 0 {
            return Err(StreamError::Compressed { flag, total: item });
        }
        let cut = Cut {
            offset: 0,
            total: item,
        };
        // The head is not sent: the frame says the same.
        drop(self.split(ITEM_HEAD_LEN));
        self.cut = Some(cut);
        self.piece(cut, credit, patient)
    }

    fn piece(
        &mut self,
        cut: Cut,
        credit: usize,
        patient: bool,
    ) -> Result<Option<Content<Message>>, StreamError> {
        let Cut { offset, total } = cut;
        let rest = (total - offset) as usize;
        let len = rest.min(credit).min(self.piece_max);
        if (patient && len < rest.min(WAITS_MAX)) || credit == 0 {
            return Ok(None);
        }
        let len = len.min(self.len);
        if len == 0 {
            return self.truncated(u64::from(total));
        }
        let piece = self.split(len);
        let sent = offset + u32::try_from(len).unwrap_or(u32::MAX);
        self.cut = (sent < total).then_some(Cut {
            offset: sent,
            total,
        });
        Ok(Some(Content::Fragment {
            piece,
            offset,
            total,
        }))
    }

    /// Nothing can be sent of a message that is not there yet; it never will be if the body is at its end.
    fn truncated(&self, total: u64) -> Result<Option<Content<Message>>, StreamError> {
        let have = self.cut.map_or(0, |cut| u64::from(cut.offset)) + self.len as u64;
        let is_broken = self.end == End::Known && (self.len > 0 || self.cut.is_some());
        match is_broken {
            true => Err(StreamError::BodyTruncated { have, total }),
            false => Ok(None),
        }
    }

    /// The length of the whole items at the front that fit into `limit`.
    fn run_len(&self, limit: usize) -> usize {
        let mut walk = Walk::over(&self.chunks);
        let mut run = 0;
        while let Some((_, item)) = walk.head() {
            let next = run + ITEM_HEAD_LEN + item as usize;
            if next > limit || next > self.len {
                break;
            }
            walk.skip(item as usize);
            run = next;
        }
        run
    }

    /// The first `len` bytes, of which there must be as many.
    fn split(&mut self, len: usize) -> Message {
        let mut out = Message::new();
        let mut copied = BytesMut::new();
        let mut left = len;
        while left > 0
            && let Some(mut chunk) = self.chunks.pop_front()
        {
            if chunk.len() > left {
                self.chunks.push_front(chunk.split_off(left));
            }
            left -= chunk.len();
            if chunk.len() == len {
                out.push(chunk);
                break;
            }
            if chunk.len() < COPIED_MAX {
                copied.put(chunk);
                continue;
            }
            out.push(copied.split().freeze());
            out.push(chunk);
        }
        out.push(copied.freeze());
        self.len -= len - left;
        out
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("len", &self.len)
            .field("cut", &self.cut)
            .field("sequence", &self.sequence)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// A look over the items in chunks.
struct Walk<'a> {
    chunks: std::collections::vec_deque::Iter<'a, Bytes>,
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn over(chunks: &'a VecDeque<Bytes>) -> Self {
        let mut chunks = chunks.iter();
        let rest = chunks.next().map_or(&[][..], |chunk| chunk);
        Self { chunks, rest }
    }

    /// The flag and the length of the next item, whose head is passed.
    fn head(&mut self) -> Option<(u8, u32)> {
        let head = match self.rest.split_first_chunk::<ITEM_HEAD_LEN>() {
            Some((head, rest)) => {
                self.rest = rest;
                *head
            }
            None => self.head_in_pieces()?,
        };
        let [flag, len @ ..] = head;
        Some((flag, u32::from_be_bytes(len)))
    }

    fn head_in_pieces(&mut self) -> Option<[u8; ITEM_HEAD_LEN]> {
        let mut head = [0; ITEM_HEAD_LEN];
        for byte in &mut head {
            while self.rest.is_empty() {
                self.rest = self.chunks.next()?;
            }
            let (first, rest) = self.rest.split_first()?;
            (*byte, self.rest) = (*first, rest);
        }
        Some(head)
    }

    fn skip(&mut self, mut len: usize) {
        while len > 0 {
            if let Some(rest) = self.rest.get(len..) {
                self.rest = rest;
                return;
            }
            len -= self.rest.len();
            self.rest = match self.chunks.next() {
                Some(chunk) => chunk,
                None => return,
            };
        }
    }
}
