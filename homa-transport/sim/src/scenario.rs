//! What a world consists of, and how all of it follows from one number.

pub(crate) mod hazard;

use std::time::Duration;

use self::hazard::{Burst, Forgeries, ReceiveQueue};
use super::clock::Clock;
use super::fault::{Damaged, Disturbance, DisturbanceKind, PacketFaults};
use super::random::{Random, nanos};
use super::topology::Topology;
use super::workload::{Arrivals, Sizes, Workload};
use homa_protocol::config::{Config, Wire};
use homa_protocol::endpoint::ModuleKind;
use homa_protocol::wire::MESSAGE_BYTES_MAX;

/// Longest message, as the sizes of workloads are counted.
#[expect(clippy::cast_possible_truncation, reason = "a million fits 32 bits")]
const LONGEST: u32 = MESSAGE_BYTES_MAX as u32;

/// Everything that a world is made from.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Source of all chance.
    pub seed: u64,
    /// The network.
    pub topology: Topology,
    /// Settings of all endpoints.
    pub config: Config,
    /// Form of the packets.
    pub wire: Wire,
    /// As which module each host speaks; hosts beyond, and those with `None`, as we do. For protocol 146.
    pub modules: Vec<Option<ModuleKind>>,
    /// Longest packet, Homa header included.
    pub packet_bytes: usize,
    /// How much a host hands to its link ahead of time; zero: one packet at a time.
    pub link_backlog: Duration,
    /// What goes wrong with packets until the healing.
    pub faults: PacketFaults,
    /// What goes wrong with hosts and paths until the healing.
    pub disturbances: Vec<Disturbance>,
    /// Hosts behind a NAT: they call others and are not called. They share an address, and each is seen
    /// under a port of it.
    pub behind_nat: Vec<usize>,
    /// Forged packets until the healing.
    pub forgeries: Option<Forgeries>,
    /// The receive queue of each host; `None`: what arrives is taken at once.
    pub receive_queue: Option<ReceiveQueue>,
    /// Calls that begin all at once.
    pub bursts: Vec<Burst>,
    /// Clocks of the hosts; hosts beyond have one that is right.
    pub clocks: Vec<Clock>,
    /// What the applications do.
    pub load: Load,
    /// When all faults end, and no calls begin any more.
    pub healing: Duration,
    /// The network does not heal then: from then on nothing gets anywhere.
    pub goes_bad: bool,
    /// Steps within which the world must end.
    pub steps_max: u64,
    /// How long after the healing, or after the network went bad for good, all must be quiet.
    pub patience: Duration,
}

/// What the applications do. Each host is a client and a server.
#[derive(Clone, Debug)]
pub struct Load {
    /// When each host begins calls.
    pub arrivals: Arrivals,
    /// Lengths of requests.
    pub requests: Sizes,
    /// Lengths of responses.
    pub responses: Sizes,
    /// Calls over all hosts.
    pub calls_max: usize,
    /// Bytes of requests and responses over all hosts.
    pub bytes_max: u64,
    /// Mean time from the delivery of a request to its answer.
    pub service: Duration,
    /// Share of calls that are given up, in millionths.
    pub given_up: u32,
    /// Mean time after which they are.
    pub given_up_after: Duration,
    /// Share of requests that are dropped unanswered, in millionths.
    pub dropped: u32,
    /// Share of messages that say that they are parts of a longer whole, or go by grants, in millionths.
    pub parts: u32,
}

impl Scenario {
    /// How long after the healing all must be quiet, with the default timeout of one second: what comes no
    /// nearer to its end is given up after 30 timeouts, and a response whose client is gone after 60.
    pub const QUIET_AFTER_HEALING: Duration = Duration::from_secs(60);
    /// The same from the time at which the network went bad for good: a silent server is given up after 2.5
    /// timeouts at most, a silent client after 10 runs of a timer, a timeout apart each, plus what clocks are
    /// off and what was heard last.
    pub const QUIET_AFTER_BAD: Duration = Duration::from_secs(15);

    /// Hosts on one switch without faults, calling one another. A base for worlds of one's own.
    #[must_use]
    pub fn quiet(seed: u64, hosts: usize) -> Self {
        Self {
            seed,
            topology: Topology::single_switch(hosts, 10_000),
            config: Config::default(),
            wire: Wire::Encapsulated,
            modules: Vec::new(),
            packet_bytes: 1_472,
            link_backlog: Duration::ZERO,
            faults: PacketFaults::default(),
            disturbances: Vec::new(),
            behind_nat: Vec::new(),
            forgeries: None,
            receive_queue: None,
            bursts: Vec::new(),
            clocks: Vec::new(),
            load: Load {
                arrivals: Arrivals::Poisson(Duration::from_micros(100)),
                requests: Workload::W3.sizes().at_most(LONGEST),
                responses: Workload::W3.sizes().at_most(LONGEST),
                calls_max: 500,
                bytes_max: 20_000_000,
                service: Duration::ZERO,
                given_up: 0,
                given_up_after: Duration::from_millis(1),
                dropped: 0,
                parts: 0,
            },
            healing: Duration::from_secs(1),
            goes_bad: false,
            steps_max: 3_000_000,
            patience: Self::QUIET_AFTER_HEALING,
        }
    }

    /// The world of a seed: topology, faults and load are all drawn from it.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let topology = topology(&mut random);
        let hosts = topology.hosts();
        let healing = random.duration(Duration::from_millis(20), Duration::from_secs(5));
        let damage = random.chance(60_000);
        // What came later draws from a source of its own, so that the worlds of before stay what they were.
        let mut later = Random::new(seed ^ 0x01a7_e12d);
        let scenario = Self {
            seed,
            config: config(&mut random, topology.host_mbps),
            wire: if random.chance(300_000) {
                Wire::Native
            } else {
                Wire::Encapsulated
            },
            modules: modules(seed, hosts),
            packet_bytes: random.pick([576, 1_472, 1_472, 4_000, 8_972]),
            link_backlog: random.pick([Duration::ZERO, Duration::from_micros(20)]),
            faults: faults(&mut random, damage),
            disturbances: disturbances(&mut random, hosts, healing),
            behind_nat: Vec::new(),
            forgeries: None,
            receive_queue: None,
            bursts: Vec::new(),
            clocks: (0..hosts).map(|_| clock(&mut random)).collect(),
            load: load(&mut random, hosts, healing),
            topology,
            healing,
            goes_bad: later.chance(80_000),
            steps_max: 3_000_000,
            patience: Self::QUIET_AFTER_HEALING,
        };
        let patience = if scenario.goes_bad {
            Self::QUIET_AFTER_BAD
        } else {
            Self::QUIET_AFTER_HEALING
        };
        let scenario = Self {
            patience,
            ..scenario
        };
        let mut parts = Random::new(seed ^ 0x9a27_0f11);
        let load = Load {
            parts: parts.pick([0, 0, 100_000, 1_000_000]),
            ..scenario.load
        };
        let scenario = Self { load, ..scenario };
        scenario.with_narrow_ways(&mut later).with_hazards(seed)
    }

    /// At times the ways of the network take less than the hosts believe.
    fn with_narrow_ways(mut self, random: &mut Random) -> Self {
        let narrow = random.chance(150_000);
        let max = random.pick([1_472, 1_300, 600]);
        if narrow && self.packet_bytes > max {
            self.topology.packet_bytes_max = Some(max);
        }
        self
    }
}

/// Modules that hosts speak as, in half of the worlds. Their chance is their own, so that they change
/// nothing else of a world.
fn modules(seed: u64, hosts: usize) -> Vec<Option<ModuleKind>> {
    let mut random = Random::new(seed ^ 0x0d01_e5ed);
    if random.chance(500_000) {
        return Vec::new();
    }
    let kinds = [
        None,
        None,
        Some(ModuleKind::July),
        Some(ModuleKind::September),
        Some(ModuleKind::September),
        Some(ModuleKind::Upstream),
    ];
    (0..hosts).map(|_| random.pick(kinds)).collect()
}

fn topology(random: &mut Random) -> Topology {
    let mbps = random.pick([1_000, 10_000, 25_000, 100_000]);
    let shape = if random.chance(500_000) {
        Topology::single_switch(random.index(5) + 2, mbps)
    } else {
        Topology::leaf_spine(
            random.index(3) + 2,
            random.index(2) + 1,
            random.index(3) + 1,
            mbps,
        )
    };
    Topology {
        propagation: random.duration(Duration::from_nanos(100), Duration::from_micros(200)),
        send_delay: random.duration(Duration::from_nanos(500), Duration::from_micros(30)),
        receive_delay: random.duration(Duration::from_nanos(500), Duration::from_micros(30)),
        buffer_bytes: random
            .chance(400_000)
            .then(|| random.index(400_000) + 30_000),
        ..shape
    }
}

fn config(random: &mut Random, mbps: u64) -> Config {
    let mut config = Config::default();
    if random.chance(200_000) {
        config.num_priorities = random.pick([1, 2, 4, 7]);
        config.grant_fifo_permille = random.pick([0, 50, 500]);
        config.adaptive_cutoffs = random.pick([None, Some(false), Some(true)]);
    }
    if random.chance(200_000) {
        config.link_mbps = u32::try_from(mbps).ok();
    }
    if random.chance(300_000) {
        config.max_incoming_bytes = random.pick([20_000, 60_000, 1_000_000]);
        config.max_overcommit = random.index(8) + 1;
    }
    if random.chance(300_000) {
        config.unscheduled_bytes = random.pick([1_000, 10_000, 60_000]);
    }
    if random.chance(200_000) {
        config.rpcs_max = random.index(60) + 4;
    }
    if random.chance(150_000) {
        config.inbound_bytes_max = 2 * MESSAGE_BYTES_MAX;
    }
    config
}

fn faults(random: &mut Random, damage: bool) -> PacketFaults {
    let loss = random.pick([0, 1_000, 10_000, 100_000, 300_000]);
    PacketFaults {
        loss: u32::try_from(random.below(loss + 1)).unwrap_or(0),
        duplication: random.pick([0, 10_000, 100_000]),
        reordering: random.pick([0, 50_000, 300_000]),
        corruption: if damage {
            20_000
        } else {
            random.pick([0, 10_000])
        },
        hold_up_max: random.duration(Duration::from_micros(20), Duration::from_millis(400)),
        damaged: if damage {
            Damaged::Delivered
        } else {
            Damaged::Dropped
        },
    }
}

fn disturbances(random: &mut Random, hosts: usize, healing: Duration) -> Vec<Disturbance> {
    let number = random.index(4);
    (0..number)
        .map(|_| {
            let kind = match random.below(3) {
                0 => DisturbanceKind::Partition {
                    side: (0..hosts).filter(|_| random.chance(400_000)).collect(),
                },
                1 => DisturbanceKind::Crash {
                    host: random.index(hosts),
                    reported: random.chance(500_000),
                },
                _ => DisturbanceKind::Stall {
                    host: random.index(hosts),
                },
            };
            Disturbance {
                at: healing.mul_f64(random.unit()),
                lasts: random.duration(Duration::from_millis(1), Duration::from_secs(4)),
                kind,
            }
        })
        .collect()
}

fn clock(random: &mut Random) -> Clock {
    let rate = match random.below(10) {
        0..6 => 1_000_000,
        6..9 => random.between(999_800, 1_000_200),
        _ => random.between(990_000, 1_010_000),
    };
    Clock {
        offset: nanos(random.duration(Duration::from_nanos(1), Duration::from_secs(100_000))),
        rate,
    }
}

fn load(random: &mut Random, hosts: usize, healing: Duration) -> Load {
    let sizes = |random: &mut Random| {
        match random.below(8) {
            0 => Sizes::constant(1),
            1 => Sizes::constant(LONGEST),
            2 => Workload::W5.sizes().at_most(LONGEST),
            3 => Workload::W4.sizes().at_most(LONGEST),
            4 | 5 => Workload::W3.sizes().at_most(LONGEST),
            6 => Workload::W2.sizes(),
            _ => Workload::W1.sizes_sigcomm18(),
        }
        .at_most(LONGEST)
    };
    let calls_max = random.index(250) + 10;
    let arrivals = if random.chance(600_000) {
        // All calls come within the time of the faults, or within a tenth of it.
        let within = if random.chance(500_000) { 1 } else { 10 };
        let per_host = u32::try_from(calls_max / hosts + 1).unwrap_or(1);
        Arrivals::Poisson(healing / within / per_host)
    } else {
        Arrivals::Closed {
            outstanding: random.index(20) + 1,
            pause: random.duration(Duration::from_nanos(1), Duration::from_millis(30)),
        }
    };
    Load {
        arrivals,
        requests: sizes(random),
        responses: sizes(random),
        calls_max,
        bytes_max: 6_000_000,
        service: match random.below(4) {
            0 | 1 => Duration::ZERO,
            2 => Duration::from_micros(50),
            _ => random.duration(Duration::from_millis(1), Duration::from_secs(3)),
        },
        given_up: random.pick([0, 0, 50_000, 300_000]),
        given_up_after: random.duration(Duration::from_nanos(1), Duration::from_millis(100)),
        dropped: random.pick([0, 0, 20_000]),
        parts: 0,
    }
}
