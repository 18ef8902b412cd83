//! What leaves the endpoint, in which order: control packets, grants, then DATA by SRPT.

use std::net::{IpAddr, SocketAddr};

use super::outbound::SegmentKind;
use super::pacer::{Choice, Rank};
use super::peer::PeerKey;
use super::priority;
use super::rpc::State;
use super::trace::Record;
use super::{Endpoint, RpcKey, Transmit};
use crate::message::Message;
use crate::units::{Instant, RpcId};
use crate::wire::{self, DATA_HEADER_BYTES, Data, Grant, Header, Packet};

/// Control packets waiting to be sent at most; the timers repeat what is dropped beyond.
const CONTROL_MAX: usize = 16_384;

impl Endpoint {
    /// The next packet to send, if any. Control packets come first, then the message with the
    /// fewest bytes left.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
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
        let Control {
            to,
            peer,
            from,
            id,
            packet,
        } = control;
        let header = Header {
            source_port: self.local_port,
            destination_port: to.port(),
            sender_id: id,
        };
        let emitted = wire::emit(&header, &packet);
        let len = emitted.as_slice().len();
        let peer = peer.or_else(|| self.peers.find(to));
        if let Some(peer) = peer.and_then(|key| self.peers.get_mut(key)) {
            if !id.is_client() && !peer.contact.allows(len) {
                return None;
            }
            peer.on_sent(len, id.is_client());
        }
        self.trace
            .push(Record::of(now, true, to, &header, &packet, 0));
        Some(Transmit {
            to,
            from,
            priority: self.config.highest_priority(),
            header: emitted,
            payload: Message::new(),
        })
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
            rpc.liveness.on_nothing_due(now);
            let (addr, local, id) = (rpc.addr, rpc.local, rpc.id);
            self.charge(grant.rpc);
            self.set_timer(grant.rpc, now + self.config.resend_interval);
            self.stats.grants_sent += 1;
            let grant = Grant {
                offset: grant.offset,
                priority: grant.priority,
            };
            self.control.push_back(Control {
                to: addr,
                peer: Some(peer),
                from: local,
                id,
                packet: Packet::Grant(grant),
            });
            return;
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
            self.enqueue(key);
            if let Some(transmit) = &transmit {
                self.pacer.on_sent(now, transmit.len(), true);
            } else if self.table.get(key).is_none_or(|rpc| rpc.queued.is_some()) {
                debug_assert!(false, "{key:?} is queued and has nothing to send");
                return None;
            } else {
                continue;
            }
            return transmit;
        }
    }

    fn next_data_of(&mut self, key: RpcKey, now: Instant) -> Option<Transmit> {
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
        let contact = self.peers.get(rpc.peer).map(|peer| &peer.contact);
        if !rpc.id.is_client() && contact.is_some_and(|contact| !contact.allows_response(out)) {
            self.hold_response(now, key);
            return None;
        }
        let segment = out.next_segment()?;
        // In simulated experiments every one knows the cutoffs, and they apply to what is left.
        let (cutoffs, ranked_bytes) = match &self.rules.paper {
            Some(paper) => (paper.cutoffs, out.length() - segment.range.start),
            // Longer messages exist in experiments only; peers' cutoffs end there.
            None => {
                let length = out.length().min(priority::LENGTH_MAX);
                (self.peers.cutoffs_of(rpc.peer), length)
            }
        };
        let peer = self.peers.get_mut(rpc.peer)?;
        let bytes = (segment.range.end - segment.range.start) as usize + DATA_HEADER_BYTES;
        peer.on_sent(bytes, rpc.id.is_client());
        let resent = segment.resent;
        let priority = match segment.kind {
            SegmentKind::Scheduled(priority) => priority,
            SegmentKind::Unscheduled => cutoffs.level(ranked_bytes),
        };
        let priority = priority.min(self.config.highest_priority());
        let header = Header {
            source_port: self.local_port,
            destination_port: rpc.addr.port(),
            sender_id: rpc.id,
        };
        let data = Data {
            message_length: out.length(),
            incoming: segment.incoming,
            ack: peer.take_ack(),
            cutoff_version: cutoffs.version(),
            retransmit: resent,
            few_unscheduled: rpc.few_unscheduled && rpc.id.is_client(),
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
            self.stats.data_sent += 1;
        }
        let packet = Packet::Data(data, &[]);
        self.trace.push(Record::of(
            now,
            true,
            rpc.addr,
            &header,
            &packet,
            payload.len(),
        ));
        let transmit = Transmit {
            to: rpc.addr,
            from: rpc.local,
            priority,
            header: wire::emit(&header, &packet),
            payload,
        };
        if answered {
            self.set_timer(key, now + self.config.need_ack_delay);
        }
        Some(transmit)
    }

    /// Puts the RPC into its place in the send queue, or takes it out if it has nothing to send.
    pub(super) fn enqueue(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let held = rpc.held;
        let sendable = rpc.out.as_ref().filter(|out| !held && out.is_sendable());
        let rank = sendable.map(|out| Rank {
            remaining: out.remaining(),
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

    /// Queues a control packet about the RPC `id` (in our form).
    pub(super) fn send_control(
        &mut self,
        to: SocketAddr,
        from: Option<IpAddr>,
        id: RpcId,
        packet: Packet<'static>,
    ) {
        if self.control.len() < CONTROL_MAX {
            self.control.push_back(Control {
                to,
                peer: None,
                from,
                id,
                packet,
            });
        }
    }
}

/// A control packet that waits to be sent.
#[derive(Debug)]
pub(super) struct Control {
    to: SocketAddr,
    /// The same, if it need not be looked up.
    peer: Option<PeerKey>,
    from: Option<IpAddr>,
    id: RpcId,
    packet: Packet<'static>,
}
