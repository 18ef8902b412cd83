//! What may threaten a world besides faults: a NAT, forgers, bursts and receive queues that overflow.

use std::time::Duration;

use super::Scenario;
use crate::fault::{Disturbance, DisturbanceKind};
use crate::random::Random;
use homa_protocol::config::Wire;
use homa_protocol::endpoint::ModuleKind;

/// Packets forged in the names of hosts and of nobody, by one who knows the ids of RPCs and no tokens.
/// Only over UDP, since protocol 146 does not validate addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgeries {
    /// Mean time between two of them.
    pub interval: Duration,
    /// How many there are at most.
    pub packets_max: u32,
}

/// A bounded receive queue of every host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveQueue {
    /// Packets in it at most; more are dropped.
    pub packets_max: usize,
    /// Time from taking one out to taking the next one out.
    pub per_packet: Duration,
}

/// Many calls at once to one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// When, counted from the start of the world.
    pub at: Duration,
    /// The host that is called.
    pub server: usize,
    /// Calls of each other host.
    pub calls: usize,
    /// Length of each request, in bytes.
    pub request: u32,
    /// Length of each response, in bytes.
    pub response: u32,
}

impl Scenario {
    /// Adds what threatens the world of a seed. Its chance is its own, so that all else stays as it is.
    pub(crate) fn with_hazards(self, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x4a2a_2d55);
        let (nat, forged, burst) = (random.fork(), random.fork(), random.fork());
        self.with_nat(nat).with_forgeries(forged).with_burst(burst)
    }

    fn with_nat(mut self, mut random: Random) -> Self {
        let hosts = self.topology.hosts();
        if self.wire != Wire::Encapsulated || hosts < 3 || !random.chance(350_000) {
            return self;
        }
        let behind = random.index((hosts - 1).min(3)) + 1;
        self.behind_nat = (hosts - behind..hosts).collect();
        // So few can be called that the calls of all others must fit.
        self.config.rpcs_max = self.config.rpcs_max.max(2 * hosts);
        for _ in 0..random.index(7) {
            self.disturbances.push(Disturbance {
                at: self.healing.mul_f64(random.unit()),
                lasts: random.pick([
                    Duration::ZERO,
                    Duration::from_millis(1),
                    Duration::from_millis(200),
                ]),
                kind: DisturbanceKind::PortChange {
                    host: hosts - 1 - random.index(behind),
                },
            });
        }
        self
    }

    fn with_forgeries(mut self, mut random: Random) -> Self {
        if self.wire == Wire::Encapsulated && random.chance(400_000) {
            let packets_max = u32::try_from(random.index(300) + 20).unwrap_or(20);
            // Within the time of the faults, or within a tenth of it.
            let within = if random.chance(500_000) { 1 } else { 10 };
            self.forgeries = Some(Forgeries {
                interval: self.healing / within / packets_max,
                packets_max,
            });
        }
        self
    }

    fn with_burst(mut self, mut random: Random) -> Self {
        // Messages without grants overflow any queue as long as they last.
        let unpaced =
            self.wire == Wire::Native && self.modules.contains(&Some(ModuleKind::Upstream));
        if unpaced || !random.chance(250_000) {
            return self;
        }
        let hosts = self.topology.hosts();
        let callers = hosts.saturating_sub(1).max(1);
        self.receive_queue = Some(ReceiveQueue {
            packets_max: random.pick([64, 128, 256]),
            per_packet: random.pick([1, 5, 20].map(Duration::from_micros)),
        });
        // Those behind the NAT are the last ones, and cannot be called.
        let called = (hosts - self.behind_nat.len()).max(1);
        self.bursts.push(Burst {
            at: self.healing.mul_f64(random.unit()),
            server: random.index(called),
            calls: (random.index(1_000) + 100) / callers,
            request: random.pick([1, 100, 1_000, 3_000]),
            response: random.pick([1, 100, 1_000, 3_000]),
        });
        self
    }
}
