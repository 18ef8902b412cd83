//! What recovery costs: packets sent again where the way overflows, questions where it is long.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use homa_transport::Wire;
use homa_transport::sim::{Arrivals, Scenario, Sizes, Topology, What, World};
use homa_transport::wire::PacketType;

/// DATA sent in a world, and what would have been enough, in bytes.
#[derive(Default)]
struct Sent {
    bytes: u64,
    needed: u64,
    lost: u64,
    calls: u64,
    seen: HashSet<(usize, u64, u32)>,
    by_type: HashMap<String, u64>,
}

impl Sent {
    fn ratio(&self) -> f64 {
        self.bytes as f64 / self.needed as f64
    }
}

/// Two hosts with 60 calls outstanding together, across a link of a tenth of their speed whose switches
/// hold `buffer_bytes`.
fn overflowing(seed: u64, wire: Wire, buffer_bytes: usize, levels: u8) -> Scenario {
    let mut scenario = Scenario::quiet(seed, 2);
    scenario.wire = wire;
    scenario.topology = Topology {
        fabric_mbps: 1_000,
        buffer_bytes: Some(buffer_bytes),
        ..Topology::leaf_spine(2, 1, 1, 10_000)
    };
    scenario.config.num_priorities = levels;
    scenario.load.requests = Sizes::between(100, 100_000);
    scenario.load.responses = Sizes::between(100, 100_000);
    scenario.load.calls_max = 2_000;
    scenario.load.bytes_max = u64::MAX;
    scenario.load.arrivals = Arrivals::Closed {
        outstanding: 30,
        pause: Duration::from_millis(1),
    };
    scenario.healing = Duration::from_secs(10);
    scenario
}

fn run(scenario: Scenario) -> Sent {
    let mut world = World::new(scenario).unwrap();
    let sent = Rc::new(RefCell::new(Sent::default()));
    let seen = Rc::clone(&sent);
    world.watch(move |record| {
        let What::Sent(packet) = record.what else {
            return;
        };
        let mut sent = seen.borrow_mut();
        let name = packet.packet_type.map(|kind| kind.to_string());
        *sent.by_type.entry(name.unwrap_or_default()).or_default() += 1;
        if packet.packet_type == Some(PacketType::Data) {
            let bytes = u64::from(packet.length);
            sent.bytes += bytes;
            let key = (record.host, packet.id.value(), packet.offset);
            if sent.seen.insert(key) {
                sent.needed += bytes;
            }
        }
    });
    let report = world
        .run()
        .unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(
        report.totals.calls, report.totals.succeeded,
        "{:?}",
        report.totals
    );
    drop(world);
    let mut sent = sent.take();
    sent.lost = report.totals.network.overflowed;
    sent.calls = report.totals.calls;
    sent
}

#[test]
fn retransmissions_do_not_multiply_where_the_way_overflows() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        for levels in [8, 1] {
            for buffer in [60_000, 200_000, 600_000] {
                let sent = run(overflowing(1, wire, buffer, levels));
                eprintln!(
                    "{wire:?} {levels} {buffer}: {:.2}, lost {} of {:?}",
                    sent.ratio(),
                    sent.lost,
                    sent.by_type
                );
            }
        }
    }
}
