//! Sending of one message: cursors of what may go and has gone, ranges to send again.

use std::ops::Range;
use std::time::Duration;

use crate::endpoint::messages::retransmit::{Asked, Retransmits};
use crate::endpoint::messages::start::Start;
use crate::message::Message;
use crate::units::{Instant, Priority};

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
    retransmits: Retransmits,
    stuck: Stuck,
    round: Round,
    resend_run: ResendRun,
    /// Up to here everything has arrived, as far as RESENDs have shown.
    arrived: u32,
    /// It goes by grants alone.
    start: Option<Start>,
}

/// The packet that is asked for again and again.
#[derive(Clone, Copy, Debug, Default)]
struct Stuck {
    start: u32,
    times: u32,
    first: Instant,
    last: Instant,
}

/// For how long RESENDs came for a message after its last byte was sent.
#[derive(Clone, Copy, Debug, Default)]
struct ResendRun {
    /// When its first and its last byte were sent for the first time.
    began: Instant,
    ended: Instant,
    /// The byte from which on RESENDs ask since then, how many have, and when the last of them came.
    start: u32,
    asked: u32,
    asked_last: Instant,
}

/// RESENDs in a row after which the message is rather on its way than lost.
const ON_ITS_WAY: u32 = 3;
/// The pause between copies of one packet doubles up to this many times.
const PAUSE_DOUBLINGS_MAX: u32 = 3;
/// And to no more than this.
const DOUBLED_PAUSE_MAX: Duration = Duration::from_millis(80);

/// The bytes that RESENDs ask for at one time.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    began: Instant,
    bytes: u32,
    /// The same the time before.
    before: u32,
}

/// RESENDs that come within this time of the first are sent together.
const ROUND: Duration = Duration::from_millis(1);

/// Times that a packet was sent in vain that mean that it is too long for its way.
const SENT_IN_VAIN: u32 = 3;
/// A packet that was not asked for again for so long has arrived.
const NOT_STUCK: Duration = Duration::from_millis(250);

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

impl ResendRun {
    /// A RESEND asks for the bytes from `start` on. The others that come with it do not count.
    fn on_asked(&mut self, start: u32, now: Instant) {
        if self.asked > 0 && now.saturating_since(self.asked_last) < ROUND {
            return;
        }
        // What lies before another start has arrived.
        let again = self.asked > 0 && start == self.start;
        self.asked = if again { self.asked + 1 } else { 1 };
        (self.start, self.asked_last) = (start, now);
    }
}

impl Round {
    /// A RESEND asks for so many bytes. True if those before it asked for less in all than the ones at
    /// the time before.
    fn asks_for_less(&mut self, bytes: u32, now: Instant) -> bool {
        let begins = now.saturating_since(self.began) >= ROUND;
        let less = begins && self.bytes < self.before;
        if begins {
            *self = Self {
                began: now,
                bytes: 0,
                before: self.bytes,
            };
        }
        self.bytes = self.bytes.saturating_add(bytes);
        less
    }
}

impl OutMessage {
    /// All but the bytes, to be compared.
    #[cfg(feature = "sim")]
    pub(in crate::endpoint) fn standing(&self) -> impl std::fmt::Debug {
        let cursors = (self.unscheduled, self.granted, self.sent, self.arrived);
        let lost = (self.stuck, self.round);
        (cursors, self.scheduled_priority, lost, self.start)
    }

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
            retransmits: Retransmits::default(),
            stuck: Stuck::default(),
            round: Round::default(),
            resend_run: ResendRun::default(),
            arrived: 0,
            start: None,
        }
    }

    /// Lets the message go by grants alone, unless all of it may go unasked. Before anything is sent.
    pub(in crate::endpoint) const fn go_by_grants(&mut self) {
        if self.length > self.unscheduled {
            self.start = Some(Start::new(self.unscheduled));
            self.unscheduled = 0;
            self.granted = 0;
        }
    }

    /// Lets its first bytes go unasked after all.
    pub(in crate::endpoint) fn go_unasked(&mut self) {
        if let Some(start) = self.start.take() {
            self.unscheduled = start.unscheduled();
            self.granted = self.granted.max(self.unscheduled);
        }
    }

    /// True if it goes by grants alone.
    pub(in crate::endpoint) const fn goes_by_grants(&self) -> bool {
        self.start.is_some()
    }

    /// Of a message that goes by grants alone and has none yet: its state.
    pub(in crate::endpoint) const fn awaits_first_grant(&mut self) -> Option<&mut Start> {
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
        self.sent >= self.length && self.retransmits.is_empty()
    }

    /// True if something may be sent now.
    pub(crate) fn is_sendable(&self) -> bool {
        !self.retransmits.is_empty() || self.sent < self.granted
    }

    /// Bytes to be sent for the first time or again.
    pub(crate) fn remaining(&self) -> u32 {
        (self.length - self.sent).saturating_add(self.retransmits.bytes())
    }

    /// What is still to come, besides it, of the whole that it is a part of.
    pub(crate) const fn following(&self) -> u32 {
        self.message.following()
    }

    /// Bytes left of it and of that whole: what SRPT ranks by.
    pub(crate) fn remaining_of_whole(&self) -> u32 {
        self.remaining().saturating_add(self.following())
    }

    /// Takes a GRANT: raises the limit, never lowers it; the level always counts. True if it is raised.
    /// Source: homa_incoming.c, `homa_grant_pkt`.
    pub(crate) fn grant(&mut self, offset: u32, priority: Priority) -> bool {
        let before = self.granted;
        self.granted = before.max(offset.min(self.length));
        self.scheduled_priority = priority;
        self.granted > before
    }

    /// Takes a RESEND of `[offset, offset + length)`, `length` `None` meaning all that was sent.
    /// Returns true if data will follow; false asks for BUSY, since nothing of it was sent yet.
    /// A range beyond the grant means that a GRANT was lost. A few bytes are sent again at `priority`,
    /// many at the level at which they went before. Source: homa_incoming.c, `homa_resend_pkt`;
    /// differs: there all go at `priority`, which is the highest, and before all other messages. A
    /// receiver that waits for a long message on a slow link would fill it with copies that overtake
    /// short messages. What was sent within `pause` may still arrive, and is not sent again.
    pub(crate) fn resend(
        &mut self,
        offset: u32,
        length: Option<u32>,
        priority: Priority,
        (now, pause): (Instant, Duration),
    ) -> bool {
        if offset >= self.length {
            // There is no such byte, nor ever will be: BUSY would make the peer wait for ever.
            return true;
        }
        let end = length.map_or(self.sent, |length| offset.saturating_add(length));
        let sent_before = self.sent;
        if self.is_all_sent() && !pause.is_zero() {
            self.resend_run.on_asked(offset, now);
        }
        let range = offset..end.min(self.sent);
        let bytes = range.end.saturating_sub(range.start);
        if self.round.asks_for_less(bytes, now) {
            // So packets have arrived since.
            self.forget_stuck();
        }
        let lost = bytes <= LOST_BYTES_MAX;
        let doubled = pause.saturating_mul(1 << self.pause_doublings(&range));
        let pause = doubled.min(DOUBLED_PAUSE_MAX.max(pause));
        self.queue_copies(range, lost.then_some(priority), now, pause);
        if end > self.granted {
            self.granted = end.min(self.length);
        }
        offset < sent_before
    }

    /// A packet that is asked for again and again is rather on a long way than lost each time.
    fn pause_doublings(&self, asked: &Range<u32>) -> u32 {
        if asked.contains(&self.stuck.start) {
            self.stuck.times.min(PAUSE_DOUBLINGS_MAX)
        } else {
            0
        }
    }

    /// Sends everything again that was sent, except within `pause`, because the receiver knows nothing of
    /// it. Source: homa_incoming.c, `homa_rpc_unknown_pkt`.
    pub(crate) fn restart(&mut self, now: Instant, pause: Duration) {
        if self.start.is_some() && self.sent < self.length {
            // It begins anew, by START_MSG. What was granted is void.
            self.forget_resends();
            (self.sent, self.granted, self.arrived) = (0, 0, 0);
        }
        self.queue_copies(0..self.sent, None, now, pause);
    }

    /// Drops what was to be sent again.
    pub(crate) fn forget_resends(&mut self) {
        self.retransmits.clear();
    }

    fn queue_copies(
        &mut self,
        range: Range<u32>,
        priority: Option<Priority>,
        now: Instant,
        pause: Duration,
    ) {
        if range.start >= range.end {
            return;
        }
        let asked = Asked {
            range: self.segment_at(range.start).start..self.segment_at(range.end - 1).end,
            incoming: range.end,
            priority,
        };
        let sent_before = Instant::from_nanos(
            now.as_nanos()
                .saturating_sub(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)),
        );
        if let Some(start) = self.retransmits.ask(&asked, sent_before) {
            self.on_asked_again(start, now);
        }
    }

    fn on_asked_again(&mut self, start: u32, now: Instant) {
        let stuck = &mut self.stuck;
        let again = stuck.times > 0 && start == stuck.start;
        let arrived = now.saturating_since(stuck.last) >= NOT_STUCK;
        if again {
            stuck.times += 1;
            stuck.last = now;
        } else if stuck.times == 0 || start < stuck.start || arrived {
            *stuck = Stuck {
                start,
                times: 1,
                first: now,
                last: now,
            };
        }
    }

    /// How much data the packet holds that was asked for in vain too often, and since when.
    pub(crate) fn stuck(&self) -> Option<(u32, Instant)> {
        let segment = self.segment_at(self.stuck.start.min(self.length - 1));
        let stuck = self.stuck.times >= SENT_IN_VAIN;
        stuck.then(|| (segment.end - segment.start, self.stuck.first))
    }

    /// How long after its last byte was sent RESENDs for the message went on to come: about what it takes to
    /// the receiver and back, if nothing of it had to be granted.
    pub(crate) fn resends_went_on_for(&self) -> Option<Duration> {
        let run = &self.resend_run;
        let unasked = self.is_all_sent() && self.unscheduled == self.length;
        (unasked && run.asked >= ON_ITS_WAY).then(|| run.asked_last.saturating_since(run.ended))
    }

    /// When its first byte was sent for the first time.
    pub(crate) fn began(&self) -> Option<Instant> {
        (self.sent > 0).then_some(self.resend_run.began)
    }

    /// Begins to count anew.
    pub(crate) fn forget_stuck(&mut self) {
        self.stuck = Stuck::default();
    }

    /// End of its first packet.
    pub(crate) fn first_end(&self) -> u32 {
        self.segment_at(0).end
    }

    /// Whether a RESEND from `offset` on shows for the first time that the packets before it have
    /// arrived: it does not if one of those was asked for lately.
    pub(crate) fn shows_arrival(&mut self, offset: u32, now: Instant) -> bool {
        let stuck = &self.stuck;
        let recent = now.saturating_since(stuck.last) < NOT_STUCK;
        let lacks_earlier = stuck.times > 0 && stuck.start < offset && recent;
        let shows = !lacks_earlier && offset >= self.segment_at(0).end && offset > self.arrived;
        if shows {
            self.arrived = offset;
        }
        shows
    }

    /// The next packet to send, if any: what is to be sent again first. A packet may go when its
    /// first byte is granted.
    pub(crate) fn next_segment(&mut self, now: Instant) -> Option<Segment> {
        let again = self.retransmits.next();
        if again.is_none() && self.sent >= self.granted {
            return None;
        }
        let range = self.segment_at(again.unwrap_or(self.sent));
        let kind = if range.start < self.unscheduled {
            SegmentKind::Unscheduled
        } else {
            SegmentKind::Scheduled(self.scheduled_priority)
        };
        self.retransmits.on_sent(&range, now);
        if let Some((incoming, priority)) = self.retransmits.take(range.end) {
            return Some(Segment {
                range,
                incoming,
                kind: priority.map_or(kind, SegmentKind::Scheduled),
                resent: true,
            });
        }
        if self.sent == 0 {
            self.resend_run.began = now;
        }
        self.sent = range.end;
        self.resend_run.ended = now;
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

    const NOW: Instant = Instant::from_nanos(1_000_000_000);
    /// Any copy sent so far has arrived by now, or is lost.
    const LATER: (Instant, Duration) = (NOW, Duration::ZERO);

    fn message(length: usize) -> OutMessage {
        OutMessage::new(Message::from(vec![0; length]), 40_000, 1424, 1424)
    }

    fn drain(message: &mut OutMessage) -> Vec<Range<u32>> {
        std::iter::from_fn(|| message.next_segment(NOW).map(|segment| segment.range)).collect()
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
        assert!(message.resend(1500, Some(1500), Priority::HIGHEST, LATER));
        let first = message.next_segment(NOW).unwrap();
        assert_eq!(first.range, 1424..2848);
        assert_eq!(first.incoming, 3000);
        assert_eq!(first.kind, SegmentKind::Scheduled(Priority::HIGHEST));
        assert!(first.resent);
        assert_eq!(message.remaining(), 1_424, "the rest of what was asked for");
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
        message.resend(0, Some(LOST_BYTES_MAX + 1), Priority::HIGHEST, LATER);
        assert_eq!(
            message.next_segment(NOW).unwrap().kind,
            SegmentKind::Unscheduled
        );
        drain(&mut message);
        message.resend(50_000, Some(50_000), Priority::HIGHEST, LATER);
        let late = message.next_segment(NOW).unwrap();
        assert_eq!(late.kind, SegmentKind::Scheduled(Priority::LOWEST));
        drain(&mut message);
        message.resend(50_000, Some(LOST_BYTES_MAX), Priority::HIGHEST, LATER);
        let lost = message.next_segment(NOW).unwrap();
        assert_eq!(lost.kind, SegmentKind::Scheduled(Priority::HIGHEST));
    }

    #[test]
    fn a_resend_beyond_the_grant_raises_it_and_asks_for_busy() {
        let mut message = message(100_000);
        drain(&mut message);
        assert!(!message.resend(40_000, Some(20_000), Priority::HIGHEST, LATER));
        let packets = drain(&mut message);
        assert_eq!(packets.first(), Some(&(40_000..41_424)));
        assert!(message.sent() >= 60_000 && message.sent() < 62_000);
    }

    #[test]
    fn repeated_resends_of_one_range_are_sent_once() {
        let mut message = message(10_000);
        drain(&mut message);
        for _ in 0..1000 {
            message.resend(0, None, Priority::HIGHEST, LATER);
        }
        assert_eq!(drain(&mut message).len(), 8);
        for i in 0..1000 {
            message.resend((i * 37) % 10_000, Some(1), Priority::HIGHEST, LATER);
        }
        assert!(message.retransmits.is_bounded());
    }

    #[test]
    fn a_packet_asked_for_in_vain_three_times_is_stuck_and_one_that_arrives_is_not() {
        let mut message = message(10_000);
        drain(&mut message);
        let at = |millis: u64| (NOW + Duration::from_millis(millis), Duration::ZERO);
        for round in 0..3 {
            assert_eq!(message.stuck(), None, "{round}");
            message.resend(0, Some(5_000), Priority::HIGHEST, at(round));
            message.resend(8_544, Some(1_456), Priority::HIGHEST, at(round));
            drain(&mut message);
        }
        assert_eq!(message.stuck(), Some((1_424, NOW)));
        message.resend(8_544, Some(1_456), Priority::HIGHEST, at(300));
        assert_eq!(message.stuck(), None);
    }

    #[test]
    fn a_part_is_ranked_by_what_is_left_of_the_whole() {
        let part = Message::from(vec![0; 10_000]).with_following(1_000_000);
        let mut part = OutMessage::new(part, 40_000, 1424, 1424);
        assert_eq!(part.remaining_of_whole(), 1_010_000);
        drain(&mut part);
        assert_eq!(
            (part.remaining(), part.remaining_of_whole()),
            (0, 1_000_000)
        );
        let endless = Message::from(vec![0; 10_000]).with_following(u64::MAX);
        let endless = OutMessage::new(endless, 40_000, 1424, 1424);
        assert_eq!(endless.remaining_of_whole(), u32::MAX);
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
        while let Some(segment) = message.next_segment(NOW) {
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
        message.resend(0, Some(50_000), Priority::HIGHEST, LATER);
        drain(&mut message);
        message.restart(LATER.0, LATER.1);
        assert!(message.awaits_first_grant().is_some() && !message.is_sendable());
        message.grant(100_000, Priority::LOWEST);
        assert_eq!(drain(&mut message).len(), 71);
        // It may have been executed by now: nothing says that it was not whole.
        message.restart(LATER.0, LATER.1);
        assert!(message.awaits_first_grant().is_none());
        assert_eq!(message.next_segment(NOW).unwrap().incoming, 100_000);
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
        assert!(message.resend(u32::MAX, Some(u32::MAX), Priority::HIGHEST, LATER));
        assert!(message.resend(5_000, None, Priority::HIGHEST, LATER));
        assert_eq!(drain(&mut message), []);
        assert!(message.resend(0, Some(u32::MAX), Priority::HIGHEST, LATER));
        assert_eq!(drain(&mut message).len(), 4);
    }
}
