//! What is to be sent again of one message, and what was sent too lately for that.
//!
//! A RESEND that comes before the copy sent last can have arrived, or one whose answer still waits to be
//! sent, says nothing new: answered, it would fill a way that overflows with copies.

use std::ops::Range;
use std::time::Duration;

use crate::units::{Instant, Priority};

/// Ranges waiting to be sent again. What is asked for beyond is dropped, and asked for again.
const QUEUED_MAX: usize = 64;
/// Times of sending remembered.
const TIMES_MAX: usize = 64;
/// Packets that follow one another within this time are remembered as one.
const TOGETHER: Duration = Duration::from_millis(1);

/// A range to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Queued {
    range: Range<u32>,
    incoming: u32,
    /// The level asked for, if the bytes seem to be lost.
    priority: Option<Priority>,
}

/// When packets were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flight {
    range: Range<u32>,
    at: Instant,
}

/// Retransmits of parts of one message.
#[derive(Debug, Default)]
pub(crate) struct Retransmits {
    /// They do not overlap.
    queued: Vec<Queued>,
    last: Option<Flight>,
    /// Those before the last.
    flights: Vec<Flight>,
}

/// What a RESEND asks for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Whole packets.
    pub(crate) range: Range<u32>,
    /// End of what was asked for.
    pub(crate) incoming: u32,
    pub(crate) priority: Option<Priority>,
}

impl Retransmits {
    pub(crate) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Bytes waiting to be sent again.
    pub(crate) fn bytes(&self) -> u32 {
        let bytes = self
            .queued
            .iter()
            .map(|queued| queued.range.end - queued.range.start);
        bytes.fold(0, u32::saturating_add)
    }

    pub(crate) fn clear(&mut self) {
        self.queued.clear();
    }

    /// Where the next copy begins.
    pub(crate) fn next(&self) -> Option<u32> {
        self.queued.first().map(|queued| queued.range.start)
    }

    /// The packet up to `end` is taken from the first range. Returns its `incoming` and level.
    pub(crate) fn take(&mut self, end: u32) -> Option<(u32, Option<Priority>)> {
        let first = self.queued.first_mut()?;
        let taken = (first.incoming, first.priority);
        first.range.start = end;
        if first.range.start >= first.range.end {
            self.queued.remove(0);
        }
        Some(taken)
    }

    /// Queues what is asked for, except what waits already and what was sent after `sent_before`. Returns
    /// where that begins, if there is any.
    pub(crate) fn ask(&mut self, asked: &Asked, sent_before: Instant) -> Option<u32> {
        let mut parts = vec![asked.range.clone()];
        for queued in &self.queued {
            parts = without(parts, &queued.range);
        }
        for flight in self.flights.iter().chain(&self.last) {
            if flight.at > sent_before {
                parts = without(parts, &flight.range);
            }
        }
        let first = parts.first().map(|part| part.start);
        for part in parts {
            self.push(part, asked);
        }
        first
    }

    fn push(&mut self, part: Range<u32>, asked: &Asked) {
        let follows = |queued: &&mut Queued| {
            queued.range.end == part.start && queued.priority == asked.priority
        };
        if let Some(queued) = self.queued.last_mut().filter(follows) {
            queued.range.end = part.end;
            queued.incoming = queued.incoming.max(asked.incoming);
        } else if self.queued.len() < QUEUED_MAX {
            self.queued.push(Queued {
                range: part,
                incoming: asked.incoming,
                priority: asked.priority,
            });
        }
    }

    /// A packet is sent, for the first time or again.
    pub(crate) fn on_sent(&mut self, range: &Range<u32>, now: Instant) {
        if let Some(last) = &mut self.last {
            let together = now.saturating_since(last.at) < TOGETHER;
            if together && last.range.end == range.start {
                last.range.end = range.end;
                return;
            }
            if self.flights.len() >= TIMES_MAX {
                self.flights.remove(0);
            }
            self.flights.push(last.clone());
        }
        let range = range.clone();
        self.last = Some(Flight { range, at: now });
    }

    #[cfg(test)]
    pub(in crate::endpoint) fn is_bounded(&self) -> bool {
        self.queued.len() <= QUEUED_MAX && self.flights.len() <= TIMES_MAX
    }
}

/// What of `parts` lies outside `cut`.
fn without(parts: Vec<Range<u32>>, cut: &Range<u32>) -> Vec<Range<u32>> {
    let outside = |part: Range<u32>| {
        let before = part.start..part.end.min(cut.start);
        let behind = part.start.max(cut.end)..part.end;
        [before, behind]
    };
    let pieces = parts.into_iter().flat_map(outside);
    pieces.filter(|piece| piece.start < piece.end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn asked(range: Range<u32>) -> Asked {
        Asked {
            incoming: range.end,
            range,
            priority: None,
        }
    }

    fn drain(copies: &mut Retransmits) -> Vec<u32> {
        let mut starts = Vec::new();
        while let Some(start) = copies.next() {
            starts.push(start);
            copies.take(start + 100);
        }
        starts
    }

    #[test]
    fn what_waits_to_be_sent_is_not_queued_a_second_time() {
        let mut copies = Retransmits::default();
        assert_eq!(copies.ask(&asked(100..400), at(10)), Some(100));
        assert_eq!(copies.ask(&asked(100..400), at(10)), None);
        assert_eq!(copies.ask(&asked(0..500), at(10)), Some(0));
        assert_eq!(copies.bytes(), 500);
        let mut starts = drain(&mut copies);
        starts.sort_unstable();
        assert_eq!(starts, [0, 100, 200, 300, 400]);
    }

    #[test]
    fn what_was_sent_lately_may_still_arrive() {
        let mut copies = Retransmits::default();
        for (number, start) in [0, 100, 200].into_iter().enumerate() {
            copies.on_sent(&(start..start + 100), at(2 * number as u64));
        }
        assert_eq!(copies.ask(&asked(0..300), at(1)), Some(0));
        assert_eq!(drain(&mut copies), [0], "the others were sent later");
        assert_eq!(copies.ask(&asked(0..300), at(4)), Some(0));
        assert_eq!(drain(&mut copies), [0, 100, 200]);
    }

    #[test]
    fn hostile_ranges_stay_bounded() {
        let mut copies = Retransmits::default();
        for number in 0..10_000u32 {
            let start = number.wrapping_mul(7_919) % 1_000_000;
            copies.ask(&asked(start..start + 1), at(0));
            copies.on_sent(&(start..start + 1), at(u64::from(number)));
        }
        assert!(copies.is_bounded());
    }
}
