//! Packets on their way between the endpoints of a world.

use super::addresses::AddressId;
use super::event::WorldEvent;
use super::host::{Host, Running};
use super::invariant::Breach;
use super::network::Arrival;
use super::oracle::Sent;
use super::packet::PacketId;
use super::trace::{Record, Summary, What};
use super::world::{REPORT_DELAY, World};
use homa_protocol::config::Wire;
use homa_protocol::units::{Instant, Priority};
use homa_protocol::wire;

impl World {
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Result<(), Breach> {
        self.step += 1;
        let bytes = self.network.bytes(arrival.packet).len();
        let forged = self.network.mark_of(arrival.packet) & 1 == 1;
        let queue = self.scenario.receive_queue;
        let Some(host) = self.hosts.get_mut(arrival.to) else {
            return Ok(());
        };
        match (host.state, queue) {
            (Running::Dead { reported }, _) => {
                // No report gets through the NAT, and none to those in whose name packets are forged.
                if reported && !forged && !self.addresses.is_behind_nat(arrival.to) {
                    let about = wire::quoted_id(self.network.bytes(arrival.packet));
                    let happening = WorldEvent::Report(arrival.from, arrival.to, about);
                    self.at(self.now + REPORT_DELAY, happening);
                }
            }
            (_, Some(queue)) => {
                if host.queue(arrival.packet, queue.packets_max) {
                    self.set_next_receipt(arrival.to);
                    return Ok(());
                }
                self.totals.overrun += 1;
            }
            (Running::Runs, None) => {
                self.deliver(arrival.to, arrival.packet)?;
                return self.serve(arrival.to);
            }
            (Running::Stalled, None) => {
                if host.keep(arrival.packet, bytes) {
                    return Ok(());
                }
            }
        }
        self.totals.missed += 1;
        self.network.release(arrival.packet);
        Ok(())
    }

    /// Sets when a host takes the next packet out of its receive queue, if there is one.
    pub(super) fn set_next_receipt(&mut self, at: usize) {
        let (Some(queue), Some(host)) = (self.scenario.receive_queue, self.hosts.get_mut(at))
        else {
            return;
        };
        if host.is_behind() && host.runs() && !host.receiving {
            host.receiving = true;
            self.at(self.now + queue.per_packet, WorldEvent::Receive(at));
        }
    }

    /// A host takes a packet out of its receive queue, if its process runs.
    pub(super) fn receive(&mut self, at: usize) -> Result<(), Breach> {
        let Some(host) = self.hosts.get_mut(at) else {
            return Ok(());
        };
        host.receiving = false;
        if !host.runs() {
            return Ok(());
        }
        if let Some(packet) = host.take_queued() {
            self.deliver(at, packet)?;
        }
        self.set_next_receipt(at);
        self.serve(at)
    }

    /// The packets in the receive queue of a process that dies are lost.
    pub(super) fn empty_queue(&mut self, at: usize) {
        while let Some(packet) = self.hosts.get_mut(at).and_then(Host::take_queued) {
            self.network.release(packet);
        }
    }

    pub(super) fn deliver(&mut self, at: usize, packet: PacketId) -> Result<(), Breach> {
        let mark = self.network.mark_of(packet);
        if mark & 1 == 1 {
            return self.deliver_forged(at, packet);
        }
        let from = AddressId(mark >> 1);
        let (party, peer) = (self.addresses.party(from), self.addresses.addr(from));
        let (Some(peer), Some(host)) = (peer, self.hosts.get_mut(at)) else {
            return Ok(());
        };
        let bytes = self.network.bytes(packet);
        let (now, local) = (host.clock.local(self.now), host.addr.ip());
        host.endpoint.handle_packet(now, peer, local, bytes);
        let parsed = wire::parse(bytes);
        let (endpoint, addresses) = (&host.endpoint, &self.addresses);
        self.oracle.on_received(at, party, &parsed, |peer, id| {
            endpoint.find_rpc(addresses.addr_of(peer)?, local, id.other_side())
        });
        if self.addresses.is_never_called(from) {
            self.oracle.unproven.on_received(at, from, bytes, false);
        }
        self.trace.add(Record {
            step: self.step,
            at: self.now,
            host: at,
            what: What::Received(Summary::of(party, &parsed, bytes.len())),
        });
        self.network.release(packet);
        Ok(())
    }

    /// Lets a host do what follows from what it was told.
    pub(super) fn serve(&mut self, at: usize) -> Result<(), Breach> {
        if !self.hosts.get(at).is_some_and(Host::runs) {
            return Ok(());
        }
        self.take_events(at)?;
        self.transmit(at)?;
        self.set_timer(at);
        let levels = self.levels(at);
        self.oracle.on_levels(at, &levels)
    }

    pub(super) fn take_events(&mut self, at: usize) -> Result<(), Breach> {
        while let Some(event) = self
            .hosts
            .get_mut(at)
            .and_then(|host| host.endpoint.poll_event())
        {
            let Some(defect) = &mut self.defect else {
                self.on_event(at, event)?;
                continue;
            };
            let mut seen = Vec::new();
            defect.on_event(at, event, &mut seen);
            for event in seen {
                self.on_event(at, event)?;
            }
        }
        Ok(())
    }

    /// Hands packets to the link of a host as long as it takes them.
    fn transmit(&mut self, at: usize) -> Result<(), Breach> {
        loop {
            let Some(host) = self.hosts.get_mut(at) else {
                return Ok(());
            };
            if host.awaits_link {
                return Ok(());
            }
            let free = self.network.free_at(at);
            if free > self.now + self.scenario.link_backlog {
                host.awaits_link = true;
                let ahead = self.scenario.link_backlog.as_nanos();
                let ahead = u64::try_from(ahead).unwrap_or(0);
                let word = Instant::from_nanos(free.as_nanos().saturating_sub(ahead));
                self.at(word.max(self.now), WorldEvent::Link(at));
                return Ok(());
            }
            let now = host.clock.local(self.now);
            let Some(transmit) = host.endpoint.poll_transmit(now) else {
                return Ok(());
            };
            self.scratch.clear();
            self.scratch.extend_from_slice(transmit.header.as_slice());
            for part in transmit.payload.parts() {
                self.scratch.extend_from_slice(part);
            }
            let to = self.addresses.find(transmit.to);
            self.send(at, to, transmit.priority)?;
        }
    }

    /// Sends the packet in `scratch`.
    fn send(
        &mut self,
        at: usize,
        to: Option<AddressId>,
        mut level: Priority,
    ) -> Result<(), Breach> {
        if let Some(defect) = &mut self.defect {
            defect.on_packet(at, &mut self.scratch, &mut level);
        }
        let parsed = wire::parse(&self.scratch);
        let len = self.scratch.len();
        let (hosts, addresses) = (&self.hosts, &self.addresses);
        let sent = Sent {
            to: to.map(|to| addresses.party(to)),
            level,
            len,
            packet: &parsed,
        };
        self.oracle.on_sent(at, &sent, |peer, id| {
            let (host, peer) = (hosts.get(at)?, addresses.addr_of(peer)?);
            let (local, id) = (host.addr.ip(), id.other_side());
            host.endpoint.find_rpc(peer, local, id)
        })?;
        let Some(to) = to else { return Ok(()) };
        if self.scenario.wire == Wire::Encapsulated && addresses.is_never_called(to) {
            self.oracle.unproven.on_sent(at, to, &self.scratch)?;
        }
        let summary = Summary::of(addresses.party(to), &parsed, len);
        self.record(at, What::Sent(summary));
        let Some(host) = self.addresses.host_at(to, self.now) else {
            self.totals.astray += 1;
            return Ok(());
        };
        self.network.set_mark(self.addresses.seen_as(at).0 << 1);
        self.network
            .send(self.now, at, host, level, &mut self.scratch);
        Ok(())
    }
}
