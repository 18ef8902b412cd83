//! Packets that come in: screening, and DATA. `control.rs` has the other types.

use std::net::{IpAddr, SocketAddr};

use super::address_validation::Sender;
use super::grant::Progress;
use super::inbound::{Added, InMessage};
use super::peer::{Peer, PeerKey};
use super::rpc::State;
use super::rules::Rule;
use super::trace::Record;
use super::wait_list::Standing;
use super::{Endpoint, Event, RpcKey};
use crate::config::Wire;
use crate::error::RpcError;
use crate::units::{Instant, RpcId};
use crate::wire::{self, Data, Header, Malformed, Packet, Tokens};

/// Bytes of a message that may be missing in front of a packet. Keeps a single packet from making
/// us reserve a whole message.
const JUMP_BYTES_MAX: u32 = 131_072;

/// The header of a packet with where it came from and where it went to.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) now: Instant,
    pub(super) peer: SocketAddr,
    pub(super) local: IpAddr,
    /// What is known of the sender, if it was known before.
    pub(super) known_peer: Option<PeerKey>,
    /// The RPC in our form.
    pub(super) id: RpcId,
    /// Over UDP.
    pub(super) tokens: Tokens,
    /// It shows our token, or need not.
    pub(super) validated: bool,
}

impl Endpoint {
    /// Takes a packet that `peer` sent to our address `local`. Whatever is wrong with it is counted.
    pub fn handle_packet(&mut self, now: Instant, peer: SocketAddr, local: IpAddr, packet: &[u8]) {
        self.stats.packets_received += 1;
        self.stats.bytes_received += packet.len() as u64;
        match wire::parse(packet) {
            Ok((_, Packet::StartMsg(_))) if !self.knows_start_msg() => {
                self.stats.malformed_type += 1
            }
            Ok(parsed) => self.dispatch(now, peer, local, packet, parsed),
            Err(malformed) => self.count_malformed(&malformed),
        }
    }

    const fn count_malformed(&mut self, malformed: &Malformed) {
        if malformed.is_truncated() {
            self.stats.malformed_truncated += 1;
        } else if malformed.is_unknown_type() {
            self.stats.malformed_type += 1;
        } else {
            self.stats.malformed_field += 1;
        }
    }

    fn dispatch(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        local: IpAddr,
        bytes: &[u8],
        (header, packet): (Header, Packet<'_>),
    ) {
        self.memory_clock.at(now);
        let data_bytes = if let Packet::Data(_, data) = &packet {
            data.len()
        } else {
            0
        };
        self.trace.push(Record::of(
            now,
            false,
            peer,
            header.sender_id,
            &packet,
            data_bytes,
        ));
        if matches!(packet, Packet::Freeze) {
            if self.config.freeze {
                self.events.push_back(Event::Frozen);
            }
            return;
        }
        if self.wire == Wire::Native && header.destination_port != self.local_port {
            self.stats.wrong_port += 1;
            return;
        }
        let known_peer = self.peers.find(peer);
        let tokens = if self.validates {
            Tokens::of(bytes)
        } else {
            Tokens::default()
        };
        let sender = Sender {
            addr: peer,
            key: known_peer,
        };
        self.token_key.advance(now);
        let arrival = Arrival {
            now,
            peer,
            local,
            known_peer,
            id: header.sender_id.other_side(),
            tokens,
            validated: self.shows_token(&sender, tokens),
        };
        let rpc = self.find(&arrival);
        if arrival.validated {
            if let Some(key) = rpc {
                self.follow_client(&arrival, key);
            }
            self.on_validated(&arrival, rpc);
            self.packet(arrival, rpc, packet);
            if known_peer.is_none() {
                // It has become known by this very packet.
                self.on_validated(&arrival, None);
            }
        } else {
            self.packet_without_token(arrival, rpc, packet);
            if let Some(peer) = self.sender_of(&arrival) {
                peer.validation.on_received(bytes.len());
            }
        }
    }

    /// What an authentic packet does, as far as that can be said.
    fn packet(&mut self, arrival: Arrival, rpc: Option<RpcKey>, packet: Packet<'_>) {
        self.heard(&arrival, rpc, &packet);
        match (packet, rpc) {
            (Packet::Data(data, bytes), rpc) => self.data(arrival, rpc, data, bytes),
            (Packet::StartMsg(start), rpc) => self.start_msg(arrival, rpc, start),
            (Packet::Resend(resend), rpc) => self.resend(arrival, rpc, resend),
            (Packet::NeedAck, rpc) => self.need_ack(arrival, rpc),
            (Packet::Ack(acks), _) => self.acks(arrival, &acks),
            (Packet::Cutoffs(cutoffs), _) => self.cutoffs_heard(&arrival, cutoffs),
            (Packet::RpcUnknown(_), None) => self.cancelled_unseen(&arrival),
            (_, None) => self.stats.rpc_not_found += 1,
            (Packet::Grant(grant), Some(key)) => self.grant(arrival.now, key, grant),
            (Packet::Busy(busy), Some(key)) => self.busy(arrival.now, key, busy),
            (Packet::RpcUnknown(unknown), Some(key)) => self.rpc_unknown(arrival, key, unknown),
            (Packet::Freeze, Some(_)) => {}
        }
    }

    /// Notes that the sender lives, and the other end of the RPC.
    fn heard(&mut self, arrival: &Arrival, rpc: Option<RpcKey>, packet: &Packet<'_>) {
        let now = arrival.now;
        let peer = arrival.known_peer.and_then(|key| self.peers.get_mut(key));
        if let Some(peer) = peer {
            peer.on_heard(now);
        }
        if !matches!(packet, Packet::RpcUnknown(_))
            && let Some(entry) = rpc.and_then(|key| self.table.get_mut(key))
        {
            entry.liveness.on_heard(now, self.config.delivered_memory);
        }
    }

    /// What a packet does that anybody may have sent: DATA may begin a request and go on with it, a
    /// RESEND may be answered by what is no longer than itself. Of all else, the sender hears our token
    /// at most.
    fn packet_without_token(&mut self, arrival: Arrival, rpc: Option<RpcKey>, packet: Packet<'_>) {
        self.stats.packets_without_token += 1;
        if arrival.id.is_client() {
            return;
        }
        match (packet, rpc) {
            (Packet::Data(data, bytes), None) => {
                let data = Data { ack: None, ..data };
                self.data(arrival, None, data, bytes);
            }
            (Packet::Data(data, bytes), Some(key)) => {
                let shown = self.table.get(key).map(|rpc| rpc.shown);
                let moved = self
                    .table
                    .get(key)
                    .is_some_and(|rpc| rpc.addr != arrival.peer);
                if moved {
                    self.announce_cutoffs(&arrival);
                }
                if shown == Some(arrival.tokens.own) {
                    let data = Data { ack: None, ..data };
                    self.heard(&arrival, rpc, &Packet::Data(data, bytes));
                    self.data(arrival, rpc, data, bytes);
                } else {
                    self.announce_cutoffs(&arrival);
                }
            }
            (Packet::Resend(resend), None) => self.resend(arrival, None, resend),
            (_, Some(_)) => self.announce_cutoffs(&arrival),
            (_, None) => self.stats.rpc_not_found += 1,
        }
    }

    /// The sender of a packet. It may have become known by this very packet.
    pub(super) fn sender_of(&mut self, arrival: &Arrival) -> Option<&mut Peer> {
        let key = self.sender_key(arrival)?;
        self.peers.get_mut(key)
    }

    pub(super) fn sender_key(&self, arrival: &Arrival) -> Option<PeerKey> {
        let known = arrival.known_peer;
        known.or_else(|| self.peers.find(arrival.peer))
    }

    fn find(&self, arrival: &Arrival) -> Option<RpcKey> {
        if arrival.id.is_client() {
            self.table.find_client(arrival.peer, arrival.id)
        } else {
            let served = self
                .table
                .find_server(arrival.peer, arrival.local, arrival.id);
            served.filter(|key| self.is_same_client(*key, arrival))
        }
    }

    /// A client is the same whatever its port.
    fn is_same_client(&self, key: RpcKey, arrival: &Arrival) -> bool {
        !self.rules.breaks(Rule::ClientsKeepTheirIds)
            || self
                .table
                .get(key)
                .is_some_and(|rpc| rpc.addr == arrival.peer)
    }

    // ---- DATA ----

    fn data(&mut self, arrival: Arrival, rpc: Option<RpcKey>, data: Data, bytes: &[u8]) {
        if let Some(ack) = data.ack {
            self.acked(&arrival, ack);
        }
        let end = data.message_length.saturating_sub(data.offset) as usize;
        let bytes = match bytes.get(..end) {
            Some(message_part) if self.wire == Wire::Encapsulated => message_part,
            Some(message_part) if message_part.len() < bytes.len() => {
                self.stats.data_contradictory += 1;
                return;
            }
            _ => bytes,
        };
        let key = match rpc {
            Some(key) => key,
            None if arrival.id.is_client() => {
                self.stats.rpc_not_found += 1;
                return;
            }
            None => match self.new_served(&arrival, &data) {
                Some(key) => key,
                None => return,
            },
        };
        if data.cutoff_version != self.cutoffs.version() {
            self.announce_cutoffs(&arrival);
        }
        let granted = self.rules.expected(data.incoming, data.message_length);
        if self.open_message(&arrival, key, &data, granted) {
            self.add_data(&arrival, key, &data, bytes);
        }
    }

    /// A request begins: makes its RPC, unless there is a reason not to.
    pub(super) fn new_served(&mut self, arrival: &Arrival, data: &Data) -> Option<RpcKey> {
        if !self.serving {
            self.stats.requests_unserved += 1;
            return None;
        }
        if data.message_length as usize > self.rules.message_bytes_max {
            self.stats.data_contradictory += 1;
            return None;
        }
        if data.offset == 0 && self.refuse_again(arrival) {
            return None;
        }
        if self.was_delivered(arrival) {
            self.stats.duplicate_requests += 1;
            return None;
        }
        let key = self.insert_served(arrival)?;
        if let Some(rpc) = self.table.get_mut(key) {
            rpc.few_unscheduled = data.few_unscheduled;
        }
        Some(key)
    }

    /// Makes sure that the RPC has an incoming message that fits `data`, and of which the bytes below
    /// `granted` come unasked if it is new. False: drop the packet.
    pub(super) fn open_message(
        &mut self,
        arrival: &Arrival,
        key: RpcKey,
        data: &Data,
        granted: u32,
    ) -> bool {
        let Some(rpc) = self.table.get_mut(key) else {
            return false;
        };
        match rpc.state {
            State::InService | State::Responding | State::Abandoned => {
                self.stats.data_duplicate += 1;
                return false;
            }
            State::Outgoing | State::Incoming | State::Receiving => {}
        }
        if let Some(inbound) = &rpc.inbound {
            let fits = inbound.length() == data.message_length;
            self.stats.data_contradictory += u64::from(!fits);
            return fits;
        }
        rpc.local.get_or_insert(arrival.local);
        let len = data.message_length as usize;
        if len > self.rules.message_bytes_max && !rpc.is_client() {
            self.stats.data_contradictory += 1;
            return false;
        }
        if len > self.rules.message_bytes_max {
            let error = RpcError::ResponseTooLong {
                peer: rpc.addr,
                len,
                max: self.rules.message_bytes_max,
            };
            self.fail_and_ack(key, error);
            return false;
        }
        let peer = rpc.peer;
        if !self.has_room_to_begin(peer, self.first_reserve(data.message_length)) {
            if let Some(rpc) = self.table.get_mut(key) {
                rpc.liveness.on_progress(arrival.now);
            }
            self.wait_for_room(key, data.message_length);
            return false;
        }
        let Some(rpc) = self.table.get_mut(key) else {
            return false;
        };
        if let Some(length) = rpc.waits_for_room.take() {
            let standing = Standing::of(length, rpc.birth, key);
            self.waiting.forget_message(rpc.peer, standing);
        }
        if rpc.state == State::Outgoing {
            rpc.state = State::Incoming;
            self.packets_arrived(arrival.now, key);
        }
        let Some(rpc) = self.table.get_mut(key) else {
            return false;
        };
        let reserve = self.config.unscheduled_bytes;
        let mut inbound = if self.rules.keeps_payload {
            InMessage::new(data.message_length, granted, reserve)
        } else {
            InMessage::counted(data.message_length, granted)
        };
        inbound.await_granted(arrival.now);
        rpc.inbound = Some(inbound);
        self.charge(key);
        self.size_seen(data.message_length);
        true
    }

    fn add_data(&mut self, arrival: &Arrival, key: RpcKey, data: &Data, bytes: &[u8]) {
        let now = arrival.now;
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let Some(inbound) = rpc.inbound.as_mut() else {
            return;
        };
        let reach = inbound.received().saturating_add(JUMP_BYTES_MAX);
        // A buffer that grows does so by doubling at most.
        let end = data.offset as usize + bytes.len();
        let growth = (2 * end).saturating_sub(rpc.charged);
        let peer = rpc.peer;
        let fits = end <= rpc.charged || self.has_room(peer, growth);
        if data.offset > reach || !fits {
            self.stats.data_ungranted += 1;
            return;
        }
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let Some(inbound) = rpc.inbound.as_mut() else {
            return;
        };
        let added = inbound.add(data.offset, bytes);
        self.charge(key);
        match added {
            Added::New => self.measure(now, key, data, bytes.len()),
            Added::Duplicate => {
                self.stats.data_duplicate += 1;
                return;
            }
            Added::Refused => {
                self.stats.data_ungranted += 1;
                return;
            }
        }
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let Some(inbound) = rpc.inbound.as_ref() else {
            return;
        };
        rpc.liveness.on_progress(now);
        rpc.liveness.advanced = self.memory_clock.latest();
        rpc.liveness.resends_of_request = 0;
        rpc.liveness.busy = 0;
        if inbound.is_complete() {
            self.grants.remove(key);
            self.message_complete(arrival, key);
        } else if inbound.granted() < inbound.length() || self.grants.knows(key) {
            self.report_progress(key);
        }
    }

    /// Bytes have come that were granted or asked for: notes how long that took.
    fn measure(&mut self, now: Instant, key: RpcKey, data: &Data, len: usize) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let (Some(inbound), Some(peer)) = (rpc.inbound.as_mut(), self.peers.get_mut(rpc.peer))
        else {
            return;
        };
        let len = u32::try_from(len).unwrap_or(0);
        let end = data.offset.saturating_add(len);
        if let Some(took) = inbound.took(data.offset..end, data.retransmit, now) {
            peer.lateness.on_arrival(took.time);
            // After a RESEND it may be that the GRANT was lost.
            let unasked = rpc.liveness.asked + took.time <= now;
            if took.is_delay && unasked {
                peer.delay.on_sample(took.time);
            }
        }
        let liveness = &rpc.liveness;
        if data.retransmit && liveness.asks == 1 && liveness.unanswered == 1 {
            peer.delay.on_sample(now.saturating_since(liveness.asked));
        }
    }

    /// Tells the grant scheduler where a message stands.
    pub(super) fn report_progress(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        let Some(inbound) = rpc
            .inbound
            .as_ref()
            .filter(|_| rpc.waits_for_grant.is_none())
        else {
            return;
        };
        let progress = Progress {
            peer: rpc.addr.ip(),
            birth: rpc.birth,
            length: inbound.length(),
            received: inbound.received(),
            granted: inbound.granted(),
        };
        self.grants.on_progress(key, progress);
    }

    fn message_complete(&mut self, arrival: &Arrival, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let started = rpc.inbound.as_ref().is_some_and(InMessage::is_started);
        let Some(message) = rpc.inbound.take().map(InMessage::into_bytes) else {
            return;
        };
        let is_client = rpc.is_client();
        if started {
            let peer = rpc.peer;
            self.started_whole(peer);
        }
        self.charge(key);
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if is_client {
            let Some(rpc) = self.remove(key) else { return };
            self.stats.responses_received += 1;
            self.owe_ack(&rpc);
            self.events.push_back(Event::Response {
                cookie: rpc.cookie,
                message,
            });
            return;
        }
        rpc.state = State::InService;
        rpc.liveness.on_nothing_due(arrival.now);
        let peer = rpc.addr;
        self.stats.requests_received += 1;
        self.events.push_back(Event::Request {
            rpc: key,
            peer,
            message,
        });
    }

    /// Fails a call whose response cannot be taken; its server may forget it.
    fn fail_and_ack(&mut self, key: RpcKey, error: RpcError) {
        if let Some(rpc) = self.remove(key) {
            self.owe_ack(&rpc);
            self.stats.rpcs_failed += 1;
            self.events.push_back(Event::Failed {
                cookie: rpc.cookie,
                error,
            });
        }
    }
}
