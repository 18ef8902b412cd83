//! A host: an endpoint with a clock of its own, and what surrounds it when it does not run.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::clock::Clock;
use super::event::WorldEvent;
use super::ip::{ip_of, port};
use super::packet::PacketId;
use homa_protocol::endpoint::Endpoint;
use homa_protocol::units::Instant;

/// Bytes that wait for a process that does not run, or does not receive; more is dropped.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    pub(super) addr: SocketAddr,
    pub(super) clock: Clock,
    pub(super) state: Running,
    /// Number of the process, from 1.
    pub(super) process: u32,
    /// Packets that wait for the process to run, with their bytes.
    backlog: VecDeque<PacketId>,
    backlog_bytes: usize,
    /// Packets in the receive queue, if it has a bound.
    queue: VecDeque<PacketId>,
    /// The next of them is about to be taken out.
    pub(super) receiving: bool,
    /// What the application wanted to do while the process did not run.
    pub(super) deferred: Vec<WorldEvent>,
    /// For when the timers are set.
    pub(super) timer: Option<Instant>,
    /// The link is full; word comes when it is not.
    pub(super) awaits_link: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Running {
    Runs,
    Stalled,
    /// Dead. `reported`: who sends a packet hears of it.
    Dead {
        reported: bool,
    },
}

impl Host {
    pub(super) fn new(number: usize, endpoint: Endpoint, clock: Clock) -> Self {
        Self {
            endpoint,
            addr: SocketAddr::new(ip_of(number), port()),
            clock,
            state: Running::Runs,
            process: 1,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            queue: VecDeque::new(),
            receiving: false,
            deferred: Vec::new(),
            timer: None,
            awaits_link: false,
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.state == Running::Runs
    }

    /// Keeps a packet until the process runs again; false if there is no room.
    pub(super) fn keep(&mut self, packet: PacketId, bytes: usize) -> bool {
        if self.backlog_bytes + bytes > RECEIVE_BUFFER_BYTES {
            return false;
        }
        self.backlog_bytes += bytes;
        self.backlog.push_back(packet);
        true
    }

    /// Keeps a packet in the receive queue; false if it is full.
    pub(super) fn queue(&mut self, packet: PacketId, packets_max: usize) -> bool {
        let fits = self.queue.len() < packets_max;
        if fits {
            self.queue.push_back(packet);
        }
        fits
    }

    /// Whether packets wait in the receive queue.
    pub(super) fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next packet of the receive queue.
    pub(super) fn take_queued(&mut self) -> Option<PacketId> {
        self.queue.pop_front()
    }

    /// The packets that waited, in order of arrival.
    pub(super) fn take_backlog(&mut self) -> VecDeque<PacketId> {
        self.backlog_bytes = 0;
        std::mem::take(&mut self.backlog)
    }
}
