//! How a world went.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use super::invariant::Invariant;
use super::network::NetworkCounts;
use super::trace::Record;
use homa_protocol::units::Instant;

/// What happened in a world, or in several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Steps: packets that arrived, timers that ran and so on.
    pub steps: u64,
    /// What happened to packets.
    pub network: NetworkCounts,
    /// Packets that arrived where no process ran, or found its receive buffer full.
    pub missed: u64,
    /// Partitions.
    pub partitions: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Processes that stopped for a while.
    pub stalls: u64,
    /// Ports that a NAT changed.
    pub port_changes: u64,
    /// Packets to ports that a NAT had closed, and to addresses of nobody.
    pub astray: u64,
    /// Packets that were forged.
    pub forged: u64,
    /// Packets that found a receive queue full.
    pub overrun: u64,
    /// Calls begun all at once.
    pub burst_calls: u64,
    /// The longest time from a healing until all was quiet.
    pub quiet_after_healing: Duration,
    /// The same from the time at which a network went bad for good.
    pub quiet_after_bad: Duration,
    /// Calls made.
    pub calls: u64,
    /// Calls that got their response.
    pub succeeded: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls that the application gave up.
    pub given_up: u64,
    /// Calls whose process died.
    pub gone: u64,
    /// Requests delivered.
    pub delivered: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.network += other.network;
        self.missed += other.missed;
        self.partitions += other.partitions;
        self.crashes += other.crashes;
        self.stalls += other.stalls;
        self.port_changes += other.port_changes;
        self.astray += other.astray;
        self.forged += other.forged;
        self.overrun += other.overrun;
        self.burst_calls += other.burst_calls;
        self.quiet_after_healing = self.quiet_after_healing.max(other.quiet_after_healing);
        self.quiet_after_bad = self.quiet_after_bad.max(other.quiet_after_bad);
        self.calls += other.calls;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.given_up += other.given_up;
        self.gone += other.gone;
        self.delivered += other.delivered;
    }
}

/// How a world went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened.
    pub totals: Totals,
    /// Digest of everything that happened: equal seeds give equal digests.
    pub digest: u64,
    /// When it was over.
    pub end: Instant,
}

/// An invariant did not hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    /// Seed of the world.
    pub seed: u64,
    /// Step at which it showed.
    pub step: u64,
    /// When it showed.
    pub at: Instant,
    /// Host at which it showed.
    pub host: usize,
    /// Another host that has to do with it.
    pub peer: Option<usize>,
    /// Which invariant.
    pub invariant: Invariant,
    /// What exactly.
    pub detail: String,
    /// What had happened last at the hosts.
    pub history: Vec<Record>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, step {}, {:?}, host {}: {:?}: {}",
            self.seed, self.step, self.at, self.host, self.invariant, self.detail
        )?;
        for record in &self.history {
            writeln!(f, "{record}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violation {}
