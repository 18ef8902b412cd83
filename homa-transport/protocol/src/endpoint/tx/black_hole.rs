//! When packets are too long for their way, and how they are cut then. What is known of a way:
//! `peers/black_hole.rs`.

use std::collections::VecDeque;

use crate::endpoint::peers::peer::PeerKey;
use crate::endpoint::profile::rules::Rule;
use crate::endpoint::{Endpoint, RpcKey, Transmit};
use crate::units::Instant;

impl Endpoint {
    /// A packet of the RPC's message was asked for again: perhaps its packets are too long.
    pub(in crate::endpoint) fn look_for_black_hole(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let (Some(peer), Some(out)) = (self.peers.get_mut(rpc.peer), rpc.out.as_mut()) else {
            return;
        };
        if self.rules.breaks(Rule::BlackHolesAreFound) {
            return;
        }
        // A peer far away asks again before the first copy can have arrived.
        if let Some((bytes, since)) = out.stuck()
            && now.saturating_since(since) >= peer.round_trip.in_vain()
        {
            out.forget_stuck();
            let narrowed = peer.black_hole.on_stuck(bytes, since, now);
            self.stats.paths_narrowed += u64::from(narrowed);
        }
    }

    /// Packets of the RPC's message have arrived that are as long as its first one.
    pub(in crate::endpoint) fn packets_arrived(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if let (Some(peer), Some(out)) = (self.peers.get_mut(rpc.peer), rpc.out.as_mut()) {
            peer.black_hole.on_arrived(out.first_end(), now);
            out.forget_stuck();
        }
    }

    /// The packet, or the first of its parts if its way is narrow; the others follow.
    pub(in crate::endpoint) fn cut(
        &mut self,
        now: Instant,
        peer: Option<PeerKey>,
        packet: Transmit,
    ) -> Transmit {
        let peer = peer.and_then(|peer| self.peers.get(peer));
        match peer.and_then(|peer| peer.black_hole.packet_bytes_max(now)) {
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
