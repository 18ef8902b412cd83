//! What is known of the other ends: when they were last heard, acks owed to them, their cutoffs,
//! and which of their requests were delivered.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use slotmap::new_key_type;

use super::RpcKey;
use super::address::AddrKey;
use super::address_validation::AddressValidation;
use super::allowance::Allowance;
use super::delay::Delay;
use super::lateness::Lateness;
use super::priority::UnscheduledCutoffs;
use super::release::shrink;
use super::start_msg::Habit;
use super::timer::backed_off;
use super::width::Width;
use crate::config::Wire;
use crate::list::{Links, List};
use crate::slab::Slab;
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
    /// A packet has come from it.
    heard_ever: bool,
    /// RESENDs and NEED_ACKs sent to it since then.
    probing: Probing,
    /// How many more may be sent now.
    allowance: Allowance,
    /// When the next RPC that may not ask now is to try again, if there are many.
    next_try: Instant,
    /// RPCs with it.
    rpcs: usize,
    /// Those of them of which it is the client.
    served: usize,
    /// The same RPCs, oldest first.
    pub(super) rpc_list: List<RpcKey>,
    /// Its place among the peers without RPCs, if it is one.
    idle_links: Links<PeerKey>,
    /// Its place among the peers of its host.
    host_links: Links<PeerKey>,
    /// Bytes held for messages from it.
    pub(crate) inbound_bytes: usize,
    /// Bytes of outgoing messages held for it.
    pub(crate) outbound_bytes: usize,
    /// Of an encapsulated peer ([`PeerTable::cutoffs_of`] knows all): how it wants its unscheduled bytes ranked.
    pub(crate) cutoffs: UnscheduledCutoffs,
    /// When ours were last sent to it.
    pub(crate) cutoffs_sent: Option<Instant>,
    /// Whether it is where it says it is.
    pub(super) validation: AddressValidation,
    /// How late what it was granted comes.
    pub(crate) lateness: Lateness,
    /// How long it takes to answer.
    pub(crate) delay: Delay,
    /// How long packets to it may be.
    pub(super) width: Width,
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
    pub(super) const fn called(&self) -> usize {
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
        if !self.allowance.has_some(now, self.rpcs) {
            return Err(now + interval);
        }
        self.allowance.take();
        Ok(())
    }

    fn may_ask(&mut self, now: Instant, interval: Duration) -> bool {
        if !self.allowance.has_some(now, self.rpcs) {
            return false;
        }
        let may = self.may_probe(now, interval);
        if may {
            self.allowance.take();
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
    fn is_forgettable(&self, now: Instant) -> bool {
        now.saturating_since(self.heard) >= IDLE_MAX
    }
}

/// All peers, bounded.
#[derive(Debug)]
pub(crate) struct PeerTable {
    max: usize,
    peers: Slab<PeerKey, Peer>,
    by_addr: HashMap<AddrKey, PeerKey>,
    /// On protocol 146.
    by_host: Option<HashMap<IpAddr, Host>>,
    /// Peers without RPCs in the order in which they are looked at.
    idle: List<PeerKey>,
    next_sweep: Instant,
    /// Peers have come since all that they left behind was given back.
    unreleased: bool,
}

/// What the sockets of a host have in common.
#[derive(Debug)]
struct Host {
    cutoffs: UnscheduledCutoffs,
    start_habit: Habit,
    peers: List<PeerKey>,
}

impl PeerTable {
    pub(crate) fn new(max: usize, wire: Wire) -> Self {
        Self {
            max,
            peers: Slab::new(),
            by_addr: HashMap::default(),
            by_host: (wire == Wire::Native).then(HashMap::default),
            idle: List::default(),
            next_sweep: Instant::ZERO,
            unreleased: false,
        }
    }

    pub(crate) fn find(&self, addr: SocketAddr) -> Option<PeerKey> {
        self.by_addr.get(&AddrKey(addr)).copied()
    }

    /// On protocol 146: the known peers at `address`, whatever their port.
    pub(crate) fn of_host(&self, address: IpAddr) -> Vec<PeerKey> {
        let host = self.by_host.as_ref().and_then(|hosts| hosts.get(&address));
        host.map_or_else(Vec::new, |host| {
            host.peers.keys(&self.peers, |peer| &peer.host_links)
        })
    }

    /// An RPC with a peer begins; `served`: the peer is the client.
    pub(crate) fn on_rpc_begun(&mut self, key: PeerKey, served: bool) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.rpcs += 1;
        peer.served += usize::from(served);
        if peer.rpcs == 1 {
            self.leave_idle(key);
        }
    }

    /// An RPC with a peer is over; `served`: the peer was the client.
    pub(crate) fn on_rpc_ended(&mut self, key: PeerKey, served: bool) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.rpcs -= 1;
        peer.served -= usize::from(served);
        if peer.rpcs == 0 {
            // What was asked before says nothing about how it answers later calls.
            peer.probing = Probing::default();
            self.enter_idle(key);
        }
    }

    fn enter_idle(&mut self, key: PeerKey) {
        let peers = &mut self.peers;
        self.idle.push_back(peers, |peer| &mut peer.idle_links, key);
    }

    fn leave_idle(&mut self, key: PeerKey) {
        let peers = &mut self.peers;
        self.idle.remove(peers, |peer| &mut peer.idle_links, key);
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
        let key = self.peers.insert(Peer {
            addr,
            heard: now,
            heard_ever: false,
            probing: Probing::default(),
            allowance: Allowance::default(),
            next_try: Instant::ZERO,
            rpcs: 0,
            served: 0,
            rpc_list: List::default(),
            idle_links: Links::default(),
            host_links: Links::default(),
            inbound_bytes: 0,
            outbound_bytes: 0,
            cutoffs: UnscheduledCutoffs::UNKNOWN,
            cutoffs_sent: None,
            validation: AddressValidation::default(),
            lateness: Lateness::default(),
            delay: Delay::default(),
            width: Width::default(),
            acks: Vec::new(),
        });
        self.by_addr.insert(AddrKey(addr), key);
        if let Some(hosts) = self.by_host.as_mut() {
            let host = hosts.entry(addr.ip()).or_insert(Host {
                cutoffs: UnscheduledCutoffs::UNKNOWN,
                start_habit: Habit::default(),
                peers: List::default(),
            });
            let peers = &mut self.peers;
            host.peers
                .push_back(peers, |peer| &mut peer.host_links, key);
        }
        self.enter_idle(key);
        self.unreleased = true;
        Some(key)
    }

    /// Forgets everything about a peer that is gone. It must have no RPCs.
    pub(crate) fn remove(&mut self, key: PeerKey) {
        let Some(addr) = self.peers.get(key).map(|peer| peer.addr) else {
            return;
        };
        self.leave_idle(key);
        if let Some(hosts) = self.by_host.as_mut()
            && let Some(host) = hosts.get_mut(&addr.ip())
        {
            let peers = &mut self.peers;
            host.peers.remove(peers, |peer| &mut peer.host_links, key);
            if host.peers.first().is_none() {
                hosts.remove(&addr.ip());
            }
        }
        self.by_addr.remove(&AddrKey(addr));
        let peer = self.peers.remove(key);
        debug_assert!(peer.is_none_or(|peer| peer.rpcs == 0), "{addr}");
    }

    /// Forgets a peer that is gone, if it has no RPCs.
    pub(crate) fn forget(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if peer.rpcs == 0 {
            self.remove(key);
        } else {
            peer.forget_acks();
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
        host.map_or(peer.cutoffs, |host| host.cutoffs)
    }

    /// What is known of the host of a peer in respect of START_MSG.
    pub(super) fn start_habit(&self, key: PeerKey) -> Habit {
        let peer = self.peers.get(key);
        let hosts = self.by_host.as_ref();
        let host = peer.and_then(|peer| hosts?.get(&peer.addr.ip()));
        host.map_or_else(Habit::default, |host| host.start_habit)
    }

    /// Changes that.
    pub(super) fn edit_start_habit(&mut self, key: PeerKey, edit: impl FnOnce(&mut Habit)) {
        let addr = self.peers.get(key).map(|peer| peer.addr);
        if let Some(hosts) = self.by_host.as_mut()
            && let Some(host) = addr.and_then(|addr| hosts.get_mut(&addr.ip()))
        {
            edit(&mut host.start_habit);
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.values_mut()
    }

    /// `peer` has sent its cutoffs: those of its host where protocol 146 is spoken, its own elsewhere.
    pub(crate) fn on_cutoffs(&mut self, peer: SocketAddr, cutoffs: UnscheduledCutoffs) {
        if let Some(hosts) = self.by_host.as_mut() {
            if let Some(host) = hosts.get_mut(&peer.ip()) {
                host.cutoffs = cutoffs;
            }
        } else if let Some(known) = self.find(peer).and_then(|key| self.peers.get_mut(key)) {
            known.cutoffs = cutoffs;
        }
    }

    /// Makes room by forgetting the peer that has had no RPCs for longest, however recently it was heard:
    /// who is here already must not lock out who comes.
    fn evict(&mut self) {
        if let Some(key) = self.idle.first() {
            self.remove(key);
        }
    }

    /// When to call [`PeerTable::sweep`] next.
    pub(crate) fn next_sweep(&self) -> Option<Instant> {
        self.unreleased.then_some(self.next_sweep)
    }

    /// Forgets idle peers, looking at a bounded number of them.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.next_sweep = now + SWEEP_INTERVAL;
        let mut kept = None;
        for _ in 0..SWEEP_PEERS {
            let Some(key) = self.idle.first().filter(|first| Some(*first) != kept) else {
                return;
            };
            let peer = self.peers.get(key);
            if peer.is_some_and(|peer| peer.is_forgettable(now)) {
                self.remove(key);
            } else {
                self.leave_idle(key);
                self.enter_idle(key);
                kept.get_or_insert(key);
            }
        }
    }

    /// Gives memory back that is no longer used.
    /// `unreleased`: others have something left.
    pub(crate) fn release(&mut self, unreleased: bool) {
        self.unreleased = unreleased || !self.peers.is_empty();
        shrink(&mut self.by_addr);
        if let Some(hosts) = self.by_host.as_mut() {
            shrink(hosts);
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.peers.is_empty()
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

    #[test]
    fn idle_peers_are_forgotten_and_busy_ones_kept() {
        let mut peers = PeerTable::new(2, Wire::Encapsulated);
        let busy = peers.find_or_insert(addr(1), Instant::ZERO).unwrap();
        peers.on_rpc_begun(busy, true);
        let second = peers.find_or_insert(addr(2), Instant::ZERO).unwrap();
        peers.on_rpc_begun(second, false);
        assert_eq!(peers.find_or_insert(addr(3), Instant::ZERO), None);
        peers.on_rpc_ended(second, false);
        let later = Instant::ZERO + IDLE_MAX;
        assert!(peers.find_or_insert(addr(3), later).is_some());
        assert_eq!(peers.find(addr(2)), None);
        assert_eq!(peers.find(addr(1)), Some(busy));
        peers.on_rpc_ended(busy, true);
        peers.sweep(later + IDLE_MAX);
        assert!(peers.is_empty());
        peers.release(false);
        assert_eq!(peers.next_sweep(), None);
    }
}
