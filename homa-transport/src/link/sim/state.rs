//! What the lock of a simulated network guards: the network, the ports on it, and who waits for what.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;
use std::time::Duration;

use homa_sim::{Arrival, EventQueue, Network, RECEIVE_BUFFER_BYTES, REPORT_DELAY, ip_of};

use super::Port;
use crate::endpoint::Transmit;
use crate::error::{Report, Unreachable};
use crate::link::{PacketMeta, RecvBatch};
use crate::units::Instant;
use crate::wire;

/// How far ahead of the present the uplink of a host takes packets. Less, and it would run dry
/// until the next timer.
const UPLINK_BACKLOG: Duration = Duration::from_millis(1);
/// Reports of unreachable peers that wait for a link at most.
const REPORTS_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct State {
    pub(super) network: Network,
    pub(super) reports: EventQueue<Word>,
    /// One per open port.
    pub(super) inboxes: BTreeMap<Port, Inbox>,
    /// Who waits for room in the uplink.
    pub(super) writers: BTreeMap<Port, Waker>,
    pub(super) driver: Option<Waker>,
    /// When the driver wakes by itself.
    pub(super) armed_until: Option<Instant>,
    /// The runtime is gone.
    pub(super) stopped: bool,
    /// The packet being sent.
    pub(super) scratch: Vec<u8>,
}

/// Word to a port that another cannot be reached.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) to: Port,
    pub(super) report: Report,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) packets: VecDeque<(SocketAddr, Vec<u8>)>,
    pub(super) bytes: usize,
    pub(super) drops: u64,
    pub(super) reports: Vec<Report>,
    pub(super) receiver: Option<Waker>,
}

impl State {
    /// Does what is due by `now`. The wakers are to be woken without the lock.
    pub(super) fn run(&mut self, now: Instant) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.network.next_at().is_some_and(|at| at <= now) {
            if let Some(arrival) = self.network.advance() {
                wakers.extend(self.arrive(arrival));
            }
        }
        while self.reports.next_at().is_some_and(|at| at <= now) {
            if let Some((_, word)) = self.reports.pop()
                && let Some(inbox) = self.inboxes.get_mut(&word.to)
            {
                wakers.extend(inbox.report(word.report));
            }
        }
        let network = &self.network;
        self.writers.retain(|(host, _), waker| {
            let waits = room_at(network, *host) > now;
            if !waits {
                wakers.push(waker.clone());
            }
            waits
        });
        wakers
    }

    pub(super) fn arrive(&mut self, arrival: Arrival) -> Option<Waker> {
        let bytes = self.network.bytes(arrival.packet);
        let (from, to, packet) = split_ports(bytes)?;
        let peer = SocketAddr::new(ip_of(arrival.from), from);
        let woken = match self.inboxes.get_mut(&(arrival.to, to)) {
            Some(inbox) => inbox.push(peer, packet),
            None => {
                let word = Word {
                    to: (arrival.from, from),
                    report: Report {
                        peer: SocketAddr::new(ip_of(arrival.to), to),
                        reason: Unreachable::Port,
                        about: wire::quoted_id(packet),
                    },
                };
                self.reports.push(arrival.at + REPORT_DELAY, word);
                None
            }
        };
        self.network.release(arrival.packet);
        woken
    }

    /// When the next thing is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let writers = self.writers.keys();
        let room = writers.map(|(host, _)| room_at(&self.network, *host)).min();
        [self.network.next_at(), self.reports.next_at(), room]
            .into_iter()
            .flatten()
            .min()
    }

    /// The driver, if it has to wake earlier than it would.
    pub(super) fn driver_if_late(&mut self) -> Option<Waker> {
        let next = self.next_at()?;
        if self.armed_until.is_some_and(|armed| armed <= next) {
            return None;
        }
        self.armed_until = Some(next);
        self.driver.clone()
    }

    /// Hands a packet to the uplink of its host.
    pub(super) fn send(&mut self, now: Instant, from: Port, to: Port, packet: &Transmit) {
        self.scratch.clear();
        self.scratch.extend(from.1.to_be_bytes());
        self.scratch.extend(to.1.to_be_bytes());
        self.scratch.extend_from_slice(packet.header.as_slice());
        for part in packet.payload.parts() {
            self.scratch.extend_from_slice(part);
        }
        self.network
            .send(now, from.0, to.0, packet.priority, &mut self.scratch);
    }

    pub(super) fn check_running(&self) -> io::Result<()> {
        if self.stopped {
            let message = "the runtime of the simulated network is gone";
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, message));
        }
        Ok(())
    }
}

/// Since when the uplink of `host` takes packets.
pub(super) fn room_at(network: &Network, host: usize) -> Instant {
    network.free_at(host).before(UPLINK_BACKLOG)
}

/// Source port, destination port, the rest.
fn split_ports(bytes: &[u8]) -> Option<(u16, u16, &[u8])> {
    let (from, rest) = bytes.split_first_chunk()?;
    let (to, packet) = rest.split_first_chunk()?;
    Some((u16::from_be_bytes(*from), u16::from_be_bytes(*to), packet))
}

impl Inbox {
    /// Keeps a packet until it is received; drops it if there is no room.
    fn push(&mut self, peer: SocketAddr, packet: &[u8]) -> Option<Waker> {
        if self.bytes + packet.len() > RECEIVE_BUFFER_BYTES {
            self.drops += 1;
            return None;
        }
        self.bytes += packet.len();
        self.packets.push_back((peer, packet.to_vec()));
        self.receiver.take()
    }

    fn report(&mut self, report: Report) -> Option<Waker> {
        if self.reports.len() >= REPORTS_MAX || self.reports.contains(&report) {
            return None;
        }
        self.reports.push(report);
        self.receiver.take()
    }

    /// Moves to `batch` what fits into it.
    pub(super) fn pop_into(&mut self, local: IpAddr, batch: &mut RecvBatch) {
        batch.unreachable.append(&mut self.reports);
        let mut start = batch.packets.last().map_or(0, |last| last.range.end);
        while batch.packets.len() < RecvBatch::PACKETS_MAX
            && let Some((peer, packet)) = self.packets.front()
            && let range = (start..start + packet.len())
            && let Some(room) = batch.buffer.get_mut(range.clone())
        {
            room.copy_from_slice(packet);
            start = range.end;
            batch.packets.push(PacketMeta {
                peer: *peer,
                local,
                range,
            });
            self.bytes -= packet.len();
            self.packets.pop_front();
        }
        batch.full = !self.packets.is_empty();
    }
}
