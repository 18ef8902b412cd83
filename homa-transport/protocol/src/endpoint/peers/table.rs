//! All peers, bounded: by address, by host, and those without RPCs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::Wire;
use crate::endpoint::grants::priority::UnscheduledCutoffs;
use crate::endpoint::messages::grant_delay::GrantDelay;
use crate::endpoint::peers::address::AddrKey;
use crate::endpoint::peers::address_validation::AddressValidation;
use crate::endpoint::peers::black_hole::BlackHole;
use crate::endpoint::peers::peer::{Peer, PeerKey, Probing};
use crate::endpoint::peers::probe_rate::ProbeRate;
use crate::endpoint::peers::rest::Rest;
use crate::endpoint::peers::round_trip::RoundTrip;
use crate::endpoint::peers::start_habit::Habit;
use crate::list::{Links, List};
use crate::shrink::shrink;
use crate::slab::Slab;
use crate::units::Instant;

/// Time between two looks for idle peers.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// Peers looked at each time.
const SWEEP_PEERS: usize = 256;

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

    /// A request of a peer begins to be received, or is complete or gone.
    pub(in crate::endpoint) fn on_receiving(&mut self, key: PeerKey, begins: bool) {
        if let Some(peer) = self.peers.get_mut(key) {
            let change = if begins { 1 } else { -1 };
            peer.receiving = peer.receiving.saturating_add_signed(change);
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
            probe_rate: ProbeRate::default(),
            next_try: Instant::ZERO,
            rpcs: 0,
            served: 0,
            receiving: 0,
            request_advanced: None,
            rest: Rest::default(),
            rpc_list: List::default(),
            idle_links: Links::default(),
            host_links: Links::default(),
            inbound_bytes: 0,
            outbound_bytes: 0,
            cutoffs: UnscheduledCutoffs::UNKNOWN,
            cutoffs_sent: None,
            validation: AddressValidation::default(),
            grant_delay: GrantDelay::default(),
            round_trip: RoundTrip::default(),
            black_hole: BlackHole::default(),
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
    pub(in crate::endpoint) fn start_habit(&self, key: PeerKey) -> Habit {
        let peer = self.peers.get(key);
        let hosts = self.by_host.as_ref();
        let host = peer.and_then(|peer| hosts?.get(&peer.addr.ip()));
        host.map_or_else(Habit::default, |host| host.start_habit)
    }

    /// Changes that.
    pub(in crate::endpoint) fn edit_start_habit(
        &mut self,
        key: PeerKey,
        edit: impl FnOnce(&mut Habit),
    ) {
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
    use crate::endpoint::peers::peer::IDLE_MAX;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
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
