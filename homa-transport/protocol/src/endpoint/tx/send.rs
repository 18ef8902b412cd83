//! What leaves the endpoint, in which order: control packets, grants, then DATA by SRPT.

use std::net::{IpAddr, SocketAddr};

use crate::config::Wire;
use crate::endpoint::arrival::Arrival;
use crate::endpoint::diagnostics::trace::Record;
use crate::endpoint::grants::priority;
use crate::endpoint::messages::outbound::SegmentKind;
use crate::endpoint::pacer::{Choice, Rank};
use crate::endpoint::peers::peer::PeerKey;
use crate::endpoint::rpcs::rpc::State;
use crate::endpoint::{Endpoint, RpcKey, Transmit};
use crate::message::Message;
use crate::units::{Instant, RpcId};
use crate::wire::{
    self, Busy, DATA_HEADER_BYTES, Data, Grant, Header, HeaderBytes, Packet, Unknown,
};

/// Control packets waiting to be sent at most; the timers repeat what is dropped beyond.
const CONTROL_MAX: usize = 16_384;

impl Endpoint {
    /// The next packet to send, if any. Control packets come first, then the message with the
    /// fewest bytes left.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.token_key.advance(now);
        if let Some(part) = self.parts.pop_front() {
            self.stats.packets_sent += 1;
            self.stats.bytes_sent += part.len() as u64;
            return Some(part);
        }
        let transmit = match self.next_control(now) {
            Some(control) => {
                self.pacer.on_sent(now, control.len(), false);
                control
            }
            None => self.next_data(now)?,
        };
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += transmit.len() as u64;
        Some(transmit)
    }

    fn next_control(&mut self, now: Instant) -> Option<Transmit> {
        loop {
            self.admit_waiting(now);
            if self.control.is_empty() {
                self.queue_grant(now);
            }
            let control = self.control.pop_front()?;
            let transmit = self.control_packet(now, control);
            if transmit.is_some() {
                return transmit;
            }
        }
    }

    /// `None` if its receiver may not be sent so much.
    fn control_packet(&mut self, now: Instant, control: Control) -> Option<Transmit> {
        let peer = control.peer.or_else(|| self.peers.find(control.to));
        let header = self.header(control.to, peer, control.id, control.shown, &control.packet);
        if !control.validated
            && let Some(peer) = peer.and_then(|key| self.peers.get_mut(key))
            && !peer.validation.charge(header.as_slice().len())
        {
            return None;
        }
        self.trace.push(Record::of(
            now,
            true,
            control.to,
            control.id,
            &control.packet,
            0,
        ));
        Some(Transmit {
            to: control.to,
            from: control.from,
            priority: self.config.highest_priority(),
            header,
            payload: Message::new(),
        })
    }

    /// The header of a packet, with tokens where they are used.
    fn header(
        &mut self,
        to: SocketAddr,
        peer: Option<PeerKey>,
        sender_id: RpcId,
        shown: u64,
        packet: &Packet<'_>,
    ) -> HeaderBytes {
        let header = Header {
            source_port: self.local_port,
            destination_port: to.port(),
            sender_id,
        };
        let plain = wire::emit(&header, packet);
        if !self.validates {
            return plain;
        }
        plain.with_tokens(self.outgoing_tokens(to, peer, shown))
    }

    fn queue_grant(&mut self, now: Instant) {
        while let Some(grant) = self.grants.next(now) {
            let Some(rpc) = self.table.get_mut(grant.rpc) else {
                continue;
            };
            let Some(inbound) = rpc.inbound.as_ref() else {
                continue;
            };
            let (peer, length) = (rpc.peer, inbound.length());
            // The first grant reserves the whole message.
            let missing = (length as usize).saturating_sub(rpc.charged);
            if missing > 0 && !self.has_room(peer, missing) {
                self.wait_for_grant(grant.rpc, length);
                continue;
            }
            let Some(rpc) = self.table.get_mut(grant.rpc) else {
                continue;
            };
            let Some(inbound) = rpc.inbound.as_mut() else {
                continue;
            };
            inbound.grant(grant.offset, now);
            inbound.set_level(grant.priority);
            rpc.liveness.on_nothing_due(now);
            let rpc = grant.rpc;
            self.charge(rpc);
            self.set_timer(rpc, now + self.config.resend_interval);
            self.stats.grants_sent += 1;
            let grant = Grant {
                offset: grant.offset,
                priority: grant.priority,
            };
            return self.send_about(rpc, Packet::Grant(grant));
        }
    }

    fn next_data(&mut self, now: Instant) -> Option<Transmit> {
        loop {
            let key = match self.pacer.next(now) {
                Choice::Send(key) => key,
                Choice::Wait(until) => {
                    self.paced_until = Some(until);
                    return None;
                }
                Choice::Nothing => {
                    self.paced_until = None;
                    return None;
                }
            };
            self.paced_until = None;
            let transmit = self.next_data_of(key, now);
            let peer = self.table.get(key).map(|rpc| rpc.peer);
            self.enqueue(key);
            if let Some(transmit) = transmit {
                self.pacer.on_sent(now, transmit.len(), true);
                return Some(self.cut(now, peer, transmit));
            } else if self.table.get(key).is_none_or(|rpc| rpc.queued.is_some()) {
                debug_assert!(false, "{key:?} is queued and has nothing to send");
                return None;
            }
        }
    }

    /// Whether DATA of an RPC may go out. If not, what has to happen before is under way.
    fn may_send_data(&mut self, key: RpcKey, now: Instant) -> Option<()> {
        let rpc = self.table.get_mut(key)?;
        let out = rpc.out.as_mut()?;
        let memory = self.config.delivered_memory;
        let whole = rpc.id.is_client() && out.sent() == out.length();
        if whole && rpc.liveness.is_out_of_date(now, memory) {
            // The server may have executed the request, and forgotten that.
            out.forget_resends();
            rpc.liveness.asked_too_late = true;
            self.set_timer(key, now);
            return None;
        }
        let rpc = self.table.get(key)?;
        if !self.may_be_answered(rpc) {
            self.hold_response(now, key);
            return None;
        }
        Some(())
    }

    fn next_data_of(&mut self, key: RpcKey, now: Instant) -> Option<Transmit> {
        self.may_send_data(key, now)?;
        let validated = self.is_validated(self.table.get(key)?);
        let rpc = self.table.get_mut(key)?;
        let out = rpc.out.as_mut()?;
        let segment = out.next_segment(now)?;
        // In simulated experiments every one knows the cutoffs, and they apply to what is left.
        let (cutoffs, ranked_bytes) = match &self.rules.paper {
            Some(paper) => (paper.cutoffs, out.length() - segment.range.start),
            // Longer messages exist in experiments only; peers' cutoffs end there.
            None => {
                let whole = out.length().saturating_add(out.following());
                let length = whole.min(priority::LENGTH_MAX);
                (self.peers.cutoffs_of(rpc.peer), length)
            }
        };
        let peer = self.peers.get_mut(rpc.peer)?;
        let bytes = (segment.range.end - segment.range.start) as usize + DATA_HEADER_BYTES;
        if !validated {
            peer.validation.charge(bytes);
        }
        let shown = if rpc.id.is_client() {
            peer.validation.told
        } else {
            rpc.shown
        };
        let resent = segment.resent;
        let priority = match segment.kind {
            SegmentKind::Scheduled(priority) => priority,
            SegmentKind::Unscheduled => cutoffs.level(ranked_bytes),
        };
        let priority = priority.min(self.config.highest_priority());
        let data = Data {
            message_length: out.length(),
            incoming: self.rules.announced(segment.incoming),
            ack: peer.take_ack(),
            cutoff_version: cutoffs.version(),
            retransmit: resent,
            few_unscheduled: rpc.few_unscheduled && rpc.id.is_client(),
            following: Data::following_of(out.following()),
            offset: segment.range.start,
        };
        let payload = out.slice(&segment.range);
        if !out.is_sendable() {
            // Silence counts from the moment at which all that may be sent has been.
            rpc.liveness.quiet_since = now;
        }
        let answered = rpc.state == State::Responding && out.is_all_sent();
        if resent {
            self.stats.data_resent += 1;
        } else {
            rpc.liveness.advanced = self.memory_clock.latest();
            self.stats.data_sent += 1;
        }
        let packet = Packet::Data(data, &[]);
        let (to, from, id, peer) = (rpc.addr, rpc.local, rpc.id, rpc.peer);
        let record = Record::of(now, true, to, id, &packet, payload.len());
        self.trace.push(record);
        let transmit = Transmit {
            to,
            from,
            priority,
            header: self.header(to, Some(peer), id, shown, &packet),
            payload,
        };
        if answered {
            let wait = self.ack_wait(key);
            self.set_timer(key, now + wait);
        }
        Some(transmit)
    }

    /// Puts the RPC into its place in the send queue, or takes it out if it has nothing to send.
    pub(in crate::endpoint) fn enqueue(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let held = rpc.held;
        let sendable = rpc.out.as_ref().filter(|out| !held && out.is_sendable());
        let rank = sendable.map(|out| Rank {
            remaining: out.remaining_of_whole(),
            birth: rpc.birth,
        });
        if rank == rpc.queued {
            return;
        }
        if let Some(old) = rpc.queued {
            self.pacer.remove(key, old);
        }
        if let Some(new) = rank {
            self.pacer.insert(key, new);
        }
        rpc.queued = rank;
    }

    /// Queues a control packet about an RPC.
    pub(in crate::endpoint) fn send_about(&mut self, key: RpcKey, packet: Packet<'static>) {
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        let told = self.peers.get(rpc.peer).map(|peer| peer.validation.told);
        let control = Control {
            to: rpc.addr,
            peer: Some(rpc.peer),
            from: rpc.local,
            id: rpc.id,
            shown: if rpc.is_client() {
                told.unwrap_or(0)
            } else {
                rpc.shown
            },
            validated: self.is_validated(rpc),
            packet,
        };
        self.queue_control(control);
    }

    /// Queues one to another validated address of the client of an RPC.
    pub(in crate::endpoint) fn send_about_to(
        &mut self,
        key: RpcKey,
        (to, shown): (SocketAddr, u64),
        packet: Packet<'static>,
    ) {
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        let (from, id) = (rpc.local, rpc.id);
        self.queue_control(Control {
            to,
            peer: self.peers.find(to),
            from,
            id,
            shown,
            validated: true,
            packet,
        });
    }

    /// Queues the answer to a packet.
    pub(in crate::endpoint) fn reply(&mut self, arrival: &Arrival, packet: Packet<'static>) {
        self.queue_control(Control {
            to: arrival.peer,
            peer: arrival.known_peer,
            from: Some(arrival.local),
            id: arrival.id,
            shown: arrival.tokens.own,
            validated: arrival.validated,
            packet,
        });
    }

    /// Queues a control packet about an RPC of ours (`id`) that is over.
    pub(in crate::endpoint) fn send_to_server(
        &mut self,
        to: SocketAddr,
        from: Option<IpAddr>,
        id: RpcId,
        packet: Packet<'static>,
    ) {
        let peer = self.peers.find(to);
        let told = peer.and_then(|key| self.peers.get(key));
        self.queue_control(Control {
            to,
            peer,
            from,
            id,
            shown: told.map_or(0, |peer| peer.validation.told),
            validated: true,
            packet,
        });
    }

    fn queue_control(&mut self, mut control: Control) {
        if self.wire == Wire::Native {
            // The module's packets give no reasons.
            control.packet = match control.packet {
                Packet::Busy(_) => Packet::Busy(Busy::Unexplained),
                Packet::RpcUnknown(_) => Packet::RpcUnknown(Unknown::Unexplained),
                packet => packet,
            };
        }
        if self.control.len() < CONTROL_MAX {
            self.control.push_back(control);
        }
    }
}

/// A control packet that waits to be sent.
#[derive(Debug)]
pub(in crate::endpoint) struct Control {
    to: SocketAddr,
    /// The same, if it is known.
    peer: Option<PeerKey>,
    from: Option<IpAddr>,
    /// The RPC in our form.
    id: RpcId,
    /// The token that its receiver wants to see.
    shown: u64,
    /// Its receiver has shown that it is there, or need not.
    validated: bool,
    packet: Packet<'static>,
}
