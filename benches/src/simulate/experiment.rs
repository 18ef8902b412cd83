//! One run: hosts that send messages to one another at random, and what becomes of them.
//!
//! Time advances in windows shorter than what a packet takes from a host into the network, so what a
//! host sends in a window matters to others only in later ones: first the network runs through the
//! window, then each host by itself. That keeps what one of them needs in the processor's caches.

use homa_transport::sim::{Arrival, Network, PacketFaults, Random, Workload};
use homa_transport::units::{Instant, RpcId};

use super::host::{Host, Traffic};
use super::settings::{self, Mode};
use super::slowdown::{Slowdowns, ideal_nanos};

/// Samples of the backlog in a run.
const SAMPLES: u64 = 90;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) load: f64,
    pub(crate) mode: Mode,
    /// Time in which messages begin. Those of its first third are not measured.
    pub(crate) seconds: f64,
    pub(crate) hosts: usize,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) slowdowns: Slowdowns,
    /// Measured messages that had not arrived when the run was given up.
    pub(crate) unfinished: u64,
    /// Bytes on the wire that reached hosts in the measured time, by what their links can carry.
    pub(crate) utilisation: f64,
    /// Bytes of messages begun in the measured time, by what the links can carry.
    pub(crate) offered: f64,
    /// Packets sent by hosts in the whole run.
    pub(crate) packets: u64,
    /// Bytes of messages on their way: mean over the second and over the last third.
    pub(crate) backlog: (f64, f64),
    /// RPCs that failed; there must be none.
    pub(crate) failed: u64,
    /// A number that follows from everything that arrived, and when.
    pub(crate) digest: u64,
}

impl Outcome {
    /// Why the run says nothing about its nominal load, if so.
    pub(crate) fn objection(&self) -> Option<String> {
        if self.failed > 0 {
            return Some(format!("{} RPCs failed", self.failed));
        }
        if self.unfinished > 0 {
            return Some(format!("{} messages did not arrive", self.unfinished));
        }
        let (utilisation, nominal) = (self.utilisation, self.plan.load);
        if utilisation < nominal - 0.01 {
            return Some(format!("utilisation {utilisation:.3} is below {nominal}"));
        }
        let (before, after) = self.backlog;
        if after > before * BACKLOG_GROWTH_MAX {
            return Some(format!(
                "the backlog grew from {before:.0} to {after:.0} bytes"
            ));
        }
        None
    }
}

/// The backlog of a stable run may be so much greater in its last third than in the one before.
const BACKLOG_GROWTH_MAX: f64 = 1.5;

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) begun: u64,
    pub(super) size: u32,
    pub(super) same_rack: bool,
}

/// A message that has arrived, as its sender hears of it: in no time and at no cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered {
    pub(super) id: RpcId,
    pub(super) receiver: usize,
    pub(super) at: u64,
}

/// What is counted over all hosts.
#[derive(Debug)]
pub(super) struct Books {
    measure_from: u64,
    end: u64,
    slowdowns: Slowdowns,
    /// Measured messages begun and not arrived.
    unfinished: u64,
    wire_bytes: u64,
    message_bytes: u64,
    backlog: u64,
    pub(super) failed: u64,
    digest: u64,
}

impl Books {
    pub(super) fn on_begun(&mut self, message: &Message) {
        self.backlog += u64::from(message.size);
        if message.begun >= self.measure_from {
            self.unfinished += 1;
            self.message_bytes += u64::from(message.size);
        }
    }

    pub(super) fn on_arrival(&mut self, at: u64, wire_bytes: usize) {
        if (self.measure_from..self.end).contains(&at) {
            self.wire_bytes += wire_bytes as u64;
        }
    }

    pub(super) fn on_delivered(&mut self, at: u64, message: &Message) {
        self.backlog -= u64::from(message.size);
        let took = at - message.begun;
        self.digest = (self.digest ^ took ^ u64::from(message.size) << 40)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(7);
        if message.begun >= self.measure_from {
            self.unfinished -= 1;
            let ideal = ideal_nanos(message.size, message.same_rack);
            self.slowdowns.add(message.size, took as f64 / ideal);
        }
    }
}

/// A run in progress.
struct Run {
    plan: Plan,
    traffic: Traffic,
    network: Network,
    hosts: Vec<Host>,
    /// When each host has something to do, besides taking packets.
    next_at: Vec<u64>,
    /// Packets that reach each host in this window.
    arrivals: Vec<Vec<Arrival>>,
    /// Messages of each host that have arrived.
    delivered: Vec<Vec<Delivered>>,
    /// Nanoseconds of a window.
    window: u64,
    books: Books,
    samples: Vec<u64>,
}

/// Runs `plan`, reporting the share that is done to `progress`.
pub(crate) fn run(plan: Plan, mut progress: impl FnMut(f64)) -> Outcome {
    let mut run = Run::new(plan);
    let (mut windows, end) = (0_u64, run.books.end);
    while let Some(now) = run.window() {
        windows += 1;
        if windows.is_multiple_of(1 << 12) {
            progress(now as f64 / end as f64);
        }
        if now >= end && (run.books.unfinished == 0 || now > end.saturating_mul(3)) {
            break;
        }
    }
    run.outcome()
}

impl Run {
    fn new(plan: Plan) -> Self {
        let topology = settings::topology(plan.hosts);
        let mut random = Random::new(plan.seed);
        let end = nanos(plan.seconds * 1e9);
        let traffic = Traffic::new(&plan, end);
        let hosts: Vec<Host> = (0..plan.hosts)
            .filter_map(|number| Host::new(&plan, number, &traffic, random.fork()))
            .collect();
        let window = topology.send_delay.as_nanos();
        Self {
            window: u64::try_from(window).unwrap_or(u64::MAX).max(1),
            network: Network::new(topology, PacketFaults::default(), random.next()),
            next_at: hosts.iter().map(Host::next_at).collect(),
            arrivals: vec![Vec::new(); hosts.len()],
            delivered: vec![Vec::new(); hosts.len()],
            traffic,
            hosts,
            books: Books {
                measure_from: end / 3,
                end,
                slowdowns: Slowdowns::new(plan.workload),
                unfinished: 0,
                wire_bytes: 0,
                message_bytes: 0,
                backlog: 0,
                failed: 0,
                digest: 0,
            },
            samples: Vec::new(),
            plan,
        }
    }

    /// Runs through the next window in which something happens and returns its start.
    fn window(&mut self) -> Option<u64> {
        let own = self.next_at.iter().copied().min()?;
        let start = self
            .network
            .next_at()
            .map_or(own, |at| own.min(at.as_nanos()));
        let end = start + self.window;
        while self
            .network
            .next_at()
            .is_some_and(|at| at < Instant::from_nanos(end))
        {
            if let Some(arrival) = self.network.advance()
                && let Some(arrivals) = self.arrivals.get_mut(arrival.to)
            {
                arrivals.push(arrival);
            }
        }
        for number in 0..self.hosts.len() {
            self.run_host(number, end);
        }
        let sample_every = (self.books.end / SAMPLES).max(1);
        let due = self.samples.len() as u64 * sample_every;
        if start >= due && start < self.books.end {
            self.samples.push(self.books.backlog);
        }
        Some(start)
    }

    /// Lets a host do everything that it has to do before `end`.
    fn run_host(&mut self, number: usize, end: u64) {
        let (Some(next_at), Some(arrivals)) =
            (self.next_at.get_mut(number), self.arrivals.get_mut(number))
        else {
            return;
        };
        if arrivals.is_empty() && *next_at >= end {
            return;
        }
        let Some(host) = self.hosts.get_mut(number) else {
            return;
        };
        if let Some(delivered) = self.delivered.get_mut(number) {
            host.settle(delivered, &mut self.books);
        }
        let mut arriving = arrivals.drain(..).peekable();
        loop {
            let own = host.next_at();
            if let Some(arrival) = arriving.next_if(|arrival| arrival.at.as_nanos() <= own) {
                let delivered = host.arrive(arrival, &mut self.network, &mut self.books);
                if let Some(delivered) = delivered
                    && let Some(senders) = self.delivered.get_mut(arrival.from)
                {
                    senders.push(delivered);
                }
            } else if own < end {
                host.act(own, &self.traffic, &mut self.network, &mut self.books);
            } else {
                break;
            }
        }
        *next_at = host.next_at();
    }

    fn outcome(self) -> Outcome {
        let measured = (self.books.end - self.books.measure_from) as f64;
        let bytes_per_nano = settings::HOST_MBPS as f64 / 8_000.0;
        let capacity = measured * bytes_per_nano * self.hosts.len() as f64;
        let third = self.samples.len() / 3;
        let mean =
            |samples: &[u64]| samples.iter().sum::<u64>() as f64 / samples.len().max(1) as f64;
        let (second, last) = (
            self.samples.get(third..2 * third).unwrap_or_default(),
            self.samples.get(2 * third..).unwrap_or_default(),
        );
        Outcome {
            plan: self.plan,
            unfinished: self.books.unfinished,
            utilisation: self.books.wire_bytes as f64 / capacity,
            offered: self.books.message_bytes as f64 / capacity,
            packets: self.network.counts().sent,
            backlog: (mean(second), mean(last)),
            failed: self.books.failed,
            digest: self.books.digest,
            slowdowns: self.books.slowdowns,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are positive, and the cast saturates"
)]
pub(super) fn nanos(value: f64) -> u64 {
    value as u64
}
