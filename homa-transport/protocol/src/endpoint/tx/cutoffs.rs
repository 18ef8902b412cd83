//! CUTOFFS: what we tell of our priority levels, and with them our token, and what others tell.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::endpoint::arrival::Arrival;
use crate::endpoint::grants::priority::UnscheduledCutoffs;
use crate::units::Instant;
use crate::wire::{Cutoffs, Packet};

/// CUTOFFS go at most this often to one peer that has, or needs, no more than these: packets between two
/// of them are at levels that are not the best, no more. Differs: homa_incoming.c, `homa_data_pkt`, says
/// a jiffy.
const CUTOFFS_INTERVAL: Duration = Duration::from_secs(1);
/// The same for one that lacks our token, without which it can do next to nothing.
const TOKEN_INTERVAL: Duration = Duration::from_millis(4);
impl Endpoint {
    /// What is owed to a peer that did not know our token may have been lost on it.
    pub(in crate::endpoint) fn cutoffs_heard(&mut self, arrival: &Arrival, cutoffs: Cutoffs) {
        let heard = UnscheduledCutoffs::heard(cutoffs.unsched, cutoffs.version);
        self.peers.on_cutoffs(arrival.peer, heard);
        if self.validates
            && let Some(peer) = self.sender_of(arrival)
            && let Some(first) = peer.take_ack()
        {
            let (addr, others) = (peer.addr, peer.take_acks());
            self.stats.acks_sent += 1;
            self.send_to_server(addr, None, first.id, Packet::Ack(others));
        }
    }

    /// Lets our cutoffs follow the sizes of the messages that arrive.
    pub(in crate::endpoint) fn size_seen(&mut self, length: u32) {
        let Some(sizes) = self.sizes.as_mut() else {
            return;
        };
        sizes.on_message(length);
        if let Some(cutoffs) = sizes.recompute(&self.cutoffs) {
            self.cutoffs = cutoffs;
            self.grants.set_scheduled_max(cutoffs.scheduled_max());
            self.stats.cutoffs_changed += 1;
        }
    }

    /// Tells the sender our cutoffs, and with them our token.
    pub(in crate::endpoint) fn announce_cutoffs(&mut self, arrival: &Arrival) {
        let interval = if arrival.validated {
            CUTOFFS_INTERVAL
        } else {
            TOKEN_INTERVAL
        };
        // Who is not known hears it each time: it is no more than three times what came.
        if let Some(peer) = self.sender_of(arrival) {
            let recent = |sent: Instant| arrival.now.saturating_since(sent) < interval;
            if peer.cutoffs_sent.is_some_and(recent) {
                return;
            }
            peer.cutoffs_sent = Some(arrival.now);
        }
        self.stats.cutoffs_sent += 1;
        let cutoffs = Cutoffs {
            unsched: self.cutoffs.cutoffs(),
            version: self.cutoffs.version(),
        };
        self.reply(arrival, Packet::Cutoffs(cutoffs));
    }
}
