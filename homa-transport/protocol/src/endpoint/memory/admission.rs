//! Who may use how much memory: RPC records and bytes, per peer and in total.
//!
//! What does not fit is made to wait rather than lost, in the module's way of waiting for buffers
//! (homa_pool.c): a message without room has a record but no bytes, its sender hears BUSY, and RESEND
//! asks for all of it when room is free, shortest message first. A request without room for a record
//! is remembered by its id alone, as long as that set has room, so that its client is not told that the
//! RPC is unknown (it would take that for a restart of ours).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::endpoint::arrival::Arrival;
use crate::endpoint::memory::wait_list::{Standing, WaitList};
use crate::endpoint::peers::peer::{Peer, PeerKey};
use crate::endpoint::profile::rules::Rule;
use crate::endpoint::rpcs::rpc::{Liveness, Rpc, State};
use crate::endpoint::{Endpoint, RpcKey};
use crate::list::Links;
use crate::shrink::{shrink, shrink_queue};
use crate::units::{Instant, RpcId};
use crate::wire::{Busy, Packet, Refusal, Resend};

/// Ids of refused requests remembered.
const REFUSED_MAX: usize = 16_384;
/// Messages asked for, or let go on, at a time.
const ADMITTED_MAX: usize = 16;

/// Messages and requests that wait for room.
#[derive(Debug, Default)]
pub(in crate::endpoint) struct Waiting {
    /// Messages without room for their bytes.
    messages: WaitList,
    /// Messages that have begun but whose rest does not fit.
    ungranted: WaitList,
    /// Requests without room for a record, and since when by the clock of the memory of delivered ones.
    refused: HashMap<(SocketAddr, RpcId), Instant>,
    /// The same in order of their coming.
    refused_order: VecDeque<(SocketAddr, RpcId)>,
    /// Room may have become free.
    pub(in crate::endpoint) room_freed: bool,
}

/// What messages that were just let go on will need.
#[derive(Debug, Default)]
struct Planned {
    messages: usize,
    bytes: usize,
    by_peer: Vec<(PeerKey, usize)>,
}

impl Planned {
    fn of(&self, peer: PeerKey) -> usize {
        let of_peer = self.by_peer.iter().filter(|(planned, _)| *planned == peer);
        of_peer.map(|(_, bytes)| bytes).sum()
    }

    fn add(&mut self, peer: PeerKey, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
        self.by_peer.push((peer, bytes));
    }
}

impl Waiting {
    fn refuse(&mut self, peer: SocketAddr, id: RpcId, now: Instant) {
        if self.refused.contains_key(&(peer, id)) {
            return;
        }
        self.refused.insert((peer, id), now);
        self.refused_order.push_back((peer, id));
        if self.refused_order.len() > REFUSED_MAX
            && let Some(oldest) = self.refused_order.pop_front()
        {
            self.refused.remove(&oldest);
        }
    }

    /// A request that may have been refused before is taken.
    fn accept(&mut self, peer: SocketAddr, id: RpcId) {
        if !self.refused.is_empty() {
            self.refused.remove(&(peer, id));
        }
    }

    /// Whether a request was refused for want of room.
    pub(in crate::endpoint) fn is_refused(&self, peer: SocketAddr, id: RpcId) -> bool {
        self.refused.contains_key(&(peer, id))
    }

    /// A message need not wait for room to begin any more.
    pub(in crate::endpoint) fn forget_message(&mut self, peer: PeerKey, standing: Standing) {
        self.messages.remove(peer, standing);
    }

    /// A message need not wait for room to be granted any more.
    pub(in crate::endpoint) fn forget_ungranted(&mut self, peer: PeerKey, standing: Standing) {
        self.ungranted.remove(peer, standing);
    }

    /// A waiting message has another peer from now on. `room`: it waits for room to begin.
    pub(in crate::endpoint) fn follow(
        &mut self,
        room: bool,
        from: PeerKey,
        to: PeerKey,
        standing: Standing,
    ) {
        let list = if room {
            &mut self.messages
        } else {
            &mut self.ungranted
        };
        list.remove(from, standing);
        list.insert(to, standing);
    }

    /// Some of the room that `peer` had may have become free.
    fn on_room_freed(&mut self, peer: PeerKey) {
        self.room_freed = true;
        self.messages.make_ready(peer);
        self.ungranted.make_ready(peer);
    }

    /// Gives memory back that is no longer used.
    pub(in crate::endpoint) fn release(&mut self) {
        shrink(&mut self.refused);
        shrink_queue(&mut self.refused_order);
    }
}

impl Endpoint {
    /// Makes the record of a request of `client`, or notes that there is no room for it.
    pub(in crate::endpoint) fn insert_served(&mut self, arrival: &Arrival) -> Option<RpcKey> {
        let Arrival {
            now,
            peer: client,
            local,
            id,
            ..
        } = *arrival;
        let known = arrival.known_peer;
        let Some(peer) = known.or_else(|| self.peers.find_or_insert(client, now)) else {
            self.stats.requests_refused += 1;
            self.waiting.refuse(client, id, self.memory_clock.latest());
            return None;
        };
        if let Some(refusal) = self.refusal(peer, arrival) {
            self.refuse(peer, arrival, refusal);
            return None;
        }
        let stranger = self.is_stranger(peer, arrival);
        self.strangers += usize::from(stranger);
        let known = self.peers.get_mut(peer)?;
        let rpc = Rpc {
            id,
            peer,
            peer_links: Links::default(),
            at_rest: false,
            rest_links: Links::default(),
            moved_from: None,
            addr: client,
            local: Some(local),
            birth: self.births,
            cookie: 0,
            state: State::Receiving,
            few_unscheduled: false,
            out: None,
            inbound: None,
            waits_for_room: None,
            waits_for_grant: None,
            charged: 0,
            queued: None,
            counted_as_stranger: stranger,
            shown: arrival.tokens.own,
            held: false,
            liveness: Liveness::new(now, self.memory_clock.latest()),
            timer: None,
        };
        let key = self.table.insert(rpc, &mut known.rpc_list);
        self.peers.on_rpc_begun(peer, true);
        self.peers.on_receiving(peer, true);
        self.waiting.accept(client, id);
        self.births += 1;
        self.set_timer(key, now + self.config.resend_interval);
        Some(key)
    }

    /// Whether the request is begun by somebody who has not shown that he is there.
    fn is_stranger(&self, peer: PeerKey, arrival: &Arrival) -> bool {
        let told = self.peers.get(peer).map_or(0, |peer| peer.validation.told);
        !arrival.validated && (told == 0 || told != arrival.tokens.own)
    }

    /// The limit that leaves no room for one more request of `peer`. Strangers get half of the room of
    /// each limit, so that they don't keep out those who are known.
    fn refusal(&self, peer: PeerKey, arrival: &Arrival) -> Option<Refusal> {
        let served = self.peers.get(peer).map_or(0, Peer::served);
        let (rpcs, per_peer) = (self.config.rpcs_max, self.config.rpcs_per_peer_max);
        let stranger = self.is_stranger(peer, arrival);
        let share = |room: usize| if stranger { room.div_ceil(2) } else { room };
        let full = self.table.server_count() >= rpcs;
        if full || (stranger && self.strangers >= share(rpcs)) {
            return Some(Refusal::Rpcs);
        }
        (served >= share(per_peer)).then_some(Refusal::RpcsPerPeer)
    }

    /// Refuses a request. Over UDP its client is told, and the request is never executed; a stranger hears
    /// our token instead, so that he can send it again with that. On protocol 146 the client has to wait.
    fn refuse(&mut self, peer: PeerKey, arrival: &Arrival, refusal: Refusal) {
        self.stats.requests_refused += 1;
        if !self.validates {
            return self
                .waiting
                .refuse(arrival.peer, arrival.id, self.memory_clock.latest());
        }
        if self.is_stranger(peer, arrival) {
            return self.announce_cutoffs(arrival);
        }
        let (client, at) = (arrival.peer.ip(), self.memory_time());
        if !self.rules.breaks(Rule::RefusalsAreKept)
            && !self.replays.refuse(client, arrival.id, refusal, at)
        {
            self.on_forgotten();
        }
        self.stats.busy_sent += 1;
        self.reply(arrival, Packet::Busy(Busy::Refused(refusal)));
    }

    /// A RESEND has come for a request that is not known. True if it was refused before: then it is
    /// asked for again if there is room now, and its client told to wait if not. That it may have been
    /// refused is not enough: it may have been delivered and forgotten as well.
    pub(in crate::endpoint) fn resend_of_refused(&mut self, arrival: &Arrival) -> bool {
        let Arrival {
            now,
            peer: client,
            id,
            ..
        } = *arrival;
        let since = self.waiting.refused.get(&(client, id)).copied();
        let Some(since) = since.filter(|_| self.serving) else {
            return false;
        };
        if self.memory_clock.latest().saturating_since(since) >= self.standstill_max() {
            self.waiting.accept(client, id);
            return false;
        }
        if let Some(key) = self.insert_served(arrival) {
            self.ask_for_all(now, key);
        } else {
            self.stats.busy_sent += 1;
            self.reply(arrival, Packet::Busy(Busy::Waiting));
        }
        true
    }

    /// True if `bytes` more can be held for `peer`.
    pub(in crate::endpoint) fn has_room(&self, peer: PeerKey, bytes: usize) -> bool {
        self.has_room_in_all(bytes) && self.has_room_for(peer, bytes)
    }

    fn has_room_in_all(&self, bytes: usize) -> bool {
        self.inbound_bytes + bytes <= self.config.inbound_bytes_max
    }

    fn has_room_for(&self, peer: PeerKey, bytes: usize) -> bool {
        let held = self.peers.get(peer).map_or(0, |peer| peer.inbound_bytes);
        held + bytes <= self.config.inbound_bytes_per_peer_max
    }

    /// True if a message may begin whose first reserve is `bytes`. Beginnings get half of the room: the
    /// other half is for those that are granted, or many that have begun could keep each other from
    /// ending.
    pub(in crate::endpoint) fn has_room_to_begin(&self, peer: PeerKey, bytes: usize) -> bool {
        self.has_room_to_begin_in_all(bytes) && self.has_room_to_begin_for(peer, bytes)
    }

    fn has_room_to_begin_in_all(&self, bytes: usize) -> bool {
        self.inbound_bytes + bytes <= self.config.inbound_bytes_max / 2
    }

    fn has_room_to_begin_for(&self, peer: PeerKey, bytes: usize) -> bool {
        let held = self.peers.get(peer).map_or(0, |peer| peer.inbound_bytes);
        held + bytes <= self.config.inbound_bytes_per_peer_max / 2
    }

    /// Lets a message whose grant does not fit wait until it does.
    pub(in crate::endpoint) fn wait_for_grant(&mut self, key: RpcKey, length: u32) {
        self.grants.remove(key);
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        rpc.waits_for_grant = Some(length);
        self.stats.messages_deferred += 1;
        let standing = Standing::of(length, rpc.birth, key);
        self.waiting.ungranted.insert(rpc.peer, standing);
    }

    /// Lets a message of `length` bytes wait until there is room for it.
    pub(in crate::endpoint) fn wait_for_room(&mut self, key: RpcKey, length: u32) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if rpc.waits_for_room.is_none() {
            rpc.waits_for_room = Some(length);
            self.stats.messages_deferred += 1;
            let standing = Standing::of(length, rpc.birth, key);
            self.waiting.messages.insert(rpc.peer, standing);
        }
    }

    /// Lets messages go on for which there is room by now.
    pub(in crate::endpoint) fn admit_waiting(&mut self, now: Instant) {
        if std::mem::take(&mut self.waiting.room_freed) {
            self.admit_ungranted();
            self.admit_messages(now);
        }
    }

    /// Lets messages take part in granting again that waited for room for it, shortest first.
    fn admit_ungranted(&mut self) {
        let mut planned = Planned::default();
        while planned.messages < ADMITTED_MAX
            && let Some((peer, standing)) = self.waiting.ungranted.first_ready()
        {
            let key = standing.rpc;
            let held = self.table.get(key).map_or(0, |rpc| rpc.charged);
            let need = (standing.length as usize).saturating_sub(held);
            if !self.has_room_in_all(planned.bytes + need) {
                return;
            }
            if !self.has_room_for(peer, planned.of(peer) + need) {
                self.waiting.ungranted.not_ready(peer, standing);
                continue;
            }
            planned.add(peer, need);
            self.waiting.ungranted.remove(peer, standing);
            if let Some(rpc) = self.table.get_mut(key) {
                rpc.waits_for_grant = None;
            }
            self.report_progress(key);
        }
    }

    /// Asks for messages that could not begin, shortest first.
    fn admit_messages(&mut self, now: Instant) {
        let mut planned = Planned::default();
        while planned.messages < ADMITTED_MAX
            && let Some((peer, standing)) = self.waiting.messages.first_ready()
        {
            let need = self.first_reserve(standing.length);
            if !self.has_room_to_begin_in_all(planned.bytes + need) {
                return;
            }
            if !self.has_room_to_begin_for(peer, planned.of(peer) + need) {
                self.waiting.messages.not_ready(peer, standing);
                continue;
            }
            planned.add(peer, need);
            self.waiting.messages.remove(peer, standing);
            let key = standing.rpc;
            if let Some(rpc) = self.table.get_mut(key) {
                rpc.waits_for_room = None;
            }
            self.ask_for_all(now, key);
            self.set_timer(key, now + self.config.resend_interval);
        }
    }

    /// Bytes reserved for a message before anything of it is granted.
    pub(in crate::endpoint) fn first_reserve(&self, length: u32) -> usize {
        length.min(self.config.unscheduled_bytes) as usize
    }

    /// Source: homa_pool.c, `homa_pool_check_waiting`.
    fn ask_for_all(&mut self, now: Instant, key: RpcKey) {
        let priority = self.config.fifo_priority();
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        rpc.liveness.on_nothing_due(now);
        rpc.liveness.on_ask(now);
        self.stats.resends_sent += 1;
        let resend = Resend {
            offset: 0,
            length: None,
            priority,
        };
        self.send_about(key, Packet::Resend(resend));
    }

    /// Brings the books in line with what a message holds.
    pub(in crate::endpoint) fn charge(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let held = rpc.inbound.as_ref().map_or(0, |inbound| inbound.reserved());
        let (more, less) = (
            held.saturating_sub(rpc.charged),
            rpc.charged.saturating_sub(held),
        );
        rpc.charged = held;
        self.inbound_bytes = self.inbound_bytes + more - less;
        if let Some(peer) = self.peers.get_mut(rpc.peer) {
            peer.inbound_bytes = peer.inbound_bytes + more - less;
        }
        if less > 0 {
            self.waiting.on_room_freed(rpc.peer);
        }
    }

    /// Gives back what a message that is gone held.
    pub(in crate::endpoint) fn discharge(&mut self, rpc: &Rpc) {
        self.inbound_bytes -= rpc.charged;
        if let Some(peer) = self.peers.get_mut(rpc.peer) {
            peer.inbound_bytes -= rpc.charged;
        }
        self.waiting.on_room_freed(rpc.peer);
    }
}
