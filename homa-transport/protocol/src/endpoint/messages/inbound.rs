//! Reassembly of one incoming message: any order, any packet size, duplicates.

use std::ops::Range;

use bytes::Bytes;

use crate::endpoint::messages::grant_delay::{DelayProbe, Took};
use crate::message::Message;
use crate::units::{Instant, Priority};

/// Gaps a message may have; packets that would open another one are dropped. The longest message in
/// the shortest useful packets has fewer than 400.
const GAPS_MAX: usize = 1024;
/// Bytes beyond the grant that are still taken: a sender rounds a grant up to its own frame.
const GRANT_SLACK_BYTES: u32 = 65_536;

/// An incoming message.
///
/// `received` counts distinct bytes, `recv_end` is the end of the highest one, `gaps` are the
/// missing ranges below it. Source: homa_rpc.h, `struct homa_message_in`.
#[derive(Debug)]
pub(crate) struct InMessage {
    length: u32,
    granted: u32,
    received: u32,
    recv_end: u32,
    gaps: Vec<Range<u32>>,
    awaited: DelayProbe,
    /// Level of the last grant.
    level: Priority,
    /// It began by START_MSG.
    started: bool,
    /// Bytes still to come, besides it, of the whole that it is a part of.
    following: u32,
    buffer: Buffer,
}

/// Where the bytes of a message are.
#[derive(Debug)]
enum Buffer {
    /// Nowhere: they are only counted.
    Counted,
    /// None has arrived, room is to be made for so many.
    Empty(usize),
    /// Those that have arrived, and zeros in the gaps.
    Growing(Vec<u8>),
    /// All of them, from one packet.
    Whole(Bytes),
}

impl Buffer {
    /// Memory held, or about to be, in bytes.
    fn reserved(&self) -> usize {
        match self {
            Self::Counted => 0,
            Self::Empty(reserve) => *reserve,
            Self::Growing(bytes) => bytes.capacity(),
            Self::Whole(bytes) => bytes.len(),
        }
    }

    /// Makes room for `total` bytes in all.
    fn reserve(&mut self, total: usize) {
        match self {
            Self::Empty(reserve) => *reserve = (*reserve).max(total),
            Self::Growing(bytes) => bytes.reserve_exact(total.saturating_sub(bytes.len())),
            Self::Counted | Self::Whole(_) => {}
        }
    }

    /// The bytes, to be added to. `None` if they are not kept.
    fn growing(&mut self) -> Option<&mut Vec<u8>> {
        if let Self::Empty(reserve) = self {
            *self = Self::Growing(Vec::with_capacity(*reserve));
        }
        match self {
            Self::Growing(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// What became of a DATA packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It brought new bytes.
    New,
    /// All of its bytes were there already.
    Duplicate,
    /// It lies outside the message or too far beyond the grant, or opens too many gaps.
    Refused,
}

impl InMessage {
    /// All but the bytes, to be compared.
    #[cfg(feature = "sim")]
    pub(in crate::endpoint) fn standing(&self) -> impl std::fmt::Debug {
        let cursors = (self.received, self.recv_end, self.granted);
        (cursors, self.level, self.following)
    }

    /// A message of `length` bytes whose sender announced to send `incoming` bytes on its own.
    /// Room is made for `reserve` bytes with the first packet, for the rest when it is granted.
    pub(crate) fn new(length: u32, incoming: u32, reserve: u32) -> Self {
        Self {
            buffer: Buffer::Empty(index(reserve.min(length))),
            ..Self::counted(length, incoming)
        }
    }

    /// The same without keeping the bytes.
    pub(crate) fn counted(length: u32, incoming: u32) -> Self {
        Self {
            length,
            granted: incoming.min(length),
            received: 0,
            recv_end: 0,
            gaps: Vec::new(),
            awaited: DelayProbe::default(),
            level: Priority::LOWEST,
            started: false,
            following: 0,
            buffer: Buffer::Counted,
        }
    }

    pub(crate) const fn length(&self) -> u32 {
        self.length
    }

    /// End of what the sender may send without hearing from us.
    pub(crate) const fn granted(&self) -> u32 {
        self.granted
    }

    /// It began by START_MSG.
    pub(crate) const fn set_started(&mut self) {
        self.started = true;
    }

    /// Whether it did.
    pub(crate) const fn is_started(&self) -> bool {
        self.started
    }

    /// Bytes still to come, besides it, of the whole that it is a part of, as its sender says.
    pub(crate) const fn following(&self) -> u32 {
        self.following
    }

    /// A packet says how much follows. The most that was said counts: whoever said it, the message comes
    /// later for it, never sooner.
    pub(crate) fn on_following(&mut self, bytes: u32) {
        self.following = self.following.max(bytes);
    }

    /// Level of the last grant.
    pub(crate) const fn level(&self) -> Priority {
        self.level
    }

    /// A grant names a level.
    pub(crate) const fn set_level(&mut self, level: Priority) {
        self.level = level;
    }

    /// Distinct bytes received.
    pub(crate) const fn received(&self) -> u32 {
        self.received
    }

    pub(crate) const fn is_complete(&self) -> bool {
        self.received == self.length
    }

    /// True if all that was granted has arrived, so that silence means nothing.
    pub(crate) const fn has_all_granted(&self) -> bool {
        self.gaps.is_empty() && self.recv_end >= self.granted
    }

    /// Bytes of memory held.
    pub(crate) fn reserved(&self) -> usize {
        self.buffer.reserved()
    }

    /// Raises the grant and makes room for the whole message.
    pub(crate) fn grant(&mut self, granted: u32, now: Instant) {
        self.granted = self.granted.max(granted.min(self.length));
        self.buffer.reserve(index(self.length));
        self.awaited.on_grant(self.granted, now, true);
    }

    /// From now on all that is granted may come.
    pub(crate) fn await_granted(&mut self, now: Instant) {
        if self.granted > 0 {
            self.awaited.on_grant(self.granted, now, false);
        }
    }

    /// Stores the bytes that are new. Differs: the module drops a packet that overlaps received
    /// bytes whole (homa_incoming.c, `homa_add_packet`); taking the new part lets a sender cut its
    /// packets anew for another MTU.
    pub(crate) fn add(&mut self, offset: u32, data: &[u8]) -> Added {
        let Some(end) = u32::try_from(data.len())
            .ok()
            .and_then(|len| offset.checked_add(len))
        else {
            return Added::Refused;
        };
        if end > self.length || offset >= end {
            return Added::Refused;
        }
        if self.granted < self.length && end > self.granted.saturating_add(GRANT_SLACK_BYTES) {
            return Added::Refused;
        }
        if offset > self.recv_end && self.gaps.len() >= GAPS_MAX {
            return Added::Refused;
        }
        let before = self.received;
        if offset < self.recv_end {
            self.fill_gaps(offset, end, data);
        }
        if end > self.recv_end {
            self.append(offset, end, data);
        }
        if self.received > before {
            Added::New
        } else {
            Added::Duplicate
        }
    }

    /// Stores the part of `[offset, end)` that lies at or past `recv_end`.
    fn append(&mut self, offset: u32, end: u32, data: &[u8]) {
        let start = offset.max(self.recv_end);
        if start > self.recv_end {
            self.gaps.push(self.recv_end..start);
        }
        if matches!(self.buffer, Buffer::Empty(_)) && (offset, end) == (0, self.length) {
            self.buffer = Buffer::Whole(Message::copy_of(&[data]).into_bytes());
        } else if let Some(buffer) = self.buffer.growing() {
            buffer.resize(index(start), 0);
            buffer.extend_from_slice(data.get(index(start - offset)..).unwrap_or_default());
        }
        self.received += end - start;
        self.recv_end = end;
    }

    /// Stores the parts of `[offset, end)` that lie in gaps.
    fn fill_gaps(&mut self, offset: u32, end: u32, data: &[u8]) {
        let first = self.gaps.partition_point(|gap| gap.end <= offset);
        let mut at = first;
        while let Some(gap) = self.gaps.get(at).cloned() {
            if gap.start >= end {
                break;
            }
            let filled = gap.start.max(offset)..gap.end.min(end);
            let splits = filled.start > gap.start && filled.end < gap.end;
            if splits && self.gaps.len() >= GAPS_MAX {
                break;
            }
            let source = data.get(index(filled.start - offset)..index(filled.end - offset));
            let target = self
                .buffer
                .growing()
                .and_then(|buffer| buffer.get_mut(index(filled.start)..index(filled.end)));
            if let (Some(source), Some(target)) = (source, target) {
                target.copy_from_slice(source);
            }
            self.received += filled.end - filled.start;
            let left = gap.start..filled.start;
            let right = filled.end..gap.end;
            let rest = [left, right].into_iter().filter(|range| !range.is_empty());
            let kept = rest.clone().count();
            self.gaps.splice(at..=at, rest);
            at += kept;
        }
    }

    /// How long the bytes of a packet have taken since they were granted, if it can be told.
    pub(crate) fn took(&mut self, bytes: Range<u32>, again: bool, now: Instant) -> Option<Took> {
        self.awaited.on_data(bytes.start, bytes.end, again, now)
    }

    /// Bytes of the granted tail to ask for again if that may be late rather than lost.
    pub(crate) fn probe(&mut self) -> u32 {
        self.awaited.probe()
    }

    /// The ranges to ask for again: every gap, and of the granted tail `tail_max` bytes.
    pub(crate) fn missing(&self, tail_max: u32) -> impl Iterator<Item = Range<u32>> + '_ {
        let tail = self.recv_end..self.granted.min(self.recv_end.saturating_add(tail_max));
        self.gaps
            .iter()
            .cloned()
            .chain(std::iter::once(tail).filter(|tail| tail.start < tail.end))
    }

    /// True if no byte has arrived.
    pub(crate) const fn is_empty(&self) -> bool {
        self.recv_end == 0
    }

    /// The message, once complete; no bytes if they were only counted.
    pub(crate) fn into_bytes(self) -> Bytes {
        debug_assert!(
            self.is_complete(),
            "{} of {} bytes",
            self.received,
            self.length
        );
        match self.buffer {
            Buffer::Counted | Buffer::Empty(_) => Bytes::new(),
            Buffer::Growing(bytes) => bytes.into(),
            Buffer::Whole(bytes) => bytes,
        }
    }
}

/// `u32` offsets always fit: this crate supports 32-bit targets and up.
const fn index(offset: u32) -> usize {
    offset as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: u32) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    fn add(message: &mut InMessage, range: Range<u32>) -> Added {
        let data = pattern(message.length());
        message.add(range.start, &data[index(range.start)..index(range.end)])
    }

    #[test]
    fn packets_in_any_order_give_the_exact_bytes() {
        let cuts: Vec<Range<u32>> = (0..10).map(|i| i * 100..(i + 1) * 100).collect();
        for rotate in 0..10 {
            for reverse in [false, true] {
                let mut order = cuts.clone();
                order.rotate_left(rotate);
                if reverse {
                    order.reverse();
                }
                let mut message = InMessage::new(1000, 1000, 1000);
                for range in &order {
                    assert_eq!(add(&mut message, range.clone()), Added::New);
                    assert_eq!(add(&mut message, range.clone()), Added::Duplicate);
                }
                assert!(message.is_complete());
                assert_eq!(message.into_bytes(), pattern(1000));
            }
        }
    }

    #[test]
    fn gaps_and_the_granted_tail_are_missing() {
        let mut message = InMessage::new(10_000, 5_000, 5_000);
        add(&mut message, 1000..2000);
        add(&mut message, 3000..4000);
        assert_eq!(
            message.missing(u32::MAX).collect::<Vec<_>>(),
            [0..1000, 2000..3000, 4000..5000]
        );
        assert!(!message.has_all_granted());
        add(&mut message, 2200..2300);
        assert_eq!(
            message.missing(u32::MAX).collect::<Vec<_>>(),
            [0..1000, 2000..2200, 2300..3000, 4000..5000]
        );
    }

    #[test]
    fn a_packet_that_overlaps_received_bytes_brings_its_new_part() {
        let mut message = InMessage::new(1000, 1000, 1000);
        add(&mut message, 100..200);
        add(&mut message, 300..400);
        assert_eq!(add(&mut message, 50..350), Added::New);
        assert_eq!(message.received(), 350);
        assert_eq!(add(&mut message, 0..1000), Added::New);
        assert_eq!(message.into_bytes(), pattern(1000));
    }

    #[test]
    fn bytes_outside_the_message_or_far_beyond_the_grant_are_refused() {
        let mut message = InMessage::new(500_000, 40_000, 40_000);
        assert_eq!(message.add(499_999, &[1, 2]), Added::Refused);
        assert_eq!(message.add(u32::MAX, &[1, 2]), Added::Refused);
        assert_eq!(message.add(0, &[]), Added::Refused);
        assert_eq!(message.add(40_000 + 65_536, &[1]), Added::Refused);
        assert_eq!(message.add(40_000 + 65_535, &[1]), Added::New);
        assert!(message.reserved() <= 2 * (40_000 + 65_536));
    }

    #[test]
    fn the_number_of_gaps_is_bounded() {
        let mut message = InMessage::new(1_000_000, 1_000_000, 0);
        for i in 0..5_000 {
            message.add(i * 100 + 50, &[7]);
        }
        assert!(message.gaps.len() <= GAPS_MAX);
        let data = pattern(1_000_000);
        for i in 0..10_000 {
            message.add(i * 100, &data[index(i * 100)..index((i + 1) * 100)]);
        }
        assert!(message.is_complete(), "what was refused can come later");
    }

    #[test]
    fn a_message_that_waits_for_a_grant_has_all_it_can_have() {
        let mut message = InMessage::new(1000, 400, 400);
        add(&mut message, 0..400);
        assert!(message.has_all_granted());
        message.grant(700, Instant::ZERO);
        assert!(!message.has_all_granted());
        assert_eq!(
            message.missing(u32::MAX).collect::<Vec<_>>(),
            [Range {
                start: 400,
                end: 700
            }]
        );
    }
}
