//! Sending of one message: cursors of what may go and has gone, ranges to send again.

use std::ops::Range;

use super::start_msg::Start;
use crate::message::Message;
use crate::units::Priority;

/// Ranges waiting to be sent again; further requests are merged into the last one.
const RESENDS_MAX: usize = 64;

/// Of so many bytes asked for again one may assume that they were lost; more are rather late.
const LOST_BYTES_MAX: u32 = 10_000;

/// An outgoing message. Packets are cut at fixed places, so that one sent again is the same as
/// before: a receiver may drop packets that mix old and new bytes.
/// Source: homa_outgoing.c, `homa_message_out_fill`.
#[derive(Debug)]
pub(crate) struct OutMessage {
    message: Message,
    length: u32,
    unscheduled: u32,
    granted: u32,
    sent: u32,
    segment_bytes: u32,
    /// The same beyond the unscheduled part; differs only in simulated experiments.
    scheduled_segment_bytes: u32,
    scheduled_priority: Priority,
    resends: Vec<Resend>,
    /// It goes by grants alone.
    start: Option<Start>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Resend {
    range: Range<u32>,
    incoming: u32,
    /// The level asked for, if the bytes seem to be lost.
    priority: Option<Priority>,
}

/// One packet's worth of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) range: Range<u32>,
    /// Value of the header's `incoming`.
    pub(crate) incoming: u32,
    pub(crate) kind: SegmentKind,
    /// It was sent before.
    pub(crate) resent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentKind {
    /// Bytes that need no grant.
    Unscheduled,
    /// Granted bytes, or such that are lost, at the level the receiver named.
    Scheduled(Priority),
}

impl OutMessage {
    /// A message whose first `unscheduled` bytes need no grant, in packets of `segment_bytes`; the
    /// others go in packets of `scheduled_segment_bytes`.
    ///
    /// # Panics
    /// If the length does not fit the protocol; the caller has checked it.
    pub(crate) fn new(
        message: Message,
        unscheduled: u32,
        segment_bytes: u32,
        scheduled_segment_bytes: u32,
    ) -> Self {
        let length = u32::try_from(message.len()).unwrap_or(0);
        assert!(
            length > 0 && segment_bytes > 0 && scheduled_segment_bytes > 0,
            "{length} bytes in packets of {segment_bytes} and {scheduled_segment_bytes}"
        );
        let unscheduled = unscheduled.min(length);
        Self {
            message,
            length,
            unscheduled,
            granted: unscheduled,
            sent: 0,
            segment_bytes,
            scheduled_segment_bytes,
            scheduled_priority: Priority::LOWEST,
            resends: Vec::new(),
            start: None,
        }
    }

    /// Lets the message go by grants alone, unless all of it may go unasked. Before anything is sent.
    pub(super) const fn go_by_grants(&mut self) {
        if self.length > self.unscheduled {
            self.start = Some(Start::new(self.unscheduled));
            self.unscheduled = 0;
            self.granted = 0;
        }
    }

    /// Lets its first bytes go unasked after all.
    pub(super) fn go_unasked(&mut self) {
        if let Some(start) = self.start.take() {
            self.unscheduled = start.unscheduled();
            self.granted = self.granted.max(self.unscheduled);
        }
    }

    /// True if it goes by grants alone.
    pub(super) const fn goes_by_grants(&self) -> bool {
        self.start.is_some()
    }

    /// Of a message that goes by grants alone and has none yet: its state.
    pub(super) const fn awaits_first_grant(&mut self) -> Option<&mut Start> {
        if self.granted > 0 {
            return None;
        }
        self.start.as_mut()
    }

    /// Takes the bytes away; nothing can be sent after that.
    pub(crate) fn take_message(&mut self) -> Message {
        std::mem::take(&mut self.message)
    }

    pub(crate) const fn length(&self) -> u32 {
        self.length
    }

    /// Bytes of the message below `range.end` from `range.start`, sharing memory.
    pub(crate) fn slice(&self, range: &Range<u32>) -> Message {
        self.message.slice(range.start as usize, range.end as usize)
    }

    /// End of what has been sent at least once.
    pub(crate) const fn sent(&self) -> u32 {
        self.sent
    }

    /// True if it goes in one packet.
    pub(crate) fn is_one_packet(&self) -> bool {
        self.length <= self.unscheduled.min(self.segment_bytes)
    }

    /// True if every byte has been sent at least once and nothing waits to be sent again.
    pub(crate) fn is_all_sent(&self) -> bool {
        self.sent >= self.length && self.resends.is_empty()
    }

    /// True if something may be sent now.
    pub(crate) fn is_sendable(&self) -> bool {
        !self.resends.is_empty() || self.sent < self.granted
    }

    /// Bytes to be sent for the first time or again: what SRPT ranks by.
    pub(crate) fn remaining(&self) -> u32 {
        let again: u32 = self
            .resends
            .iter()
            .map(|resend| resend.range.end - resend.range.start)
            .fold(0, u32::saturating_add);
        (self.length - self.sent).saturating_add(again)
    }

    /// Takes a GRANT: raises the limit, never lowers it; the level always counts.
    /// Source: homa_incoming.c, `homa_grant_pkt`.
    pub(crate) fn grant(&mut self, offset: u32, priority: Priority) {
        self.granted = self.granted.max(offset.min(self.length));
        self.scheduled_priority = priority;
    }

    /// Takes a RESEND of `[offset, offset + length)`, `length` `None` meaning all that was sent.
    /// Returns true if data will follow; false asks for BUSY, since nothing of it was sent yet.
    /// A range beyond the grant means that a GRANT was lost. A few bytes are sent again at `priority`,
    /// many at the level at which they went before. Source: homa_incoming.c, `homa_resend_pkt`;
    /// differs: there all go at `priority`, which is the highest, and before all other messages. A
    /// receiver that waits for a long message on a slow link would fill it with copies that overtake
    /// short messages.
    pub(crate) fn resend(&mut self, offset: u32, length: Option<u32>, priority: Priority) -> bool {
        if offset >= self.length {
            // There is no such byte, nor ever will be: BUSY would make the peer wait for ever.
            return true;
        }
        let end = length.map_or(self.sent, |length| offset.saturating_add(length));
        let sent_before = self.sent;
        let range = offset..end.min(self.sent);
        let lost = range.end.saturating_sub(range.start) <= LOST_BYTES_MAX;
        self.queue_resend(range, lost.then_some(priority));
        if end > self.granted {
            self.granted = end.min(self.length);
        }
        offset < sent_before
    }

    /// Sends everything again that was sent, because the receiver knows nothing of it.
    /// Source: homa_incoming.c, `homa_rpc_unknown_pkt`.
    pub(crate) fn restart(&mut self) {
        self.resends.clear();
        if self.start.is_some() && self.sent < self.length {
            // It begins anew, by START_MSG. What was granted is void.
            (self.sent, self.granted) = (0, 0);
        }
        self.queue_resend(0..self.sent, None);
    }

    /// Drops what was to be sent again.
    pub(crate) fn forget_resends(&mut self) {
        self.resends.clear();
    }

    fn queue_resend(&mut self, range: Range<u32>, priority: Option<Priority>) {
        if range.start >= range.end {
            return;
        }
        let full = self.resends.len() >= RESENDS_MAX;
        let overlapping = self.resends.iter_mut().find(|queued| {
            full || (queued.range.start <= range.end && range.start <= queued.range.end)
        });
        match overlapping {
            Some(queued) => {
                queued.range.start = queued.range.start.min(range.start);
                queued.range.end = queued.range.end.max(range.end);
                queued.incoming = queued.incoming.max(range.end);
                queued.priority = priority;
            }
            None => self.resends.push(Resend {
                incoming: range.end,
                range,
                priority,
            }),
        }
    }

    /// The next packet to send, if any: what is to be sent again first. A packet may go when its
    /// first byte is granted.
    pub(crate) fn next_segment(&mut self) -> Option<Segment> {
        let again = self.resends.first().map(|resend| resend.range.start);
        let range = self.segment_at(again.unwrap_or(self.sent));
        let kind = if range.start < self.unscheduled {
            SegmentKind::Unscheduled
        } else {
            SegmentKind::Scheduled(self.scheduled_priority)
        };
        if let Some(resend) = self.resends.first_mut() {
            let incoming = resend.incoming;
            let kind = resend.priority.map_or(kind, SegmentKind::Scheduled);
            resend.range.start = range.end;
            if resend.range.start >= resend.range.end {
                self.resends.remove(0);
            }
            return Some(Segment {
                range,
                incoming,
                kind,
                resent: true,
            });
        }
        if self.sent >= self.granted {
            return None;
        }
        self.sent = range.end;
        Some(Segment {
            range,
            // 0 would say that all comes unasked.
            incoming: self.start.map_or(self.unscheduled, |_| self.granted),
            kind,
            resent: false,
        })
    }

    /// The packet that holds byte `offset`: packets start at multiples of the segment size, with
    /// one extra cut at the unscheduled limit.
    fn segment_at(&self, offset: u32) -> Range<u32> {
        let (base, limit, bytes) = if offset < self.unscheduled {
            (0, self.unscheduled, self.segment_bytes)
        } else {
            (self.unscheduled, self.length, self.scheduled_segment_bytes)
        };
        let start = base + (offset - base) / bytes * bytes;
        start..start.saturating_add(bytes).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> OutMessage {
        OutMessage::new(Message::from(vec![0; length]), 40_000, 1424, 1424)
    }

    fn drain(message: &mut OutMessage) -> Vec<Range<u32>> {
        std::iter::from_fn(|| message.next_segment().map(|segment| segment.range)).collect()
    }

    #[test]
    fn the_unscheduled_part_is_cut_as_the_module_cuts_it() {
        let mut message = message(200_000);
        let packets = drain(&mut message);
        assert_eq!(packets.len(), 29);
        assert_eq!(packets[1], 1424..2848);
        assert_eq!(packets[28], 39_872..40_000);
        assert!(!message.is_sendable());
        message.grant(40_001, Priority::LOWEST);
        assert_eq!(
            drain(&mut message),
            [Range {
                start: 40_000,
                end: 41_424
            }]
        );
    }

    #[test]
    fn a_resend_repeats_the_original_packets_that_overlap_it() {
        let mut message = message(10_000);
        drain(&mut message);
        assert!(message.resend(1500, Some(1500), Priority::HIGHEST));
        let first = message.next_segment().unwrap();
        assert_eq!(first.range, 1424..2848);
        assert_eq!(first.incoming, 3000);
        assert_eq!(first.kind, SegmentKind::Scheduled(Priority::HIGHEST));
        assert!(first.resent);
        assert_eq!(message.remaining(), 152, "the rest of what was asked for");
        assert_eq!(
            drain(&mut message),
            [Range {
                start: 2848,
                end: 4272
            }]
        );
    }

    #[test]
    fn much_that_is_asked_for_again_is_late_rather_than_lost_and_keeps_its_level() {
        let mut message = message(100_000);
        message.grant(100_000, Priority::LOWEST);
        drain(&mut message);
        message.resend(0, Some(LOST_BYTES_MAX + 1), Priority::HIGHEST);
        assert_eq!(
            message.next_segment().unwrap().kind,
            SegmentKind::Unscheduled
        );
        drain(&mut message);
        message.resend(50_000, Some(50_000), Priority::HIGHEST);
        let late = message.next_segment().unwrap();
        assert_eq!(late.kind, SegmentKind::Scheduled(Priority::LOWEST));
        drain(&mut message);
        message.resend(50_000, Some(LOST_BYTES_MAX), Priority::HIGHEST);
        let lost = message.next_segment().unwrap();
        assert_eq!(lost.kind, SegmentKind::Scheduled(Priority::HIGHEST));
    }

    #[test]
    fn a_resend_beyond_the_grant_raises_it_and_asks_for_busy() {
        let mut message = message(100_000);
        drain(&mut message);
        assert!(!message.resend(40_000, Some(20_000), Priority::HIGHEST));
        let packets = drain(&mut message);
        assert_eq!(packets.first(), Some(&(40_000..41_424)));
        assert!(message.sent() >= 60_000 && message.sent() < 62_000);
    }

    #[test]
    fn repeated_resends_of_one_range_are_sent_once() {
        let mut message = message(10_000);
        drain(&mut message);
        for _ in 0..1000 {
            message.resend(0, None, Priority::HIGHEST);
        }
        assert_eq!(drain(&mut message).len(), 8);
        for i in 0..1000 {
            message.resend((i * 37) % 10_000, Some(1), Priority::HIGHEST);
        }
        assert!(message.resends.len() <= RESENDS_MAX);
    }

    #[test]
    fn a_grant_never_lowers_the_limit_but_its_level_counts() {
        let mut message = message(100_000);
        message.grant(80_000, Priority::LOWEST);
        message.grant(50_000, Priority::HIGHEST);
        drain(&mut message);
        assert!(message.sent() >= 80_000);
        message.grant(u32::MAX, Priority::LOWEST);
        drain(&mut message);
        assert!(message.is_all_sent());
        assert_eq!(message.remaining(), 0);
    }

    #[test]
    fn a_message_that_goes_by_grants_alone_says_how_far_it_is_granted() {
        let mut message = message(100_000);
        message.go_by_grants();
        assert!(message.awaits_first_grant().is_some());
        assert!(!message.is_sendable());
        message.grant(50_000, Priority::LOWEST);
        assert!(message.awaits_first_grant().is_none());
        let mut sent = 0;
        while let Some(segment) = message.next_segment() {
            let scheduled = SegmentKind::Scheduled(Priority::LOWEST);
            assert_eq!((segment.incoming, segment.kind), (50_000, scheduled));
            assert_eq!(segment.range.start, sent);
            sent = segment.range.end;
        }
        assert!((50_000..51_424).contains(&sent));
    }

    #[test]
    fn a_message_that_begins_anew_waits_for_its_first_grant_unless_all_of_it_went() {
        let mut message = message(100_000);
        message.go_by_grants();
        // The grant was lost, and a RESEND says as much.
        message.resend(0, Some(50_000), Priority::HIGHEST);
        drain(&mut message);
        message.restart();
        assert!(message.awaits_first_grant().is_some() && !message.is_sendable());
        message.grant(100_000, Priority::LOWEST);
        assert_eq!(drain(&mut message).len(), 71);
        // It may have been executed by now: nothing says that it was not whole.
        message.restart();
        assert!(message.awaits_first_grant().is_none());
        assert_eq!(message.next_segment().unwrap().incoming, 100_000);
    }

    #[test]
    fn a_message_that_goes_unasked_after_all_is_cut_as_if_it_always_had() {
        let mut message = message(100_000);
        message.go_by_grants();
        message.go_unasked();
        let packets = drain(&mut message);
        assert_eq!(
            (packets.len(), packets.last()),
            (29, Some(&(39_872..40_000)))
        );
        let mut short = OutMessage::new(Message::from(vec![0; 40_000]), 40_000, 1424, 1424);
        short.go_by_grants();
        assert!(short.is_sendable(), "all of it may go unasked");
    }

    #[test]
    fn hostile_ranges_do_no_harm() {
        let mut message = message(5_000);
        drain(&mut message);
        assert!(message.resend(u32::MAX, Some(u32::MAX), Priority::HIGHEST));
        assert!(message.resend(5_000, None, Priority::HIGHEST));
        assert_eq!(drain(&mut message), []);
        assert!(message.resend(0, Some(u32::MAX), Priority::HIGHEST));
        assert_eq!(drain(&mut message).len(), 4);
    }
}
