//! Packets that come in: screening, and DATA. `control.rs` has the other types.

use std::net::{IpAddr, SocketAddr};

use crate::config::Wire;
use crate::endpoint::arrival::Arrival;
use crate::endpoint::diagnostics::trace::Record;
use crate::endpoint::peers::peer::{Peer, PeerKey};
use crate::endpoint::profile::rules::Rule;
use crate::endpoint::rx::address_validation::Sender;
use crate::endpoint::{Endpoint, Event, RpcKey};
use crate::units::Instant;
use crate::wire::{self, Busy, Data, Header, Malformed, Packet, Tokens};

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
        // Over UDP an unexplained BUSY is no answer: it comes unasked.
        let unasked = self.validates && matches!(packet, Packet::Busy(Busy::Unexplained));
        if !matches!(packet, Packet::RpcUnknown(_))
            && !unasked
            && let Some(entry) = rpc.and_then(|key| self.table.get_mut(key))
        {
            entry.liveness.on_heard(now, self.config.delivered_memory);
        }
        let answers = match packet {
            Packet::Busy(_) => !unasked,
            Packet::Grant(_) | Packet::RpcUnknown(_) => true,
            _ => false,
        };
        if let Some(peer) = arrival.known_peer
            && arrival.id.is_client()
            && answers
        {
            self.on_answered(now, peer);
        } else if let Some(key) = rpc {
            self.heard_at_rest(key);
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
    pub(in crate::endpoint) fn sender_of(&mut self, arrival: &Arrival) -> Option<&mut Peer> {
        let key = self.sender_key(arrival)?;
        self.peers.get_mut(key)
    }

    pub(in crate::endpoint) fn sender_key(&self, arrival: &Arrival) -> Option<PeerKey> {
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

    // ---- DATA ----

    /// A client is the same whatever its port.
    fn is_same_client(&self, key: RpcKey, arrival: &Arrival) -> bool {
        !self.rules.breaks(Rule::ClientsKeepTheirIds)
            || self
                .table
                .get(key)
                .is_some_and(|rpc| rpc.addr == arrival.peer)
    }
}
