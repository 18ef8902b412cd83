//! A host: an endpoint with a clock of its own, and what surrounds it when it does not run.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::packet::PacketId;
use super::world::Happening;
use homa_protocol::endpoint::Endpoint;
use homa_protocol::units::Instant;

/// Homa port of every host.
const PORT: u16 = 4_000;
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
    pub(super) deferred: Vec<Happening>,
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
            addr: SocketAddr::new(ip_of(number), PORT),
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

/// Port on which every host serves.
pub(super) const fn port() -> u16 {
    PORT
}

/// Address of host `number`: 10.0.0.1 and up.
pub fn ip_of(number: usize) -> IpAddr {
    let number = u32::try_from(number).unwrap_or(u32::MAX >> 8);
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + number).into()
}

/// Number of the host with this address.
pub fn number_at(ip: IpAddr) -> Option<usize> {
    let IpAddr::V4(ip) = ip else {
        return None;
    };
    let number = ip
        .to_bits()
        .checked_sub(Ipv4Addr::new(10, 0, 0, 1).to_bits())?;
    Some(number as usize)
}

/// A clock that starts anywhere and is too fast or too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What it shows at the start of the world, in nanoseconds.
    pub offset: u64,
    /// Its nanoseconds per true millisecond: 1,000,000 if it is right.
    pub rate: u64,
}

impl Clock {
    /// Nanoseconds in a millisecond.
    const RIGHT: u64 = 1_000_000;

    /// A clock that is right.
    pub const TRUE: Self = Self {
        offset: 0,
        rate: Self::RIGHT,
    };

    /// What it shows at a true time.
    #[must_use]
    pub const fn local(&self, at: Instant) -> Instant {
        Instant::from_nanos(self.offset.saturating_add(scale(
            at.as_nanos(),
            self.rate,
            Self::RIGHT,
        )))
    }

    /// The first true time at which it shows `local` or more.
    #[must_use]
    pub const fn true_time(&self, local: Instant) -> Instant {
        let shown = local.as_nanos().saturating_sub(self.offset);
        let mut at = scale(shown, Self::RIGHT, self.rate);
        while scale(at, self.rate, Self::RIGHT) < shown {
            at += 1;
        }
        Instant::from_nanos(at)
    }
}

/// `value * by / over` without overflow for all times of a simulation.
const fn scale(value: u64, by: u64, over: u64) -> u64 {
    (value / over)
        .saturating_mul(by)
        .saturating_add((value % over).saturating_mul(by) / over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_reaches_every_local_time_at_its_first_true_time() {
        for rate in [999_800, 1_000_000, 1_000_200, 1_010_000] {
            let clock = Clock { offset: 77, rate };
            for local in (0..5_000_000).step_by(997) {
                let local = Instant::from_nanos(77 + local);
                let at = clock.true_time(local);
                assert!(clock.local(at) >= local);
                if at > Instant::ZERO {
                    let before = Instant::from_nanos(at.as_nanos() - 1);
                    assert!(clock.local(before) < local, "{clock:?} {local:?} {at:?}");
                }
            }
        }
    }

    #[test]
    fn hosts_are_found_by_their_address() {
        for number in [0, 1, 143, 300, 70_000] {
            assert_eq!(number_at(ip_of(number)), Some(number));
        }
    }
}
