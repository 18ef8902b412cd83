//! Packets that are too long for their way and vanish without a word (a black hole).
//!
//! Routers may not say that a packet is too long, and on protocol 146 a neighbour with a smaller MTU never
//! does. A packet that was sent three times in vain, to a peer that is heard, is taken for one of those
//! if no packet as long has arrived there meanwhile. Then packets to that address are cut for a while,
//! into halves and halves of halves: a module drops a packet of which it has a part, but such halves it
//! has or lacks as a whole. Source: homa_incoming.c, `homa_add_packet`; RFC 8899, section 4.3.

use std::time::Duration;

use crate::units::Instant;
use crate::wire::DATA_HEADER_BYTES;

/// Lengths of packets to cut to, one after the other, in bytes: for Ethernet below tunnels, and for what
/// every way of IPv4 takes (RFC 791).
const STEPS: [usize; 2] = [1_400, 512];
/// How long packets stay short: for longer than an RPC lives, because a message that began in short
/// packets must not go on in long ones.
const NARROW: Duration = Duration::from_secs(60);

/// A proof that packets arrive counts for so long against proofs by shorter ones.
const PROOF: Duration = Duration::from_secs(1);

/// What is known of the packets that get to one address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BlackHole {
    /// Longest packet to send, in bytes, and since when.
    narrowed: Option<(usize, Instant)>,
    /// Length of a packet that has arrived there, and when that showed.
    arrived: (usize, Instant),
}

impl BlackHole {
    /// Longest packet to send, in bytes, if the way is known to be narrow.
    pub(in crate::endpoint) fn packet_bytes_max(&self, now: Instant) -> Option<usize> {
        let recent = |(_, at): &(usize, Instant)| now.saturating_since(*at) < NARROW;
        self.narrowed.filter(recent).map(|(max, _)| max)
    }

    /// Length of a packet with `bytes` of data as it is sent.
    fn length_sent(&self, bytes: u32, now: Instant) -> usize {
        let whole = bytes as usize + DATA_HEADER_BYTES;
        match self.packet_bytes_max(now) {
            Some(max) => cut_length(whole, max),
            None => whole,
        }
    }

    /// A packet with `bytes` of data has arrived.
    pub(in crate::endpoint) fn on_arrived(&mut self, bytes: u32, now: Instant) {
        let len = self.length_sent(bytes, now);
        let (longest, at) = self.arrived;
        if len >= longest || now.saturating_since(at) >= PROOF {
            self.arrived = (len, now);
        }
    }

    /// A packet with `bytes` of data is asked for in vain since `since`. True if packets are to be shorter
    /// from now on.
    pub(in crate::endpoint) fn on_stuck(
        &mut self,
        bytes: u32,
        since: Instant,
        now: Instant,
    ) -> bool {
        let len = self.length_sent(bytes, now);
        let narrowed = self.narrowed.map_or(Instant::ZERO, |(_, at)| at);
        let (longest, arrived) = self.arrived;
        if (since < arrived && len <= longest) || since <= narrowed {
            return false;
        }
        let Some(step) = STEPS.into_iter().find(|step| *step < len) else {
            return false;
        };
        self.narrowed = Some((step, now));
        true
    }
}

/// Length of the longer half, of the half of that and so on, that is no more than `max`.
const fn cut_length(mut len: usize, max: usize) -> usize {
    while len > max && len > DATA_HEADER_BYTES + 1 {
        len = DATA_HEADER_BYTES + (len - DATA_HEADER_BYTES).div_ceil(2);
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn packets_in_vain_shorten_those_to_come_for_a_while() {
        let mut black_hole = BlackHole::default();
        assert_eq!(black_hole.packet_bytes_max(at(1)), None);
        assert!(black_hole.on_stuck(8_900, at(1), at(2)));
        assert_eq!(black_hole.packet_bytes_max(at(2)), Some(1_400));
        assert!(
            !black_hole.on_stuck(8_900, at(1), at(2)),
            "sent before that"
        );
        assert!(black_hole.on_stuck(8_900, at(3), at(4)));
        assert_eq!(black_hole.packet_bytes_max(at(63)), Some(512));
        assert!(!black_hole.on_stuck(8_900, at(5), at(6)), "no further");
        assert_eq!(black_hole.packet_bytes_max(at(64)), None);
        let mut black_hole = BlackHole::default();
        assert!(black_hole.on_stuck(1_000, at(1), at(2)));
        assert_eq!(
            black_hole.packet_bytes_max(at(2)),
            Some(512),
            "it was short"
        );
    }

    #[test]
    fn a_long_packet_that_arrives_meanwhile_proves_the_way() {
        let mut black_hole = BlackHole::default();
        black_hole.on_arrived(1_400, at(3));
        assert!(!black_hole.on_stuck(1_400, at(2), at(4)));
        assert!(black_hole.on_stuck(1_400, at(4), at(5)));
        let mut black_hole = BlackHole::default();
        black_hole.on_arrived(1_400, at(3));
        assert!(black_hole.on_stuck(1_401, at(2), at(4)), "a longer one");
    }
}
