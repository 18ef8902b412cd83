//! From the data frames of a gRPC body, cut anywhere, to its messages.

use bytes::{Buf, Bytes};

use super::prefix::{self, PREFIX_LEN};
use crate::message::status::Status;

/// A piece of a message shorter than this is copied at once, in bytes: kept as it is, it would keep all of the
/// memory that it is a part of.
const KEPT_MIN: usize = 4096;

/// Takes messages out of data frames. One that lies within a frame is not copied, others are once.
///
/// Memory grows with what has come, not with what a prefix announces.
#[derive(Debug)]
pub(crate) struct Deframer {
    /// Longest message, in bytes.
    max: usize,
    /// What sets this limit, for errors.
    option: &'static str,
    /// What has come and was not looked at.
    rest: Bytes,
    /// The begin of a prefix, and how long that is.
    head: [u8; PREFIX_LEN],
    head_len: usize,
    /// Length of the message whose prefix is complete.
    announced: Option<usize>,
    /// The begin of that message, of earlier frames, and its length.
    pieces: Vec<Bytes>,
    pieces_len: usize,
    /// Short pieces behind these.
    short: Vec<u8>,
}

impl Deframer {
    /// Messages of at most `max` bytes; `option` names what sets this limit.
    pub(crate) const fn new(max: usize, option: &'static str) -> Self {
        Self {
            max,
            option,
            rest: Bytes::new(),
            head: [0; PREFIX_LEN],
            head_len: 0,
            announced: None,
            pieces: Vec::new(),
            pieces_len: 0,
            short: Vec::new(),
        }
    }

    /// Gives it the next frame. The one before must be used up: [`next`](Self::next) has said `None`.
    pub(crate) fn push(&mut self, frame: Bytes) {
        debug_assert!(
            self.rest.is_empty(),
            "a frame before this one is not used up"
        );
        self.rest = frame;
    }

    /// The next message, without prefix. `None`: it takes another frame to know.
    ///
    /// # Errors
    /// If it is too long, or compressed. Nothing comes after that.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let len = match self.announced {
            Some(len) => len,
            None => match self.prefix() {
                Some(prefix) => {
                    let len = prefix::read(prefix, self.max, self.option)?;
                    *self.announced.insert(len)
                }
                None => return Ok(None),
            },
        };
        if self.pieces_len == 0 && self.rest.len() >= len {
            self.announced = None;
            return Ok(Some(self.rest.split_to(len)));
        }
        let more = self.take(len - self.pieces_len);
        self.keep(more, len);
        if self.pieces_len < len {
            return Ok(None);
        }
        self.announced = None;
        Ok(Some(self.join()))
    }

    /// Keeps a piece of a message of `len` bytes.
    fn keep(&mut self, piece: Bytes, len: usize) {
        let left = len - self.pieces_len;
        self.pieces_len += piece.len();
        if piece.len() < KEPT_MIN {
            let needed = self.short.len() + piece.len();
            if needed > self.short.capacity() {
                // Doubled, so that bytes are moved but once in the mean; never more than the message has.
                let capacity = (self.short.len() + left).min(needed * 2);
                self.short.reserve_exact(capacity - self.short.len());
            }
            self.short.extend_from_slice(&piece);
            return;
        }
        if !self.short.is_empty() {
            self.pieces.push(std::mem::take(&mut self.short).into());
        }
        self.pieces.push(piece);
    }

    /// The message of which all pieces are there.
    fn join(&mut self) -> Bytes {
        if self.pieces.is_empty() {
            self.pieces_len = 0;
            return std::mem::take(&mut self.short).into();
        }
        let mut joined = Vec::with_capacity(self.pieces_len);
        for piece in self.pieces.drain(..) {
            joined.extend_from_slice(&piece);
        }
        joined.append(&mut self.short);
        self.pieces_len = 0;
        joined.into()
    }

    /// True if nothing is left: neither a message nor a part of one.
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.head_len == 0 && self.announced.is_none()
    }

    /// Says that no frame follows.
    ///
    /// # Errors
    /// If a message has begun and is not complete.
    pub(crate) fn finish(&self) -> Result<(), Status> {
        match self.announced {
            Some(len) => Err(Status::internal(format!(
                "a gRPC body ends within a message: its prefix says {len} bytes, {} have come",
                self.pieces_len
            ))),
            None if self.head_len > 0 => Err(Status::internal(format!(
                "a gRPC body ends within the prefix of a message: expected {PREFIX_LEN} bytes, {} have come",
                self.head_len
            ))),
            None => Ok(()),
        }
    }

    fn prefix(&mut self) -> Option<[u8; PREFIX_LEN]> {
        if self.head_len == 0
            && let Some(prefix) = self.rest.first_chunk().copied()
        {
            self.rest.advance(PREFIX_LEN);
            return Some(prefix);
        }
        let more = self.take(PREFIX_LEN - self.head_len);
        for (place, byte) in self.head.iter_mut().skip(self.head_len).zip(&more) {
            *place = *byte;
        }
        self.head_len += more.len();
        if self.head_len < PREFIX_LEN {
            return None;
        }
        self.head_len = 0;
        Some(self.head)
    }

    /// The next `len` bytes, or all that there are.
    fn take(&mut self, len: usize) -> Bytes {
        let len = len.min(self.rest.len());
        self.rest.split_to(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::status::Code;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            out.extend(prefix::write(message.len()).unwrap());
            out.extend_from_slice(message);
        }
        out
    }

    /// All messages of a body that is cut into these frames.
    fn read<'a>(
        max: usize,
        frames: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Bytes>, Status> {
        let mut deframer = Deframer::new(max, "limit");
        let mut messages = Vec::new();
        for frame in frames {
            deframer.push(Bytes::copy_from_slice(frame));
            while let Some(message) = deframer.next()? {
                messages.push(message);
            }
        }
        deframer.finish()?;
        assert!(deframer.is_empty());
        Ok(messages)
    }

    #[test]
    fn frames_may_be_cut_at_every_two_bytes() {
        let messages: [&[u8]; 5] = [b"", b"a", b"", b"four", b"0123456789"];
        let body = framed(&messages);
        for first in 0..=body.len() {
            for second in first..=body.len() {
                let frames = [&body[..first], &body[first..second], &body[second..]];
                assert_eq!(read(10, frames).unwrap(), messages, "{first}, {second}");
            }
        }
        assert_eq!(read(10, body.chunks(1)).unwrap(), messages);
    }

    #[test]
    fn a_message_within_a_frame_is_not_copied() {
        let body = Bytes::from(framed(&[b"abc", b"defg"]));
        let place = body.as_ptr_range();
        let mut deframer = Deframer::new(10, "limit");
        deframer.push(body.clone());
        for _ in 0..2 {
            let message = deframer.next().unwrap().unwrap();
            assert!(place.contains(&message.as_ptr()));
        }
        // The prefix in a frame of its own, as long items are sent.
        deframer.push(body.slice(..5));
        assert_eq!(deframer.next().unwrap(), None);
        deframer.push(body.slice(5..8));
        assert!(place.contains(&deframer.next().unwrap().unwrap().as_ptr()));
    }

    #[test]
    fn what_is_announced_takes_no_memory_before_it_comes() {
        let mut deframer = Deframer::new(usize::MAX, "limit");
        deframer.push(Bytes::from_static(b"\0\xff\xff\xff\xff12345678"));
        assert_eq!(deframer.next().unwrap(), None);
        assert!(deframer.short.capacity() <= 16);
    }

    #[test]
    fn room_for_a_message_of_many_frames_is_never_more_than_the_message() {
        let body = framed(&[&[7; 1000]]);
        let mut deframer = Deframer::new(1000, "limit");
        for frame in body.chunks(33) {
            deframer.push(Bytes::copy_from_slice(frame));
            if let Some(message) = deframer.next().unwrap() {
                assert_eq!(message, [7; 1000].as_slice());
            }
            assert!(deframer.short.capacity() <= 1000);
        }
    }

    #[test]
    fn too_long_compressed_and_truncated_messages_are_errors_that_say_so() {
        let cases: [(&[u8], Code, &str); 5] = [
            (b"\0\0\0\0\x04", Code::ResourceExhausted, "4 bytes"),
            (
                b"\0\0\0\0\x03abc\0\xff\xff\xff\xff",
                Code::ResourceExhausted,
                "limit of 3",
            ),
            (b"\x01\0\0\0\x01a", Code::Unimplemented, "flag 1"),
            (
                b"\0\0\0\0\x03ab",
                Code::Internal,
                "says 3 bytes, 2 have come",
            ),
            (b"\0\0\0", Code::Internal, "expected 5 bytes, 3 have come"),
        ];
        for (body, code, text) in cases {
            let status = read(3, [body]).unwrap_err();
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().contains(text), "{status}");
        }
    }
}
