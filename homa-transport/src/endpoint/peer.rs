//! What is known of the other ends: when they were last heard, acks owed to them, their cutoffs,
//! and which of their requests were delivered.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use slotmap::{SlotMap, new_key_type};

use super::address::AddrKey;
use super::delivered::Delivered;
use super::first_contact::Contact;
use super::lateness::Lateness;
use super::priority::UnscheduledCutoffs;
use super::timer::backed_off;
use crate::config::Wire;
use crate::units::Instant;
use crate::wire::{AckEntry, Acks};

new_key_type! {
    /// Handle of a peer.
    pub(crate) struct PeerKey;
}

/// A peer without RPCs is forgotten after this time. Source: homa_peer.c, `peer_idle_secs_min`.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Time between two looks for idle peers.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// Peers looked at each time.
const SWEEP_PEERS: usize = 256;

/// One peer: an address and a port.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// Last packet of any kind from it, or the time it became known.
    pub(crate) heard: Instant,
    /// RESENDs and NEED_ACKs sent to it since then.
    probing: Probing,
    /// When the next RPC that may not ask now is to try again, if there are many.
    next_try: Instant,
    /// RPCs with it.
    pub(crate) rpcs: usize,
    /// Those of them of which it is the client.
    pub(crate) served: usize,
    /// Bytes held for messages from it.
    pub(crate) inbound_bytes: usize,
    /// Bytes of outgoing messages held for it.
    pub(crate) outbound_bytes: usize,
    /// Of an encapsulated peer ([`PeerTable::cutoffs_of`] knows all): how it wants its unscheduled bytes ranked.
    pub(crate) cutoffs: UnscheduledCutoffs,
    /// When ours were last sent to it.
    pub(crate) cutoffs_sent: Option<Instant>,
    /// Whether it is where it says it is.
    pub(crate) contact: Contact,
    /// How late what it was granted comes.
    pub(crate) lateness: Lateness,
    /// Its requests that were delivered here.
    pub(crate) delivered: Delivered,
    acks: Vec<AckEntry>,
}

/// Requests to a peer that have gone unanswered: the whole peer, not one RPC.
#[derive(Clone, Copy, Debug, Default)]
struct Probing {
    /// Timer runs in which something was asked.
    runs: u32,
    first: Instant,
    last: Instant,
    /// Asked in the last run.
    in_run: u32,
}

/// Requests to one peer in one timer run.
const ASKS_PER_RUN: u32 = 16;
/// Runs in a row at the plain interval to a silent peer; then the interval doubles.
const PROBES_AT_ONCE: u32 = 4;
/// Longest interval between requests to a silent peer.
const PROBE_INTERVAL_MAX: Duration = Duration::from_millis(100);
/// Time between two tries of RPCs that had to wait: 125 in a millisecond, so that the work of a timer
/// run has a bound however many wait.
const TRY_INTERVAL: Duration = Duration::from_micros(8);
/// Longest wait for the next try.
const TRY_WAIT_MAX: Duration = Duration::from_millis(500);

impl Peer {
    /// An RPC with it is over; `served`: it was the client.
    pub(crate) fn on_rpc_ended(&mut self, served: bool) {
        self.rpcs -= 1;
        self.served -= usize::from(served);
        if self.rpcs == 0 {
            // What was asked before says nothing about how it answers later calls.
            self.probing = Probing::default();
        }
    }

    /// A packet of so many bytes has come from it.
    pub(crate) const fn on_heard(&mut self, now: Instant, bytes: usize) {
        self.heard = now;
        self.probing.runs = 0;
        self.contact.on_received(bytes);
    }

    /// A packet of so many bytes goes to it, about a call of its own or (`ours`) of ours.
    pub(crate) const fn on_sent(&mut self, bytes: usize, ours: bool) {
        if !ours {
            self.contact.on_sent(bytes);
        }
    }

    /// Whether one more RESEND or NEED_ACK may be sent to it now, and counts it if so: sixteen in a
    /// timer run, and a single one from time to time while the peer is wholly silent. If not, the
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

    fn may_ask(&mut self, now: Instant, interval: Duration) -> bool {
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
            let allowed = if silent { 1 } else { ASKS_PER_RUN };
            probing.in_run += 1;
            return probing.in_run <= allowed;
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
        let asked_for = now.saturating_since(probing.first.max(self.heard));
        let dead = probing.runs >= runs && probing.runs > 0 && asked_for >= timeout;
        dead.then(|| (now.saturating_since(self.heard), probing.runs))
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

    fn is_idle(&self, now: Instant) -> bool {
        self.rpcs == 0 && now.saturating_since(self.heard) >= IDLE_MAX
    }
}

/// All peers, bounded.
#[derive(Debug)]
pub(crate) struct PeerTable {
    max: usize,
    /// Peers have to show that they are where they say they are.
    prove: bool,
    peers: SlotMap<PeerKey, Peer>,
    by_addr: HashMap<AddrKey, PeerKey>,
    /// On protocol 146: the cutoffs of each host, and how many of its sockets are known.
    by_host: Option<HashMap<IpAddr, (UnscheduledCutoffs, usize)>>,
    /// Peers in the order in which they are looked at for idleness.
    sweep: VecDeque<PeerKey>,
    next_sweep: Instant,
}

impl PeerTable {
    /// `prove`: those of encapsulated links have to show that they are where they say they are.
    pub(crate) fn new(max: usize, wire: Wire, prove: bool) -> Self {
        Self {
            max,
            prove: prove && wire == Wire::Encapsulated,
            peers: SlotMap::with_key(),
            by_addr: HashMap::default(),
            by_host: (wire == Wire::Native).then(HashMap::default),
            sweep: VecDeque::new(),
            next_sweep: Instant::ZERO,
        }
    }

    /// True if there is plenty of room.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.peers.len() <= self.max / 2
    }

    pub(crate) fn find(&self, addr: SocketAddr) -> Option<PeerKey> {
        self.by_addr.get(&AddrKey(addr)).copied()
    }

    /// The known peers at `address`, whatever their port.
    pub(crate) fn of_host(&self, address: IpAddr) -> Vec<PeerKey> {
        let peers = self.peers.iter();
        let there = peers.filter(|(_, peer)| peer.addr.ip() == address);
        there.map(|(key, _)| key).collect()
    }

    pub(crate) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer> {
        self.peers.get_mut(key)
    }

    pub(crate) fn get(&self, key: PeerKey) -> Option<&Peer> {
        self.peers.get(key)
    }

    /// The peer at `addr`, made known if it is not; `None` if there is no room.
    pub(crate) fn find_or_insert(&mut self, addr: SocketAddr, now: Instant) -> Option<PeerKey> {
        if let Some(key) = self.find(addr) {
            return Some(key);
        }
        if self.peers.len() >= self.max {
            self.evict();
        }
        if self.peers.len() >= self.max {
            return None;
        }
        if let Some(hosts) = self.by_host.as_mut() {
            let unknown = (UnscheduledCutoffs::UNKNOWN, 0);
            hosts.entry(addr.ip()).or_insert(unknown).1 += 1;
        }
        let key = self.peers.insert(Peer {
            addr,
            heard: now,
            probing: Probing::default(),
            next_try: Instant::ZERO,
            rpcs: 0,
            served: 0,
            inbound_bytes: 0,
            outbound_bytes: 0,
            cutoffs: UnscheduledCutoffs::UNKNOWN,
            cutoffs_sent: None,
            contact: if self.prove {
                Contact::default()
            } else {
                Contact::proven()
            },
            lateness: Lateness::default(),
            delivered: Delivered::default(),
            acks: Vec::new(),
        });
        self.by_addr.insert(AddrKey(addr), key);
        self.sweep.push_back(key);
        Some(key)
    }

    /// Forgets everything about a peer that is gone. It must have no RPCs.
    pub(crate) fn remove(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.remove(key) else {
            return;
        };
        debug_assert_eq!(peer.rpcs, 0, "{peer:?}");
        self.by_addr.remove(&AddrKey(peer.addr));
        if let Some(hosts) = self.by_host.as_mut()
            && let Some((_, sockets)) = hosts.get_mut(&peer.addr.ip())
        {
            *sockets -= 1;
            if *sockets == 0 {
                hosts.remove(&peer.addr.ip());
            }
        }
    }

    /// The cutoffs that a peer wants.
    pub(crate) fn cutoffs_of(&self, key: PeerKey) -> UnscheduledCutoffs {
        let Some(peer) = self.peers.get(key) else {
            return UnscheduledCutoffs::UNKNOWN;
        };
        let host = self
            .by_host
            .as_ref()
            .and_then(|hosts| hosts.get(&peer.addr.ip()));
        host.map_or(peer.cutoffs, |(cutoffs, _)| *cutoffs)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.values_mut()
    }

    /// `peer` has sent its cutoffs: those of its host where protocol 146 is spoken, its own elsewhere.
    pub(crate) fn on_cutoffs(&mut self, peer: SocketAddr, cutoffs: UnscheduledCutoffs) {
        if let Some(hosts) = self.by_host.as_mut() {
            if let Some((known, _)) = hosts.get_mut(&peer.ip()) {
                *known = cutoffs;
            }
        } else if let Some(known) = self.find(peer).and_then(|key| self.peers.get_mut(key)) {
            known.cutoffs = cutoffs;
        }
    }

    /// Makes room by forgetting a peer that has no RPCs, however recently it was heard, looking at a
    /// bounded number: who is here already must not lock out who comes. Rather one of which no request
    /// was ever delivered.
    fn evict(&mut self) {
        self.remove_some(1, |peer| peer.rpcs == 0 && peer.delivered.is_unused());
        if self.peers.len() >= self.max {
            self.remove_some(1, |peer| peer.rpcs == 0);
        }
    }

    /// When to call [`PeerTable::sweep`] next.
    pub(crate) fn next_sweep(&self) -> Option<Instant> {
        (!self.peers.is_empty()).then_some(self.next_sweep)
    }

    /// Forgets idle peers, looking at a bounded number of them, once their requests need not be
    /// remembered any more.
    pub(crate) fn sweep(&mut self, now: Instant, memory_now: Instant, memory: Duration) {
        self.next_sweep = now + SWEEP_INTERVAL;
        self.remove_some(usize::MAX, |peer| {
            peer.is_idle(now) && peer.delivered.is_empty(memory_now, memory)
        });
    }

    /// Removes up to `max` peers for which `may_go`, looking at a bounded number.
    fn remove_some(&mut self, max: usize, may_go: impl Fn(&mut Peer) -> bool) {
        let mut removed = 0;
        for _ in 0..SWEEP_PEERS.min(self.sweep.len()) {
            let Some(key) = self.sweep.pop_front() else {
                return;
            };
            let Some(peer) = self.peers.get_mut(key) else {
                continue;
            };
            if !may_go(peer) {
                self.sweep.push_back(key);
                continue;
            }
            self.remove(key);
            removed += 1;
            if removed == max {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let mut peers = PeerTable::new(10, Wire::Encapsulated, false);
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
        let mut peers = PeerTable::new(10, Wire::Encapsulated, false);
        let key = peers.find_or_insert(addr(1), Instant::ZERO).unwrap();
        let peer = peers.get_mut(key).unwrap();
        peer.owe_ack(entry(2));
        peer.owe_ack(entry(4));
        assert_eq!(peer.take_ack(), Some(entry(4)));
        assert_eq!(peer.take_acks().len(), 1);
    }

    #[test]
    fn a_silent_peer_is_asked_one_thing_at_a_time_and_more_and_more_rarely() {
        let mut peers = PeerTable::new(10, Wire::Encapsulated, false);
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
        assert!(peer.dead(at(1_500), Duration::from_secs(1), 10).is_some());
        peer.on_heard(at(1_500), 0);
        assert_eq!(peer.dead(at(9_000), Duration::from_secs(1), 10), None);
        assert!(peer.may_ask(at(9_000), interval));
    }

    #[test]
    fn who_may_not_ask_tries_again_soon_but_not_all_at_a_time() {
        let interval = Duration::from_millis(5);
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let tries = |number: usize| {
            let mut peers = PeerTable::new(1, Wire::Encapsulated, false);
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
        let mut peers = PeerTable::new(10, Wire::Encapsulated, false);
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

    #[test]
    fn idle_peers_are_forgotten_and_busy_ones_kept() {
        let mut peers = PeerTable::new(2, Wire::Encapsulated, false);
        let busy = peers.find_or_insert(addr(1), Instant::ZERO).unwrap();
        peers.get_mut(busy).unwrap().rpcs = 1;
        let second = peers.find_or_insert(addr(2), Instant::ZERO).unwrap();
        peers.get_mut(second).unwrap().rpcs = 1;
        assert_eq!(peers.find_or_insert(addr(3), Instant::ZERO), None);
        peers.get_mut(second).unwrap().rpcs = 0;
        let later = Instant::ZERO + IDLE_MAX;
        assert!(peers.find_or_insert(addr(3), later).is_some());
        assert_eq!(peers.find(addr(2)), None);
        assert_eq!(peers.find(addr(1)), Some(busy));
        peers.get_mut(busy).unwrap().rpcs = 0;
        peers.sweep(later + IDLE_MAX, later, Duration::ZERO);
        assert_eq!(peers.next_sweep(), None);
    }
}
