//! How long a peer takes to answer: what decides when a copy was lost, and when to ask for an ack.
//!
//! Only what cannot be the answer to something earlier is measured: DATA for a GRANT that was not sent
//! again, for the first RESEND of an RPC, the ACK for its first NEED_ACK, and for how long RESENDs for a
//! message go on to come. Smoothed as TCP does it. Source: RFC 6298, section 2.

use std::time::Duration;

use crate::units::{Instant, RpcId};

/// A NEED_ACK that is not answered for so long is not measured any more.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// Longest time for which a copy is taken to be on its way.
const COPY_MAX: Duration = Duration::from_millis(250);
/// Shortest and longest time after which a copy is known not to have arrived, if it is asked for again.
const IN_VAIN_MIN: Duration = Duration::from_millis(25);
const IN_VAIN_MAX: Duration = Duration::from_millis(250);
/// Shortest and longest wait for an ack of a peer whose delay is known.
const ACK_MIN: Duration = Duration::from_millis(2);
const ACK_MAX: Duration = Duration::from_secs(1);

/// The delay of one peer, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip {
    smoothed: u64,
    deviation: u64,
    /// Zero: nothing was measured.
    samples: u64,
    /// The least that the first GRANT for a message took.
    first_grant: Option<Duration>,
    /// The NEED_ACK whose answer is measured.
    need_ack: Option<(RpcId, Instant)>,
}

impl RoundTrip {
    /// An answer took so long.
    pub(crate) fn on_sample(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / 8);
        if self.samples == 0 {
            self.smoothed = took;
            self.deviation = took / 2;
        } else {
            let off = self.smoothed.abs_diff(took);
            self.deviation = (3 * self.deviation + off) / 4;
            self.smoothed = (7 * self.smoothed + took) / 8;
        }
        self.samples += 1;
    }

    /// The first GRANT for a message came so long after its beginning. The receiver may have let it wait, or
    /// the first packets were lost, so that counts for copies alone, as long as nothing else is known.
    pub(crate) fn on_first_grant(&mut self, took: Duration) {
        if self.samples == 0 {
            self.first_grant = Some(self.first_grant.map_or(took, |least| least.min(took)));
        }
    }

    /// The first NEED_ACK about an RPC is sent.
    pub(crate) fn on_need_ack(&mut self, id: RpcId, now: Instant) {
        let recent = |(_, sent): (RpcId, Instant)| now.saturating_since(sent) < PROBE_MAX;
        if !self.need_ack.is_some_and(recent) {
            self.need_ack = Some((id, now));
        }
    }

    /// An ACK about an RPC has come.
    pub(crate) fn on_ack(&mut self, id: RpcId, now: Instant) {
        if let Some((_, sent)) = self.need_ack.take_if(|(asked, _)| *asked == id) {
            self.on_sample(now.saturating_since(sent));
        }
    }

    /// The time within which nearly all answers come, if it is known.
    fn bound(&self) -> Option<Duration> {
        let bound = self.smoothed.saturating_add(4 * self.deviation);
        (self.samples > 0).then(|| Duration::from_nanos(bound))
    }

    /// How long after a packet was sent a RESEND for it says nothing new. `interval`: that of RESENDs.
    pub(crate) fn copy_pause(&self, interval: Duration) -> Duration {
        let least = interval / 2;
        self.bound()
            .or(self.first_grant)
            .map_or(least, |bound| bound.clamp(least, least.max(COPY_MAX)))
    }

    /// How long after a copy was sent a RESEND shows that it has not arrived. Without a measured delay it
    /// is longer than a round trip of nearly all networks.
    pub(crate) fn in_vain(&self) -> Duration {
        self.bound().map_or(IN_VAIN_MAX, |bound| {
            (2 * bound).clamp(IN_VAIN_MIN, IN_VAIN_MAX)
        })
    }

    /// How long the ack of a response may be on its way. `unknown`: the same of a peer of which nothing is
    /// known. Twice the delay: the ack may wait for the next request.
    pub(crate) fn ack_wait(&self, unknown: Duration) -> Duration {
        let (least, most) = (ACK_MIN.min(unknown), ACK_MAX.max(unknown));
        self.bound()
            .map_or(unknown, |bound| (2 * bound).clamp(least, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);
    const UNKNOWN: Duration = Duration::from_millis(25);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn what_is_not_known_is_assumed_and_what_is_measured_counts() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.ack_wait(UNKNOWN), UNKNOWN);
        assert_eq!(round_trip.copy_pause(INTERVAL), INTERVAL / 2);
        assert_eq!(round_trip.in_vain(), IN_VAIN_MAX);
        for _ in 0..100 {
            round_trip.on_sample(Duration::from_millis(40));
        }
        let wait = round_trip.ack_wait(UNKNOWN);
        assert!(wait >= Duration::from_millis(80), "{wait:?}");
        assert!(wait < Duration::from_millis(90), "{wait:?}");
        assert!(round_trip.copy_pause(INTERVAL) >= Duration::from_millis(40));
        for _ in 0..200 {
            round_trip.on_sample(Duration::from_micros(50));
        }
        assert_eq!(round_trip.ack_wait(UNKNOWN), ACK_MIN);
        assert_eq!(round_trip.in_vain(), IN_VAIN_MIN);
        assert_eq!(round_trip.copy_pause(INTERVAL), INTERVAL / 2);
        round_trip.on_sample(Duration::MAX);
        assert_eq!(round_trip.ack_wait(UNKNOWN), ACK_MAX);
        assert_eq!(round_trip.copy_pause(INTERVAL), COPY_MAX);
    }

    #[test]
    fn an_ack_is_measured_by_the_need_ack_of_its_own_rpc() {
        let mut round_trip = RoundTrip::default();
        let (a, b) = (RpcId::new(2), RpcId::new(4));
        round_trip.on_need_ack(a, at(0));
        round_trip.on_need_ack(b, at(1));
        round_trip.on_ack(b, at(2));
        assert_eq!(round_trip.bound(), None);
        round_trip.on_ack(a, at(10));
        assert_eq!(round_trip.bound(), Some(Duration::from_millis(30)));
        round_trip.on_ack(a, at(500));
        assert_eq!(round_trip.bound(), Some(Duration::from_millis(30)));
        // One that is lost does not end the measuring.
        round_trip.on_need_ack(a, at(1_000));
        round_trip.on_need_ack(b, at(2_000));
        round_trip.on_ack(b, at(2_010));
        assert_eq!(round_trip.samples, 2);
    }
}
