//! Packets on their way between the endpoints of a world.

use super::host::{Host, Running};
use super::invariant::Breach;
use super::network::Arrival;
use super::oracle::Sent;
use super::packet::PacketId;
use super::trace::{Record, Summary, What};
use super::world::{Happening, REPORT_DELAY, World};
use crate::units::{Instant, Priority};
use crate::wire;

impl World {
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Result<(), Breach> {
        self.step += 1;
        let bytes = self.network.bytes(arrival.packet).len();
        let Some(host) = self.hosts.get_mut(arrival.to) else {
            return Ok(());
        };
        match host.state {
            Running::Runs => {
                self.deliver(arrival.to, arrival.packet);
                return self.serve(arrival.to);
            }
            Running::Stalled => {
                if host.keep(arrival.packet, bytes) {
                    return Ok(());
                }
            }
            Running::Dead { reported } => {
                if reported {
                    let about = wire::quoted_id(self.network.bytes(arrival.packet));
                    let happening = Happening::Report(arrival.from, arrival.to, about);
                    self.at(self.now + REPORT_DELAY, happening);
                }
            }
        }
        self.totals.missed += 1;
        self.network.release(arrival.packet);
        Ok(())
    }

    pub(super) fn deliver(&mut self, at: usize, packet: PacketId) {
        let from = self.network.sender(packet).unwrap_or(at);
        let Some(peer) = self.hosts.get(from).map(|host| host.addr) else {
            return;
        };
        let Some(host) = self.hosts.get_mut(at) else {
            return;
        };
        let bytes = self.network.bytes(packet);
        let (now, local) = (host.clock.local(self.now), host.addr.ip());
        host.endpoint.handle_packet(now, peer, local, bytes);
        let parsed = wire::parse(bytes);
        let endpoint = &host.endpoint;
        self.oracle.on_received(at, from, &parsed, |_, id| {
            endpoint.find_rpc(peer, local, id.other_side())
        });
        self.trace.add(Record {
            step: self.step,
            at: self.now,
            host: at,
            what: What::Received(Summary::of(from, &parsed, bytes.len())),
        });
        self.network.release(packet);
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

    fn take_events(&mut self, at: usize) -> Result<(), Breach> {
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
                self.at(word.max(self.now), Happening::Link(at));
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
            let to = super::host::number_of(transmit.to).filter(|to| *to < self.hosts.len());
            self.send(at, to, transmit.priority)?;
        }
    }

    /// Sends the packet in `scratch`.
    fn send(&mut self, at: usize, to: Option<usize>, mut level: Priority) -> Result<(), Breach> {
        if let Some(defect) = &mut self.defect {
            defect.on_packet(at, &mut self.scratch, &mut level);
        }
        let parsed = wire::parse(&self.scratch);
        let len = self.scratch.len();
        let hosts = &self.hosts;
        let sent = Sent {
            to,
            level,
            len,
            packet: &parsed,
        };
        self.oracle.on_sent(at, &sent, |peer, id| {
            let (host, peer) = (hosts.get(at)?, hosts.get(peer)?);
            let (local, id) = (host.addr.ip(), id.other_side());
            host.endpoint.find_rpc(peer.addr, local, id)
        })?;
        let to = to.unwrap_or(at);
        let what = What::Sent(Summary::of(to, &parsed, len));
        self.record(at, what);
        self.network
            .send(self.now, at, to, level, &mut self.scratch);
        Ok(())
    }
}
