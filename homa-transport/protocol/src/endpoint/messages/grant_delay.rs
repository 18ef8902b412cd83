//! How late what was granted comes: a silence as long as that is no sign of loss.
//!
//! The interval of RESENDs suits a fast network. On a slow link, or behind shorter messages, granted
//! bytes wait longer than that in the sender and in switches; asking for them again would fill the link
//! with copies. So the time from a grant to the arrival of its last byte is measured, by packets that
//! are not marked as sent again.

use std::time::Duration;

use crate::units::Instant;

/// Longest silence for the sake of which a RESEND is put off: a round trip of a way of 100 ms.
const SILENCE_MAX: Duration = Duration::from_millis(250);

/// What was measured of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GrantDelay {
    /// The worst of late, in nanoseconds; every measurement takes an eighth off it.
    worst: u64,
}

impl GrantDelay {
    /// Granted bytes have come after this time.
    pub(crate) fn on_arrival(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.worst = took.max(self.worst - self.worst / 8);
    }

    /// True if what is granted may come later than the `usual` silence.
    pub(crate) fn is_slow(self, usual: Duration) -> bool {
        self.silence(usual) > usual
    }

    /// Silence before the first RESEND if `usual` is that on a fast network.
    pub(crate) fn silence(self, usual: Duration) -> Duration {
        let twice = Duration::from_nanos(self.worst).saturating_mul(2);
        usual.max(twice.min(SILENCE_MAX))
    }
}

/// Bytes that a slow peer is asked for first; twice as many each time as long as only what was asked
/// for comes.
const PROBE_BYTES: u32 = 10_000;

/// What one message waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DelayProbe {
    /// The byte whose arrival is measured, since when it may come, and whether that is because of a
    /// grant.
    byte_and_time: Option<(u32, Instant, bool)>,
    probe_bytes: u32,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Took {
    pub(crate) time: Duration,
    /// It is the time from a GRANT to its DATA.
    pub(crate) is_delay: bool,
}

impl Default for DelayProbe {
    fn default() -> Self {
        Self {
            byte_and_time: None,
            probe_bytes: PROBE_BYTES,
        }
    }
}

impl DelayProbe {
    /// The message is granted up to `offset`; `by_us`: now, by a GRANT of ours.
    pub(crate) fn on_grant(&mut self, offset: u32, now: Instant, by_us: bool) {
        self.byte_and_time
            .get_or_insert((offset.saturating_sub(1), now, by_us));
    }

    /// Bytes to ask for that are late or lost.
    pub(crate) fn probe(&mut self) -> u32 {
        let bytes = self.probe_bytes;
        self.probe_bytes = bytes.saturating_mul(2);
        bytes
    }

    /// Bytes `start..end` have come. Returns how long that took, zero for bytes sent again: that may have
    /// been for one reason or the other, but what was measured before has to fade even if all is lost once.
    pub(crate) fn on_data(
        &mut self,
        start: u32,
        end: u32,
        sent_again: bool,
        now: Instant,
    ) -> Option<Took> {
        if !sent_again {
            self.probe_bytes = PROBE_BYTES;
        }
        let (byte, granted_at, by_us) = self.byte_and_time?;
        if !(start..end).contains(&byte) {
            return None;
        }
        self.byte_and_time = None;
        let time = if sent_again {
            Duration::ZERO
        } else {
            now.saturating_since(granted_at)
        };
        Some(Took {
            time,
            is_delay: by_us && !sent_again,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_millis(5);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_fast_peer_is_asked_after_the_usual_silence_and_a_slow_one_later() {
        let mut grant_delay = GrantDelay::default();
        assert_eq!(grant_delay.silence(USUAL), USUAL);
        grant_delay.on_arrival(Duration::from_millis(2));
        assert_eq!(grant_delay.silence(USUAL), USUAL);
        grant_delay.on_arrival(Duration::from_millis(20));
        assert_eq!(grant_delay.silence(USUAL), Duration::from_millis(40));
        grant_delay.on_arrival(Duration::from_secs(3_600));
        assert_eq!(grant_delay.silence(USUAL), SILENCE_MAX);
        for _ in 0..200 {
            grant_delay.on_arrival(Duration::from_micros(10));
        }
        assert_eq!(grant_delay.silence(USUAL), USUAL);
        let longer = Duration::from_secs(1);
        assert_eq!(grant_delay.silence(longer), longer);
    }

    #[test]
    fn the_first_grant_that_waits_is_measured_by_the_packet_with_its_last_byte() {
        let mut awaited = DelayProbe::default();
        assert_eq!(awaited.on_data(0, 100, false, at(0)), None);
        awaited.on_grant(1_000, at(1), true);
        awaited.on_grant(2_000, at(2), true);
        assert_eq!(awaited.on_data(0, 999, false, at(3)), None);
        let took = awaited.on_data(999, 1_400, false, at(4));
        let expected = Took {
            time: Duration::from_millis(3),
            is_delay: true,
        };
        assert_eq!(took, Some(expected));
        assert_eq!(awaited.on_data(1_400, 2_000, false, at(5)), None);
    }

    #[test]
    fn more_is_asked_for_as_long_as_only_that_comes() {
        let mut awaited = DelayProbe::default();
        assert_eq!(awaited.probe(), 10_000);
        awaited.on_data(0, 10_000, true, at(1));
        assert_eq!(awaited.probe(), 20_000);
        awaited.on_data(10_000, 11_400, false, at(2));
        assert_eq!(awaited.probe(), 10_000, "what was late has come");
    }

    #[test]
    fn answers_to_resends_let_what_was_measured_fade() {
        let mut grant_delay = GrantDelay::default();
        grant_delay.on_arrival(Duration::from_millis(40));
        assert_eq!(grant_delay.silence(USUAL), Duration::from_millis(80));
        for _ in 0..30 {
            let mut awaited = DelayProbe::default();
            awaited.on_grant(1_000, at(0), true);
            let took = awaited.on_data(0, 1_000, true, at(9)).unwrap();
            assert!(!took.is_delay);
            grant_delay.on_arrival(took.time);
            assert_eq!(awaited.on_data(0, 1_000, false, at(9)), None);
        }
        assert_eq!(grant_delay.silence(USUAL), USUAL);
    }
}
