//! Simulated worlds with what threatens them from outside: a NAT, forgers, bursts beyond receive queues. The
//! rules hold there, and the oracle notices an endpoint that breaks one of them.

use std::time::Duration;

use homa_protocol::endpoint::{ModuleKind, Rule};
use homa_protocol::units::Priority;
use homa_protocol::wire::{self, Packet};
use homa_protocol::{Config, Wire};
use homa_sim::{
    Arrivals, Burst, Defect, Disturbance, DisturbanceKind, Forgeries, Invariant, PacketFaults,
    ReceiveQueue, Scenario, Sizes, Totals, Violation, World,
};

fn totals(scenario: Scenario) -> Totals {
    let report = World::new(scenario).expect("valid settings").run();
    report
        .unwrap_or_else(|violation| panic!("{violation}"))
        .totals
}

/// All endpoints break one rule.
#[derive(Debug)]
struct Breaks(Rule);

impl Defect for Breaks {
    fn breaks(&self, _: usize) -> Option<Rule> {
        Some(self.0)
    }
}

/// The first violation that a defect causes in a world of these seeds.
fn caught(
    scenario: impl Fn(u64) -> Scenario,
    defect: impl Fn() -> Box<dyn Defect>,
) -> Box<Violation> {
    let run = |seed| {
        let mut world = World::new(scenario(seed)).expect("valid settings");
        world.set_defect(Boxed(defect()));
        world.run().err()
    };
    (0..20).find_map(run).expect("the defect is noticed")
}

#[derive(Debug)]
struct Boxed(Box<dyn Defect>);

impl Defect for Boxed {
    fn breaks(&self, host: usize) -> Option<Rule> {
        self.0.breaks(host)
    }

    fn on_packet(&mut self, host: usize, packet: &mut Vec<u8>, level: &mut Priority) {
        self.0.on_packet(host, packet, level);
    }
}

fn breaking(rule: Rule) -> impl Fn() -> Box<dyn Defect> {
    move || Box::new(Breaks(rule))
}

// ---- a NAT ----

/// Two clients behind one address call two servers, and their ports change.
fn behind_nat(seed: u64) -> Scenario {
    let mut scenario = Scenario::quiet(seed, 4);
    scenario.behind_nat = vec![2, 3];
    scenario.load.requests = Sizes::constant(3_000);
    scenario.load.responses = Sizes::constant(20_000);
    scenario.load.service = Duration::from_millis(3);
    scenario.load.arrivals = Arrivals::Poisson(Duration::from_micros(300));
    scenario.disturbances = (1..8)
        .map(|number| Disturbance {
            at: Duration::from_millis(3) * number,
            lasts: Duration::from_micros(u64::from(number % 3) * 400),
            kind: DisturbanceKind::PortChange {
                host: 2 + number as usize % 2,
            },
        })
        .collect();
    scenario
}

#[test]
fn calls_follow_the_ports_of_two_clients_behind_one_address() {
    for seed in 0..8 {
        let totals = totals(behind_nat(seed));
        assert_eq!(totals.port_changes, 7);
        assert!(totals.astray > 0, "the old ports are closed: {totals:?}");
        assert_eq!(totals.calls, totals.succeeded, "{totals:?}");
        assert_eq!(totals.calls, totals.delivered, "{totals:?}");
    }
}

#[test]
fn an_endpoint_to_which_another_port_is_another_client_is_noticed() {
    let violation = caught(behind_nat, breaking(Rule::ClientsKeepTheirIds));
    assert_eq!(violation.invariant, Invariant::RequestOnce, "{violation}");
}

// ---- forged packets ----

fn forged(seed: u64) -> Scenario {
    let mut scenario = Scenario::quiet(seed, 4);
    scenario.load.requests = Sizes::constant(3_000);
    scenario.load.responses = Sizes::constant(20_000);
    scenario.load.service = Duration::from_millis(1);
    scenario.healing = Duration::from_millis(50);
    scenario.forgeries = Some(Forgeries {
        interval: Duration::from_micros(50),
        packets_max: 600,
    });
    scenario
}

#[test]
fn packets_forged_without_tokens_change_no_call() {
    for seed in 0..8 {
        let totals = totals(forged(seed));
        assert_eq!(totals.forged, 600);
        assert_eq!(totals.calls, totals.succeeded, "{totals:?}");
        assert!(totals.astray > 0, "strangers are answered: {totals:?}");
    }
}

#[test]
fn an_endpoint_that_takes_any_token_for_its_own_is_noticed() {
    let violation = caught(forged, breaking(Rule::TokensAreChecked));
    assert_eq!(
        violation.invariant,
        Invariant::ForgeriesChangeNothing,
        "{violation}"
    );
}

/// Sends what it has to strangers ten times as long.
#[derive(Debug)]
struct Amplifies;

impl Defect for Amplifies {
    fn on_packet(&mut self, _: usize, packet: &mut Vec<u8>, _: &mut Priority) {
        if let Ok((_, Packet::Cutoffs(_))) = wire::parse(packet) {
            packet.resize(1_472, 0);
        }
    }
}

#[test]
fn an_endpoint_that_amplifies_what_strangers_send_is_noticed() {
    let violation = caught(forged, || Box::new(Amplifies));
    assert_eq!(
        violation.invariant,
        Invariant::NoAmplification,
        "{violation}"
    );
}

// ---- bursts ----

/// Three hosts call a fourth at once, whose receive queue takes a fraction of that.
fn burst(seed: u64, wire: Wire) -> Scenario {
    let mut scenario = Scenario::quiet(seed, 4);
    scenario.wire = wire;
    scenario.load.calls_max = 0;
    scenario.receive_queue = Some(ReceiveQueue {
        packets_max: 64,
        per_packet: Duration::from_micros(5),
    });
    scenario.bursts = vec![Burst {
        at: Duration::from_millis(1),
        server: 0,
        calls: 700,
        request: 1_000,
        response: 1_000,
    }];
    scenario
}

#[test]
fn calls_at_once_beyond_the_receive_queue_all_succeed() {
    for wire in [Wire::Encapsulated, Wire::Native] {
        let totals = totals(burst(1, wire));
        assert_eq!(totals.burst_calls, 2_100);
        assert!(totals.overrun > 500, "{totals:?}");
        assert_eq!(totals.calls, totals.succeeded, "{totals:?}");
    }
}

/// Servers that take few RPCs are called by many at once, and packets come twice.
fn refusing(seed: u64) -> Scenario {
    let mut scenario = burst(seed, Wire::Encapsulated);
    scenario.config = Config {
        rpcs_per_peer_max: 20,
        ..Config::default()
    };
    scenario.load.service = Duration::from_millis(1);
    scenario.faults = PacketFaults {
        duplication: 300_000,
        hold_up_max: Duration::from_millis(4),
        ..PacketFaults::default()
    };
    scenario
}

#[test]
fn calls_that_are_refused_are_never_run() {
    let totals = totals(refusing(1));
    assert!(totals.failed > 100 && totals.succeeded > 100, "{totals:?}");
    assert_eq!(totals.calls, totals.succeeded + totals.failed);
    assert_eq!(totals.delivered, totals.succeeded);
}

#[test]
fn an_endpoint_that_forgets_what_it_refused_is_noticed() {
    let violation = caught(refusing, breaking(Rule::RefusalsAreKept));
    assert_eq!(
        violation.invariant,
        Invariant::NotSentMeansNotSent,
        "{violation}"
    );
}

// ---- recovery ----

/// A server is started again while it has requests of which their clients have heard.
fn restart(seed: u64) -> Scenario {
    let mut scenario = Scenario::quiet(seed, 3);
    scenario.load.requests = Sizes::constant(900);
    scenario.load.responses = Sizes::constant(800);
    scenario.load.service = Duration::from_millis(40);
    scenario.load.calls_max = 400;
    scenario.disturbances = vec![Disturbance {
        at: Duration::from_millis(20),
        lasts: Duration::from_millis(1),
        kind: DisturbanceKind::Crash {
            host: 0,
            reported: false,
        },
    }];
    scenario
}

#[test]
fn an_endpoint_to_which_any_rpc_unknown_is_a_proof_is_noticed() {
    let totals = totals(restart(1));
    assert!(totals.failed > 10 && totals.succeeded > 100, "{totals:?}");
    let violation = caught(restart, breaking(Rule::ProofsHaveReach));
    assert_eq!(violation.invariant, Invariant::RequestOnce, "{violation}");
}

/// Messages longer than the way takes in one packet.
fn narrow(seed: u64) -> Scenario {
    let mut scenario = Scenario::quiet(seed, 2);
    scenario.packet_bytes = 4_000;
    scenario.topology.packet_bytes_max = Some(1_450);
    scenario.load.requests = Sizes::constant(20_000);
    scenario.load.responses = Sizes::constant(20_000);
    scenario.load.calls_max = 20;
    scenario
}

#[test]
fn an_endpoint_that_finds_no_black_hole_is_noticed() {
    assert_eq!(totals(narrow(1)).failed, 0);
    let violation = caught(narrow, breaking(Rule::BlackHolesAreFound));
    assert_eq!(violation.invariant, Invariant::FailsForCause, "{violation}");
}

/// Its responses never come, and it asks for acks of them, if it is a server.
#[derive(Debug)]
struct KeptAlive {
    broken: bool,
}

impl Defect for KeptAlive {
    fn breaks(&self, _: usize) -> Option<Rule> {
        self.broken.then_some(Rule::StandstillEnds)
    }

    fn on_packet(&mut self, _: usize, packet: &mut Vec<u8>, level: &mut Priority) {
        if let Ok((header, Packet::Data(..))) = wire::parse(packet)
            && !header.sender_id.is_client()
        {
            *packet = wire::emit(&header, &Packet::NeedAck).as_slice().to_vec();
            *level = Priority::HIGHEST;
        }
    }
}

#[test]
fn an_endpoint_that_control_packets_keep_waiting_is_noticed() {
    let mut scenario = narrow(1);
    scenario.wire = Wire::Native;
    scenario.topology.packet_bytes_max = None;
    let with = |broken| {
        let kept = move || Box::new(KeptAlive { broken }) as Box<dyn Defect>;
        caught(|_| scenario.clone(), kept).invariant
    };
    assert_eq!(with(false), Invariant::FailsForCause, "the calls end");
    assert_eq!(with(true), Invariant::EveryCallEnds);
}

/// Newer modules on a network that loses packets.
fn modules(seed: u64) -> Scenario {
    let mut scenario = Scenario::quiet(seed, 3);
    scenario.wire = Wire::Native;
    scenario.modules = vec![Some(ModuleKind::September); 3];
    scenario.load.requests = Sizes::constant(90_000);
    scenario.load.responses = Sizes::constant(60_000);
    scenario.load.calls_max = 60;
    scenario.load.bytes_max = u64::MAX;
    scenario.faults = PacketFaults {
        loss: 100_000,
        ..PacketFaults::default()
    };
    scenario
}

#[test]
fn an_endpoint_that_sends_start_msg_only_once_is_noticed() {
    assert_eq!(totals(modules(1)).failed, 0);
    let violation = caught(modules, breaking(Rule::StartIsRepeated));
    assert_eq!(violation.invariant, Invariant::FailsForCause, "{violation}");
}
