//! DATA: what it begins, what it completes.

use crate::config::Wire;
use crate::endpoint::arrival::Arrival;
use crate::endpoint::grants::scheduler::Progress;
use crate::endpoint::memory::wait_list::Standing;
use crate::endpoint::messages::inbound::{Added, InMessage};
use crate::endpoint::rpcs::rpc::State;
use crate::endpoint::{Endpoint, Event, RpcKey};
use crate::error::RpcError;
use crate::units::Instant;
use crate::wire::Data;

/// Bytes of a message that may be missing in front of a packet for which no room was made yet. Keeps a single
/// packet from making us reserve a whole message. (Where it was made, packets may overtake as many as are
/// granted: those of a grant at a higher level do.)
const JUMP_BYTES_MAX: u32 = 131_072;

impl Endpoint {
    pub(in crate::endpoint) fn data(
        &mut self,
        arrival: Arrival,
        rpc: Option<RpcKey>,
        data: Data,
        bytes: &[u8],
    ) {
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
    pub(in crate::endpoint) fn new_served(
        &mut self,
        arrival: &Arrival,
        data: &Data,
    ) -> Option<RpcKey> {
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
    pub(in crate::endpoint) fn open_message(
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
        if rpc.is_client() {
            self.wake_call(arrival.now, key);
            self.measure_resends(key);
        }
        let Some(rpc) = self.table.get(key) else {
            return false;
        };
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
        let reserved = end <= rpc.charged || !self.rules.keeps_payload;
        let fits = data.offset <= reach && self.has_room(peer, growth);
        if !reserved && !fits {
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
        inbound.on_following(data.following_bytes());
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
        if rpc.state == State::Receiving
            && let Some(peer) = self.peers.get_mut(rpc.peer)
        {
            peer.request_advanced = Some(rpc.liveness.advanced);
        }
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
            peer.grant_delay.on_arrival(took.time);
            // After a RESEND it may be that the GRANT was lost.
            let unasked = rpc.liveness.asked + took.time <= now;
            if took.is_delay && unasked {
                peer.round_trip.on_sample(took.time);
            }
        }
        let liveness = &rpc.liveness;
        if data.retransmit && liveness.asks == 1 && liveness.unanswered == 1 {
            peer.round_trip
                .on_sample(now.saturating_since(liveness.asked));
        }
    }

    /// Tells the grant scheduler where a message stands.
    pub(in crate::endpoint) fn report_progress(&mut self, key: RpcKey) {
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
            following: inbound.following(),
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
        self.peers.on_receiving(rpc.peer, false);
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
