//! What is known of the other ends: when they were last heard, acks owed to them, their cutoffs,
//! and which of their requests were delivered.

use std::net::SocketAddr;
use std::time::Duration;

use slotmap::new_key_type;

use crate::endpoint::RpcKey;
use crate::endpoint::backoff::backed_off;
use crate::endpoint::grants::priority::UnscheduledCutoffs;
use crate::endpoint::messages::grant_delay::GrantDelay;
use crate::endpoint::peers::address_validation::AddressValidation;
use crate::endpoint::peers::black_hole::BlackHole;
use crate::endpoint::peers::probe_rate::ProbeRate;
use crate::endpoint::peers::rest::Rest;
use crate::endpoint::peers::round_trip::RoundTrip;
use crate::list::{Links, List};
use crate::units::Instant;
use crate::wire::{AckEntry, Acks};

new_key_type! {
    /// Handle of a peer.
    pub(crate) struct PeerKey;
}

/// A peer without RPCs is forgotten after this time. Source: homa_peer.c, `peer_idle_secs_min`.
pub(in crate::endpoint) const IDLE_MAX: Duration = Duration::from_secs(10);
/// One peer: an address and a port.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// Last packet of any kind from it, or the time it became known.
    pub(crate) heard: Instant,
    /// A packet has come from it.
    pub(in crate::endpoint) heard_ever: bool,
    /// RESENDs and NEED_ACKs sent to it since then.
    pub(in crate::endpoint) probing: Probing,
    /// How many more may be sent now.
    pub(in crate::endpoint) probe_rate: ProbeRate,
    /// When the next RPC that may not ask now is to try again, if there are many.
    pub(in crate::endpoint) next_try: Instant,
    /// RPCs with it.
    pub(in crate::endpoint) rpcs: usize,
    /// Those of them of which it is the client.
    pub(in crate::endpoint) served: usize,
    /// Those of them whose requests are incomplete.
    pub(in crate::endpoint) receiving: usize,
    /// When bytes of a request last came from it, by the clock of the memory of delivered requests.
    pub(in crate::endpoint) request_advanced: Option<Instant>,
    /// Those of them that rest.
    pub(in crate::endpoint) rest: Rest,
    /// The same RPCs as in `rpcs`, oldest first.
    pub(in crate::endpoint) rpc_list: List<RpcKey>,
    /// Its place among the peers without RPCs, if it is one.
    pub(in crate::endpoint) idle_links: Links<PeerKey>,
    /// Its place among the peers of its host.
    pub(in crate::endpoint) host_links: Links<PeerKey>,
    /// Bytes held for messages from it.
    pub(crate) inbound_bytes: usize,
    /// Bytes of outgoing messages held for it.
    pub(crate) outbound_bytes: usize,
    /// Of an encapsulated peer ([`PeerTable::cutoffs_of`] knows all): how it wants its unscheduled bytes ranked.
    pub(crate) cutoffs: UnscheduledCutoffs,
    /// When ours were last sent to it.
    pub(crate) cutoffs_sent: Option<Instant>,
    /// Whether it is where it says it is.
    pub(in crate::endpoint) validation: AddressValidation,
    /// How late what it was granted comes.
    pub(crate) grant_delay: GrantDelay,
    /// How long it takes to answer.
    pub(crate) round_trip: RoundTrip,
    /// How long packets to it may be.
    pub(in crate::endpoint) black_hole: BlackHole,
    pub(in crate::endpoint) acks: Vec<AckEntry>,
}

/// Requests to a peer that have gone unanswered: the whole peer, not one RPC.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::endpoint) struct Probing {
    /// Timer runs in which something was asked.
    pub(in crate::endpoint) runs: u32,
    pub(in crate::endpoint) first: Instant,
    pub(in crate::endpoint) last: Instant,
    /// Asked in the last run.
    pub(in crate::endpoint) in_run: u32,
}

/// Runs in a row at the plain interval to a silent peer; then the interval doubles.
const PROBES_AT_ONCE: u32 = 4;
/// Longest interval between requests to a silent peer.
const PROBE_INTERVAL_MAX: Duration = Duration::from_millis(100);
/// Time between two tries of RPCs that had to wait: 125 in a millisecond, so that the work of a timer
/// run has a bound however many wait.
const TRY_INTERVAL: Duration = Duration::from_micros(8);
/// Longest wait for the next try.
const TRY_WAIT_MAX: Duration = Duration::from_millis(500);
/// Silence after which a peer is given up of which nothing was ever heard, at least. The first packet to
/// a neighbour may wait for address resolution, which Linux repeats after one second and after two
/// (`retrans_time_ms`), and TCP allows for a lost first packet too.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_millis(2_500);

impl Peer {
    /// RPCs of which it is the client.
    pub(crate) const fn served(&self) -> usize {
        self.served
    }

    /// RPCs of which it is the server.
    pub(in crate::endpoint) const fn called(&self) -> usize {
        self.rpcs - self.served
    }

    /// A packet has come from it.
    pub(crate) const fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.heard_ever = true;
        self.probing.runs = 0;
    }

    /// Whether one more RESEND or NEED_ACK may be sent to it now, and counts it if so: sixteen in a
    /// millisecond, and a single one from time to time while the peer is wholly silent. If not, the
    /// error is when to try again.
    pub(crate) fn ask(&mut self, now: Instant, interval: Duration) -> Result<(), Instant> {
        if self.may_ask(now, interval) {
            return Ok(());
        }
        let earliest = now + interval;
        let at = self
            .next_try
            .clamp(earliest, earliest.max(now + TRY_WAIT_MAX));
        self.next_try = at + TRY_INTERVAL;
        Err(at)
    }

    /// The same about an RPC that another may have begun in its name, about which so many requests in a row
    /// went unanswered, the last of them at `asked`: that says nothing of the peer.
    pub(crate) fn ask_unproven(
        &mut self,
        now: Instant,
        interval: Duration,
        (unanswered, asked): (u32, Instant),
    ) -> Result<(), Instant> {
        let pause = backed_off(interval, unanswered, PROBES_AT_ONCE, PROBE_INTERVAL_MAX);
        let next = asked + pause;
        if unanswered > 0 && now < next {
            return Err(next);
        }
        if !self.probe_rate.has_some(now, self.rpcs) {
            return Err(now + interval);
        }
        self.probe_rate.take();
        Ok(())
    }

    fn may_ask(&mut self, now: Instant, interval: Duration) -> bool {
        if !self.probe_rate.has_some(now, self.rpcs) {
            return false;
        }
        let may = self.may_probe(now, interval);
        if may {
            self.probe_rate.take();
        }
        may
    }

    fn may_probe(&mut self, now: Instant, interval: Duration) -> bool {
        let probing = &mut self.probing;
        if probing.runs == 0 {
            *probing = Probing {
                runs: 1,
                first: now,
                last: now,
                in_run: 1,
            };
            return true;
        }
        if probing.last == now {
            let silent = now.saturating_since(probing.first) >= interval;
            probing.in_run += 1;
            return !silent || probing.in_run == 1;
        }
        let silent = now.saturating_since(probing.first) >= interval;
        let runs = probing.runs;
        let pause = backed_off(interval, runs, PROBES_AT_ONCE, PROBE_INTERVAL_MAX);
        if silent && now.saturating_since(probing.last) < pause {
            return false;
        }
        probing.runs += 1;
        probing.last = now;
        probing.in_run = 1;
        true
    }

    /// Requests that went unanswered, in timer runs of their own, and for how long, if that means
    /// that the peer is dead.
    pub(crate) fn dead(
        &self,
        now: Instant,
        timeout: Duration,
        runs: u32,
    ) -> Option<(Duration, u32)> {
        let probing = &self.probing;
        let timeout = if self.heard_ever {
            timeout
        } else {
            timeout.max(FIRST_ANSWER_TIMEOUT)
        };
        let asked_for = now.saturating_since(probing.first.max(self.heard));
        let dead = probing.runs >= runs && probing.runs > 0 && asked_for >= timeout;
        dead.then(|| (now.saturating_since(self.heard), probing.runs))
    }

    /// The same of a peer with which RPCs rest, which is asked when it has been silent for long: that means
    /// that it is dead after `silence` in all. `timeout`: that of others.
    pub(in crate::endpoint) fn dead_at_rest(
        &self,
        now: Instant,
        silence: Duration,
        (timeout, runs): (Duration, u32),
    ) -> Option<(Duration, u32)> {
        let probing = &self.probing;
        let silent = now.saturating_since(self.heard);
        let asked_for = now.saturating_since(probing.first.max(self.heard));
        let asked = probing.runs >= runs && asked_for >= timeout / 2;
        (asked && silent >= silence).then_some((silent, probing.runs))
    }

    /// Owes an ack; returns the acks to send at once if there were too many to wait.
    /// Source: homa_peer.c, `homa_peer_add_ack`.
    pub(crate) fn owe_ack(&mut self, entry: AckEntry) -> Option<(AckEntry, Acks)> {
        if self.acks.len() < Acks::MAX {
            self.acks.push(entry);
            return None;
        }
        Some((entry, self.take_acks()))
    }

    /// One ack to ride on a DATA packet, the newest.
    pub(crate) fn take_ack(&mut self) -> Option<AckEntry> {
        self.acks.pop()
    }

    /// All acks owed.
    pub(crate) fn take_acks(&mut self) -> Acks {
        let mut acks = Acks::new();
        for entry in self.acks.drain(..) {
            acks.push(entry);
        }
        acks
    }

    /// Forgets the acks owed: NEED_ACK asks for them again.
    pub(crate) fn forget_acks(&mut self) {
        self.acks.clear();
    }

    /// Whether it can be forgotten: nothing was heard of it for long.
    pub(in crate::endpoint) fn is_forgettable(&self, now: Instant) -> bool {
        now.saturating_since(self.heard) >= IDLE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Wire;
    use crate::endpoint::peers::table::PeerTable;
    use crate::units::RpcId;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn entry(id: u64) -> AckEntry {
        AckEntry {
            id: RpcId::new(id),
            server_port: 99,
        }
    }

    #[test]
    fn the_sixth_ack_owed_sends_all_six() {
        let mut peers = PeerTable::new(10, Wire::Encapsulated);
        let key = peers.find_or_insert(addr(1), Instant::ZERO).unwrap();
        let peer = peers.get_mut(key).unwrap();
        for id in 1..=5 {
            assert!(peer.owe_ack(entry(id * 2)).is_none());
        }
        let (first, others) = peer.owe_ack(entry(12)).unwrap();
        assert_eq!(first, entry(12));
        assert_eq!(others.len(), 5);
        assert_eq!(peer.take_ack(), None);
    }

    #[test]
    fn the_newest_ack_rides_first() {
        let mut peers = PeerTable::new(10, Wire::Encapsulated);
        let key = peers.find_or_insert(addr(1), Instant::ZERO).unwrap();
        let peer = peers.get_mut(key).unwrap();
        peer.owe_ack(entry(2));
        peer.owe_ack(entry(4));
        assert_eq!(peer.take_ack(), Some(entry(4)));
        assert_eq!(peer.take_acks().len(), 1);
    }

    #[test]
    fn a_silent_peer_is_asked_one_thing_at_a_time_and_more_and_more_rarely() {
        let mut peers = PeerTable::new(10, Wire::Encapsulated);
        let interval = Duration::from_millis(5);
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let key = peers.find_or_insert(addr(1), at(0)).unwrap();
        let peer = peers.get_mut(key).unwrap();
        let at_once = (0..100).filter(|_| peer.may_ask(at(1), interval)).count();
        assert_eq!(at_once, 16, "a first burst is bounded");
        let mut asked = Vec::new();
        for millis in 2..1_500 {
            for _ in 0..100 {
                if peer.may_ask(at(millis), interval) {
                    asked.push(millis);
                }
            }
        }
        asked.retain(|millis| *millis >= 6);
        assert!(
            asked.windows(2).all(|pair| pair[1] > pair[0]),
            "one at a time: {asked:?}"
        );
        assert!(asked.len() < 30, "{asked:?}");
        assert_eq!(peer.dead(at(1_500), Duration::from_secs(1), 10), None);
        assert!(peer.dead(at(2_501), Duration::from_secs(1), 10).is_some());
        assert!(peer.dead(at(2_501), Duration::from_secs(3), 10).is_none());
        peer.heard_ever = true;
        assert!(peer.dead(at(1_500), Duration::from_secs(1), 10).is_some());
        peer.on_heard(at(1_500));
        assert_eq!(peer.dead(at(9_000), Duration::from_secs(1), 10), None);
        assert!(peer.may_ask(at(9_000), interval));
    }

    #[test]
    fn who_may_not_ask_tries_again_soon_but_not_all_at_a_time() {
        let interval = Duration::from_millis(5);
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let tries = |number: usize| {
            let mut peers = PeerTable::new(1, Wire::Encapsulated);
            let key = peers.find_or_insert(addr(1), at(0)).unwrap();
            let peer = peers.get_mut(key).unwrap();
            let refused = (0..number).filter_map(|_| peer.ask(at(1_000), interval).err());
            refused.collect::<Vec<_>>()
        };
        assert!(tries(16).is_empty());
        let few = tries(100);
        assert_eq!((few.len(), few[0]), (84, at(1_005)));
        assert!(few[83] < at(1_006));
        let many = tries(10_016);
        assert_eq!(many[9_999] - at(1_005), TRY_INTERVAL * 9_999);
        assert_eq!(
            tries(100_016).last(),
            Some(&at(1_500)),
            "none waits for long"
        );
    }

    #[test]
    fn a_stall_of_our_own_is_one_run_not_many() {
        let mut peers = PeerTable::new(10, Wire::Encapsulated);
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let key = peers.find_or_insert(addr(1), at(0)).unwrap();
        let peer = peers.get_mut(key).unwrap();
        let interval = Duration::from_millis(5);
        peer.may_ask(at(5), interval);
        for _ in 0..1000 {
            peer.may_ask(at(60_000), interval);
        }
        assert_eq!(peer.dead(at(60_000), Duration::from_secs(1), 10), None);
    }
}
