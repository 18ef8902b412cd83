//! Packets that are too long for their way and vanish without a word (a black hole).
//!
//! Routers may not say that a packet is too long, and on protocol 146 a neighbour with a smaller MTU never
//! does. A packet that was sent three times in vain, to a peer that is heard, is taken for one of those
//! if no packet as long has arrived there meanwhile. Then packets to that address are cut for a while,
//! into halves and halves of halves: a module drops a packet of which it has a part, but such halves it
//! has or lacks as a whole. Source: homa_incoming.c, `homa_add_packet`; RFC 8899, section 4.3.

use std::collections::VecDeque;
use std::time::Duration;

use super::peer::PeerKey;
use super::{Endpoint, RpcKey, Transmit};
use crate::units::Instant;
use crate::wire::DATA_HEADER_BYTES;

/// Lengths of packets to cut to, one after the other, in bytes: for Ethernet below tunnels, and for what
/// every way of IPv4 takes (RFC 791).
const STEPS: [usize; 2] = [1_400, 512];
/// How long packets stay short: for longer than an RPC lives, because a message that began in short
/// packets must not go on in long ones.
const NARROW: Duration = Duration::from_secs(60);

/// What is known of the packets that get to one address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Width {
    /// Steps taken, and when the last one was.
    narrowed: Option<(usize, Instant)>,
    /// When it last showed that a packet has arrived that is longer than the next step.
    arrived: Instant,
}

impl Width {
    fn steps(&self, now: Instant) -> usize {
        let recent = |(_, at): &(usize, Instant)| now.saturating_since(*at) < NARROW;
        self.narrowed.filter(recent).map_or(0, |(steps, _)| steps)
    }

    /// Longest packet to send, in bytes, if the way is known to be narrow.
    fn packet_bytes_max(&self, now: Instant) -> Option<usize> {
        let steps = self.steps(now);
        STEPS.get(steps.checked_sub(1)?).copied()
    }

    /// Bytes of data above which a packet may be too long.
    fn suspect_bytes(&self, now: Instant) -> Option<u32> {
        let step = STEPS.get(self.steps(now))?;
        u32::try_from(step - DATA_HEADER_BYTES).ok()
    }

    /// A long packet is asked for in vain since `since`. True if packets are to be shorter from now on.
    fn on_stuck(&mut self, since: Instant, now: Instant) -> bool {
        let steps = self.steps(now);
        let narrowed = self.narrowed.map_or(Instant::ZERO, |(_, at)| at);
        if since < self.arrived || since <= narrowed || steps >= STEPS.len() {
            return false;
        }
        self.narrowed = Some((steps + 1, now));
        true
    }
}

impl Endpoint {
    /// A packet of the RPC's message was asked for again: perhaps its packets are too long.
    pub(super) fn look_for_black_hole(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let (Some(peer), Some(out)) = (self.peers.get_mut(rpc.peer), rpc.out.as_mut()) else {
            return;
        };
        let suspect = peer.width.suspect_bytes(now);
        if let Some(since) = suspect.and_then(|bytes| out.stuck_since(bytes)) {
            out.forget_stuck();
            self.stats.paths_narrowed += u64::from(peer.width.on_stuck(since, now));
        }
    }

    /// Packets of the RPC's message have arrived that are as long as its first one.
    pub(super) fn packets_arrived(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let (Some(peer), Some(out)) = (self.peers.get_mut(rpc.peer), rpc.out.as_mut()) else {
            return;
        };
        let suspect = peer.width.suspect_bytes(now);
        if suspect.is_some_and(|bytes| out.begins_long(bytes)) {
            peer.width.arrived = now;
            out.forget_stuck();
        }
    }

    /// The packet, or the first of its parts if its way is narrow; the others follow.
    pub(super) fn cut(
        &mut self,
        now: Instant,
        peer: Option<PeerKey>,
        packet: Transmit,
    ) -> Transmit {
        let peer = peer.and_then(|peer| self.peers.get(peer));
        match peer.and_then(|peer| peer.width.packet_bytes_max(now)) {
            Some(max) if packet.len() > max => first_part(packet, max, &mut self.parts),
            _ => packet,
        }
    }
}

/// Cuts a packet; `rest` gets all parts but the first.
fn first_part(packet: Transmit, max: usize, rest: &mut VecDeque<Transmit>) -> Transmit {
    let mut parts = vec![packet.clone()];
    while parts.iter().any(|part| part.len() > max) {
        let halves: Option<Vec<[Transmit; 2]>> = parts.iter().map(Transmit::halves).collect();
        let Some(halves) = halves else { break };
        parts = halves.into_iter().flatten().collect();
    }
    let mut parts = parts.into_iter();
    let first = parts.next().unwrap_or(packet);
    rest.extend(parts);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn packets_in_vain_shorten_those_to_come_for_a_while() {
        let mut width = Width::default();
        assert_eq!(width.packet_bytes_max(at(1)), None);
        assert!(width.on_stuck(at(1), at(2)));
        assert_eq!(width.packet_bytes_max(at(2)), Some(1_400));
        assert!(!width.on_stuck(at(1), at(2)), "sent before that");
        assert!(width.on_stuck(at(3), at(4)));
        assert_eq!(width.packet_bytes_max(at(63)), Some(512));
        assert!(!width.on_stuck(at(5), at(6)), "no further");
        assert_eq!(width.packet_bytes_max(at(64)), None);
    }

    #[test]
    fn a_long_packet_that_arrives_meanwhile_proves_the_way() {
        let mut width = Width {
            arrived: at(3),
            ..Width::default()
        };
        assert!(!width.on_stuck(at(2), at(4)));
        assert!(width.on_stuck(at(4), at(5)));
    }
}
