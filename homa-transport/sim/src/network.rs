//! The network: carries packets from host to host through switches, and does to them what
//! [`PacketFaults`] say. It knows nothing of the protocol.

mod counts;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::fault::{Damaged, PacketFaults, flip_bits};
use super::packet::{Flight, PacketId, PacketPool, Place};
use super::queue::EventQueue;
use super::random::{Random, nanos};
use super::switch::{Buffer, Port, Transmitter};
use super::topology::Topology;
use homa_protocol::units::{Instant, Priority};

pub use self::counts::NetworkCounts;

/// A simulated network.
#[derive(Debug)]
pub struct Network {
    topology: Topology,
    faults: PacketFaults,
    random: Random,
    packets: PacketPool,
    events: EventQueue<Step>,
    /// One per host.
    hosts: Vec<Transmitter>,
    /// Towards the hosts, then from leaves to spines, then from spines to leaves.
    ports: Vec<Port>,
    /// One per switch: leaves, then spines.
    buffers: Vec<Buffer>,
    /// Cuts of the network, each as the side of every host.
    partitions: Vec<(usize, Vec<bool>)>,
    /// Highest number of a packet that arrived, by sender and receiver.
    newest: Vec<u64>,
    /// Rack of every host.
    rack_of: Vec<u16>,
    delays: Delays,
    counts: NetworkCounts,
    /// Goes with the packets that are sent.
    mark: u32,
}

/// The delays of the topology, in nanoseconds: they are added for every packet.
#[derive(Clone, Copy, Debug)]
struct Delays {
    /// From the sender's link to the first switch.
    send: u64,
    /// From one switch to another.
    forward: u64,
    /// From the last switch to the receiver.
    receive: u64,
}

impl Delays {
    fn of(topology: &Topology) -> Self {
        let propagation = nanos(topology.propagation);
        let forward = propagation + nanos(topology.switch_delay);
        Self {
            send: propagation + nanos(topology.send_delay),
            forward,
            receive: forward + nanos(topology.receive_delay),
        }
    }
}

/// A packet that has reached its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// For [`Network::bytes`] and [`Network::release`].
    pub packet: PacketId,
    /// Sender.
    pub from: usize,
    /// Receiver.
    pub to: usize,
    /// When.
    pub at: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A packet comes to its place.
    Hop(PacketId),
    /// The link behind a port is free.
    Free(u32),
}

impl Network {
    /// An empty network.
    #[must_use]
    pub fn new(topology: Topology, faults: PacketFaults, seed: u64) -> Self {
        let (racks, spines) = (topology.racks, topology.spines);
        let down =
            (0..topology.hosts()).map(|host| Port::new(topology.host_mbps, topology.rack_of(host)));
        let up = (0..racks * spines).map(|port| Port::new(topology.fabric_mbps, port / spines));
        let back =
            (0..spines * racks).map(|port| Port::new(topology.fabric_mbps, racks + port / racks));
        let ports = down.chain(up).chain(back).collect();
        Self {
            faults,
            random: Random::new(seed),
            packets: PacketPool::default(),
            events: EventQueue::new(),
            hosts: (0..topology.hosts())
                .map(|_| Transmitter::new(topology.host_mbps))
                .collect(),
            ports,
            buffers: (0..racks + spines)
                .map(|_| Buffer::new(topology.buffer_bytes))
                .collect(),
            partitions: Vec::new(),
            newest: vec![0; topology.hosts() * topology.hosts()],
            rack_of: (0..topology.hosts())
                .map(|host| u16::try_from(topology.rack_of(host)).unwrap_or(u16::MAX))
                .collect(),
            delays: Delays::of(&topology),
            counts: NetworkCounts::default(),
            mark: 0,
            topology,
        }
    }

    /// What it is made of.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What happened so far.
    #[must_use]
    pub const fn counts(&self) -> NetworkCounts {
        self.counts
    }

    /// Packets on their way.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.packets.len()
    }

    /// Most bytes that a switch had to hold at a time.
    #[must_use]
    pub fn buffer_peak(&self) -> usize {
        self.buffers.iter().map(Buffer::peak).max().unwrap_or(0)
    }

    /// Changes what happens to packets from now on.
    pub fn set_faults(&mut self, faults: PacketFaults) {
        self.faults = faults;
    }

    /// Cuts the hosts of `side` off from the others until [`Network::heal`] is called with the
    /// same `name`.
    pub fn cut(&mut self, name: usize, side: &[usize]) {
        let sides = (0..self.topology.hosts()).map(|host| side.contains(&host));
        self.partitions.push((name, sides.collect()));
    }

    /// Ends a partition.
    pub fn heal(&mut self, name: usize) {
        self.partitions.retain(|(other, _)| *other != name);
    }

    /// When the link of `host` has sent all packets handed to it.
    #[must_use]
    pub fn free_at(&self, host: usize) -> Instant {
        self.hosts
            .get(host)
            .map_or(Instant::ZERO, Transmitter::free_at)
    }

    /// Takes a packet from a host. The contents of `bytes` are swapped for those of an earlier
    /// packet, so that memory is used again.
    pub fn send(
        &mut self,
        now: Instant,
        from: usize,
        to: usize,
        level: Priority,
        bytes: &mut Vec<u8>,
    ) {
        let wire_bytes = self.topology.wire_bytes(bytes.len());
        self.send_as(now, from, to, level, bytes, wire_bytes);
    }

    /// The same for a packet that takes `wire_bytes` on the wire, whatever `bytes` hold of it.
    #[expect(clippy::too_many_arguments, reason = "those of `send`, and one more")]
    pub fn send_as(
        &mut self,
        now: Instant,
        from: usize,
        to: usize,
        level: Priority,
        bytes: &mut Vec<u8>,
        wire_bytes: usize,
    ) {
        let Some(transmitter) = self.hosts.get_mut(from) else {
            return;
        };
        let sent = transmitter.send(now, wire_bytes);
        self.counts.sent += 1;
        let apart = |(_, sides): &(usize, Vec<bool>)| sides.get(from) != sides.get(to);
        if self.partitions.iter().any(apart) {
            self.counts.cut_off += 1;
            return;
        }
        if self
            .topology
            .packet_bytes_max
            .is_some_and(|max| bytes.len() > max)
        {
            self.counts.too_long += 1;
            return;
        }
        let number = self.counts.sent;
        let arrives = later(sent, self.delays.send);
        let rack = |host: usize| self.rack_of.get(host).copied().unwrap_or(0);
        let (from_rack, to_rack) = (rack(from), rack(to));
        let id = self.packets.take();
        let Some(flight) = self.packets.get_mut(id) else {
            return;
        };
        std::mem::swap(&mut flight.bytes, bytes);
        flight.wire_bytes = narrow(wire_bytes);
        flight.from = narrow(from);
        flight.to = narrow(to);
        flight.from_rack = from_rack;
        flight.to_rack = to_rack;
        flight.level = level;
        flight.place = Place::FirstLeaf;
        flight.number = number;
        flight.held_up = 0;
        flight.mark = self.mark;
        flight.damaged = false;
        if self.faults.is_none() || self.afflict(id, arrives) {
            self.events.push(arrives, Step::Hop(id));
        }
    }

    /// Does to a packet what chance decides. False: it is lost.
    fn afflict(&mut self, id: PacketId, arrives: Instant) -> bool {
        let fate = self.faults.fate(&mut self.random);
        if let Some(held_up) = fate.copy {
            self.counts.duplicated += 1;
            let copy = self.packets.take();
            self.copy_packet(id, copy, held_up);
            self.events.push(arrives, Step::Hop(copy));
        }
        if fate.lost {
            self.counts.lost += 1;
            self.packets.give_back(id);
            return false;
        }
        if let Some(flight) = self.packets.get_mut(id) {
            flight.held_up = fate.held_up;
            flight.damaged = fate.damaged;
            if fate.damaged {
                self.counts.corrupted += 1;
                flip_bits(&mut flight.bytes, &mut self.random);
            }
        }
        true
    }

    fn copy_packet(&mut self, original: PacketId, copy: PacketId, held_up: u64) {
        let Some(flight) = self.packets.get(original) else {
            return;
        };
        let (wire_bytes, from, to) = (flight.wire_bytes, flight.from, flight.to);
        let (from_rack, to_rack) = (flight.from_rack, flight.to_rack);
        let (level, number, bytes) = (flight.level, flight.number, flight.bytes.clone());
        let mark = flight.mark;
        if let Some(second) = self.packets.get_mut(copy) {
            *second = Flight {
                bytes,
                wire_bytes,
                from,
                to,
                from_rack,
                to_rack,
                level,
                place: Place::FirstLeaf,
                number,
                held_up,
                mark,
                damaged: false,
            };
        }
    }

    /// When [`Network::advance`] has something to do.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.events.next_at()
    }

    /// Does the next thing, which may be that a packet arrives.
    pub fn advance(&mut self) -> Option<Arrival> {
        let (now, step) = self.events.pop()?;
        match step {
            Step::Free(port) => {
                let at = port as usize;
                if let Some(port) = self.ports.get_mut(at) {
                    port.waking = false;
                }
                self.send_from_port(now, at);
                None
            }
            Step::Hop(id) => self.hop(now, id),
        }
    }

    fn hop(&mut self, now: Instant, id: PacketId) -> Option<Arrival> {
        let flight = self.packets.get_mut(id)?;
        let (hosts, racks) = (self.hosts.len(), self.topology.racks);
        let spines = self.topology.spines;
        let (leaf, last_leaf) = (usize::from(flight.from_rack), usize::from(flight.to_rack));
        let (port, next) = match flight.place {
            Place::FirstLeaf if leaf != last_leaf => {
                let spine = self.random.index(spines);
                let next = Place::Spine(u16::try_from(spine).unwrap_or(0));
                (hosts + leaf * spines + spine, next)
            }
            Place::Spine(spine) => {
                let port = hosts + racks * spines + usize::from(spine) * racks + last_leaf;
                (port, Place::LastLeaf)
            }
            Place::FirstLeaf | Place::LastLeaf => (flight.to as usize, Place::Host),
            Place::Host => return self.arrive(now, id),
        };
        flight.place = next;
        let (level, bytes) = (flight.level, flight.wire_bytes as usize);
        let out = self.ports.get_mut(port)?;
        if !self.buffers.get_mut(out.switch)?.take(bytes) {
            self.counts.overflowed += 1;
            self.packets.give_back(id);
            return None;
        }
        if out.is_free(now) {
            self.transmit(now, port, id);
        } else {
            out.push(id, level);
            self.wake_when_free(port);
        }
        None
    }

    fn wake_when_free(&mut self, at: usize) {
        if let Some(port) = self.ports.get_mut(at)
            && !port.waking
        {
            port.waking = true;
            let number = u32::try_from(at).unwrap_or(u32::MAX);
            self.events
                .push(port.transmitter.free_at(), Step::Free(number));
        }
    }

    fn send_from_port(&mut self, now: Instant, at: usize) {
        let Some(port) = self.ports.get_mut(at) else {
            return;
        };
        let Some(packet) = port.pop() else { return };
        let more = !port.is_empty();
        self.transmit(now, at, packet);
        if more {
            self.wake_when_free(at);
        }
    }

    /// Serialises a packet; it comes to its next place when it has been received there whole.
    fn transmit(&mut self, now: Instant, at: usize, id: PacketId) {
        let (Some(port), Some(flight)) = (self.ports.get_mut(at), self.packets.get_mut(id)) else {
            return;
        };
        let wire_bytes = flight.wire_bytes as usize;
        let sent = port.transmitter.send(now, wire_bytes);
        if let Some(buffer) = self.buffers.get_mut(port.switch) {
            buffer.give_back(wire_bytes);
        }
        let delay = match flight.place {
            Place::Host => self.delays.receive + flight.held_up,
            _ => self.delays.forward,
        };
        self.events.push(later(sent, delay), Step::Hop(id));
    }

    fn arrive(&mut self, now: Instant, id: PacketId) -> Option<Arrival> {
        let flight = self.packets.get(id)?;
        if flight.damaged && self.faults.damaged == Damaged::Dropped {
            self.packets.give_back(id);
            return None;
        }
        let (from, to) = (flight.from as usize, flight.to as usize);
        let newest = self.newest.get_mut(from * self.hosts.len() + to)?;
        if flight.number < *newest {
            self.counts.reordered += 1;
        } else {
            *newest = flight.number;
        }
        self.counts.delivered += 1;
        Some(Arrival {
            packet: id,
            from,
            to,
            at: now,
        })
    }

    /// The bytes of a packet that has arrived.
    #[must_use]
    pub fn bytes(&self, packet: PacketId) -> &[u8] {
        self.packets
            .get(packet)
            .map_or(&[], |flight| flight.bytes.as_slice())
    }

    /// What a packet that has arrived took on the wire.
    #[must_use]
    pub fn wire_bytes_of(&self, packet: PacketId) -> usize {
        self.packets
            .get(packet)
            .map_or(0, |flight| flight.wire_bytes as usize)
    }

    /// Where a packet that has arrived came from.
    #[must_use]
    pub fn sender(&self, packet: PacketId) -> Option<usize> {
        self.packets.get(packet).map(|flight| flight.from as usize)
    }

    /// Writes `mark` on the packets that are sent from now on.
    pub(super) const fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    /// What was written on a packet that has arrived.
    pub(super) fn mark_of(&self, packet: PacketId) -> u32 {
        self.packets.get(packet).map_or(0, |flight| flight.mark)
    }

    /// Lets a packet arrive at `at` that no host has sent.
    pub(super) fn inject(&mut self, at: Instant, to: usize, mark: u32, bytes: &[u8]) {
        let id = self.packets.take();
        if let Some(flight) = self.packets.get_mut(id) {
            flight.bytes.clear();
            flight.bytes.extend_from_slice(bytes);
            flight.wire_bytes = narrow(self.topology.wire_bytes(bytes.len()));
            flight.from = narrow(to);
            flight.to = narrow(to);
            flight.level = Priority::HIGHEST;
            flight.place = Place::Host;
            flight.number = 0;
            flight.held_up = 0;
            flight.mark = mark;
            flight.damaged = false;
            self.events.push(at, Step::Hop(id));
        }
    }

    /// Gives the memory of a packet that has arrived back. Its id is void then.
    pub fn release(&mut self, packet: PacketId) {
        self.packets.give_back(packet);
    }

    /// Time a lone packet of `len` bytes takes from host to host, handing over included, before
    /// rounding up at each link.
    #[must_use]
    pub fn transit(&self, from: usize, to: usize, len: usize) -> Duration {
        let topology = &self.topology;
        let bytes = topology.wire_bytes(len) as u64;
        let host_link = bytes * 8_000_000 / topology.host_mbps;
        let fabric_link = bytes * 8_000_000 / topology.fabric_mbps;
        let far = topology.rack_of(from) != topology.rack_of(to);
        let (switches, links) = if far {
            (3, 2 * host_link + 2 * fabric_link)
        } else {
            (1, 2 * host_link)
        };
        let fixed = topology.send_delay
            + topology.receive_delay
            + topology.switch_delay * switches
            + topology.propagation * (switches + 1);
        Duration::from_nanos(links / 1_000 + nanos(fixed))
    }
}

fn later(at: Instant, nanos: u64) -> Instant {
    Instant::from_nanos(at.as_nanos().saturating_add(nanos))
}

/// Hosts and lengths are far below.
fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
