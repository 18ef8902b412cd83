//! Simulated worlds: a few hundred seeds hold every invariant, a seed repeats bit for bit, and the
//! oracle notices every kind of defect.

use std::time::Duration;

use homa_protocol::endpoint::{Event, ModuleKind};
use homa_protocol::units::{Priority, RpcId};
use homa_protocol::wire::{
    self, Busy, DATA_HEADER_BYTES, Grant, Header, Packet, PacketType, Resend,
};
use homa_protocol::{RpcError, Unreachable, Wire};
use homa_sim::{
    Arrivals, Defect, Disturbance, DisturbanceKind, Invariant, Levels, PacketFaults, Report,
    Scenario, Sizes, Topology, Violation, What, World,
};

fn run(scenario: Scenario) -> Result<Report, Box<Violation>> {
    World::new(scenario).expect("valid settings").run()
}

fn run_seeds(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(violation) = World::of_seed(seed).run() {
            panic!("{violation}");
        }
    }
}

#[test]
fn every_invariant_holds_in_worlds_0_to_150() {
    run_seeds(0..150);
}

#[test]
fn every_invariant_holds_in_worlds_150_to_300() {
    run_seeds(150..300);
}

#[test]
fn a_seed_repeats_bit_for_bit() {
    for seed in [3, 7, 31, u64::MAX] {
        let runs = [0, 1].map(|_| {
            let mut world = World::of_seed(seed);
            let records = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
            let seen = std::rc::Rc::clone(&records);
            world.watch(move |record| seen.borrow_mut().push(*record));
            let report = world.run().unwrap();
            (report, records.take())
        });
        assert!(runs[0].1.len() > 100);
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
    assert_ne!(
        World::of_seed(3).run().unwrap().digest,
        World::of_seed(7).run().unwrap().digest
    );
}

#[test]
fn a_world_without_faults_loses_nothing_and_sends_nothing_twice() {
    let report = run(Scenario::quiet(1, 6)).unwrap();
    let totals = report.totals;
    assert_eq!(totals.calls, totals.succeeded);
    assert!(totals.calls > 200, "{totals:?}");
    assert_eq!(totals.network.sent, totals.network.delivered);
    assert_eq!((totals.missed, totals.failed), (0, 0));
}

#[test]
fn three_of_ten_packets_lost_delay_calls_and_fails_none() {
    let report = run(Scenario {
        faults: PacketFaults {
            loss: 300_000,
            ..PacketFaults::default()
        },
        healing: Duration::from_secs(3),
        ..Scenario::quiet(5, 4)
    })
    .unwrap();
    assert!(report.totals.network.lost * 4 > report.totals.network.sent);
    assert_eq!(report.totals.calls, report.totals.succeeded);
}

#[test]
fn a_stalled_process_fails_no_calls_and_a_crashed_one_only_its_own() {
    let disturbed = |kind| Scenario {
        disturbances: vec![Disturbance {
            at: Duration::from_millis(3),
            lasts: Duration::from_millis(400),
            kind,
        }],
        ..Scenario::quiet(8, 4)
    };
    let stalled = run(disturbed(DisturbanceKind::Stall { host: 2 }))
        .unwrap()
        .totals;
    assert_eq!((stalled.stalls, stalled.failed), (1, 0));
    assert_eq!(stalled.calls, stalled.succeeded);
    let crash = DisturbanceKind::Crash {
        host: 2,
        reported: true,
    };
    let crashed = run(disturbed(crash)).unwrap().totals;
    assert_eq!(crashed.crashes, 1);
    assert!(crashed.failed > 0, "{crashed:?}");
    assert_eq!(
        crashed.calls,
        crashed.succeeded + crashed.failed + crashed.gone
    );
}

// ---- every invariant has a defect that breaks it ----

/// Long messages in both directions between two hosts.
fn long_messages() -> Scenario {
    let mut scenario = Scenario::quiet(2, 2);
    scenario.load.requests = Sizes::constant(700_000);
    scenario.load.responses = Sizes::constant(500_000);
    scenario.load.calls_max = 20;
    scenario.load.bytes_max = u64::MAX;
    scenario.load.arrivals = Arrivals::Closed {
        outstanding: 5,
        pause: Duration::ZERO,
    };
    scenario
}

/// Short messages between two hosts.
fn short_messages() -> Scenario {
    let mut scenario = Scenario::quiet(3, 2);
    scenario.load.requests = Sizes::constant(900);
    scenario.load.responses = Sizes::constant(800);
    scenario.load.calls_max = 50;
    scenario.patience = Duration::from_secs(3);
    scenario
}

fn caught(scenario: Scenario, defect: impl Defect + 'static) -> Violation {
    let mut world = World::new(scenario).expect("valid settings");
    world.set_defect(defect);
    *world.run().expect_err("the defect is noticed")
}

/// Changes the events of an endpoint; the counter is the number of the event.
struct Events<F>(F, usize);

impl<F> std::fmt::Debug for Events<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Events({})", self.1)
    }
}

impl<F: FnMut(usize, Event, &mut Vec<Event>)> Defect for Events<F> {
    fn on_event(&mut self, _host: usize, event: Event, seen: &mut Vec<Event>) {
        self.1 += 1;
        (self.0)(self.1, event, seen);
    }
}

fn events(change: impl FnMut(usize, Event, &mut Vec<Event>) + 'static) -> impl Defect {
    Events(change, 0)
}

/// Changes the packets of an endpoint.
struct Packets<F>(F);

impl<F> std::fmt::Debug for Packets<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packets")
    }
}

impl<F: FnMut(&mut Vec<u8>, &mut Priority)> Defect for Packets<F> {
    fn on_packet(&mut self, _host: usize, packet: &mut Vec<u8>, level: &mut Priority) {
        (self.0)(packet, level);
    }
}

fn packets(change: impl FnMut(&mut Vec<u8>, &mut Priority) + 'static) -> impl Defect {
    Packets(change)
}

/// Changes the levels an endpoint shows.
#[derive(Debug)]
struct Shows(fn(&mut Levels));

impl Defect for Shows {
    fn on_levels(&mut self, _host: usize, levels: &mut Levels) {
        (self.0)(levels);
    }
}

#[test]
fn a_request_delivered_twice_is_noticed() {
    let violation = caught(
        short_messages(),
        events(|number, event, seen| {
            if let (10.., Event::Request { rpc, peer, message }) = (number, &event) {
                let (rpc, peer, message) = (*rpc, *peer, message.clone());
                seen.push(Event::Request { rpc, peer, message });
            }
            seen.push(event);
        }),
    );
    assert_eq!(violation.invariant, Invariant::RequestOnce);
    assert_eq!(violation.seed, 3);
    assert!(violation.step > 0 && !violation.history.is_empty());
    let shown = format!("{violation:?}");
    assert!(
        shown.contains("seed 3, step") && shown.contains("DATA"),
        "{shown}"
    );
}

#[test]
fn a_changed_byte_of_a_request_is_noticed() {
    let violation = caught(
        short_messages(),
        events(|number, event, seen| match event {
            Event::Request { rpc, peer, message } if number == 7 => {
                let mut bytes = message.to_vec();
                bytes[899] ^= 1;
                let message = bytes.into();
                seen.push(Event::Request { rpc, peer, message });
            }
            other => seen.push(other),
        }),
    );
    assert_eq!(violation.invariant, Invariant::RequestExact);
}

#[test]
fn a_response_that_is_too_short_is_noticed() {
    let violation = caught(
        short_messages(),
        events(|_, event, seen| match event {
            Event::Response { cookie, message } if cookie == 5 => {
                let message = message.slice(..799);
                seen.push(Event::Response { cookie, message });
            }
            other => seen.push(other),
        }),
    );
    assert_eq!(violation.invariant, Invariant::ResponseExact);
}

#[test]
fn the_response_of_another_call_is_noticed() {
    let mut first = None;
    let violation = caught(
        short_messages(),
        events(move |_, event, seen| match event {
            Event::Response { cookie, message } => {
                let message = first.get_or_insert(message).clone();
                seen.push(Event::Response { cookie, message });
            }
            other => seen.push(other),
        }),
    );
    assert_eq!(violation.invariant, Invariant::ResponseExact);
}

#[test]
fn a_second_outcome_of_a_call_is_noticed() {
    let violation = caught(
        short_messages(),
        events(|_, event, seen| {
            if let Event::Response { cookie, .. } = &event {
                let (cookie, error) = (*cookie, RpcError::Stale);
                seen.push(Event::Failed { cookie, error });
            }
            seen.push(event);
        }),
    );
    assert_eq!(violation.invariant, Invariant::OneOutcome);
}

#[test]
fn a_delivered_call_that_fails_as_not_sent_is_noticed() {
    let violation = caught(
        short_messages(),
        events(|_, event, seen| match event {
            Event::Response { cookie, .. } => {
                let error = RpcError::Unreachable {
                    peer: "10.0.0.1:1".parse().unwrap(),
                    reason: Unreachable::Port,
                    delivery: homa_protocol::Delivery::NotSent,
                };
                seen.push(Event::Failed { cookie, error });
            }
            other => seen.push(other),
        }),
    );
    assert_eq!(violation.invariant, Invariant::NotSentMeansNotSent);
}

#[test]
fn a_request_cancelled_while_its_client_waits_is_noticed() {
    let violation = caught(
        short_messages(),
        events(|_, event, seen| {
            let cancelled = match &event {
                Event::Request { rpc, .. } => Some(Event::Cancelled { rpc: *rpc }),
                _ => None,
            };
            seen.push(event);
            seen.extend(cancelled);
        }),
    );
    assert_eq!(violation.invariant, Invariant::CancelledForCause);
}

#[test]
fn a_call_that_never_ends_is_noticed() {
    let violation = caught(
        short_messages(),
        events(|number, event, seen| {
            if number != 12 {
                seen.push(event);
            }
        }),
    );
    assert_eq!(violation.invariant, Invariant::EveryCallEnds);
    let at = violation.at.as_nanos();
    assert!(at >= 3_000_000_000, "{at}");
}

#[test]
fn an_endpoint_that_is_stuck_after_the_faults_is_noticed() {
    let violation = caught(
        short_messages(),
        events(|number, event, seen| {
            // Of the 50 calls each brings two events; later ones are those of the probes.
            if number <= 100 {
                seen.push(event);
            }
        }),
    );
    assert_eq!(violation.invariant, Invariant::WorksAgain);
}

#[test]
fn a_malformed_packet_is_noticed() {
    let violation = caught(short_messages(), packets(|packet, _| packet.truncate(20)));
    assert_eq!(violation.invariant, Invariant::WellFormed);
}

#[test]
fn a_packet_that_is_too_long_is_noticed() {
    let violation = caught(long_messages(), packets(|packet, _| packet.push(0)));
    assert_eq!(violation.invariant, Invariant::PacketLength);
}

#[test]
fn a_control_packet_below_the_highest_level_is_noticed() {
    let violation = caught(
        long_messages(),
        packets(|packet, level| {
            if packet.len() < DATA_HEADER_BYTES {
                *level = Priority::LOWEST;
            }
        }),
    );
    assert_eq!(violation.invariant, Invariant::PriorityLegal);
}

fn change_grants(change: impl Fn(Header, Grant) -> (Header, Grant) + 'static) -> impl Defect {
    packets(move |packet, _| {
        if let Ok((header, Packet::Grant(grant))) = wire::parse(packet) {
            let (header, grant) = change(header, grant);
            *packet = wire::emit(&header, &Packet::Grant(grant))
                .as_slice()
                .to_vec();
        }
    })
}

#[test]
fn a_grant_beyond_the_message_is_noticed() {
    let defect = change_grants(|header, grant| {
        let offset = grant.offset + 600_000;
        (header, Grant { offset, ..grant })
    });
    let violation = caught(long_messages(), defect);
    assert_eq!(violation.invariant, Invariant::GrantWithinMessage);
}

#[test]
fn a_grant_for_no_message_is_noticed() {
    let defect = change_grants(|header, grant| {
        let sender_id = RpcId::new(header.sender_id.value() ^ 4);
        (
            Header {
                sender_id,
                ..header
            },
            grant,
        )
    });
    let violation = caught(long_messages(), defect);
    assert_eq!(violation.invariant, Invariant::GrantWithinMessage);
}

#[test]
fn grants_that_are_too_generous_together_are_noticed() {
    let defect = change_grants(|header, grant| {
        let offset = grant.offset.max(450_000);
        (header, Grant { offset, ..grant })
    });
    let violation = caught(long_messages(), defect);
    assert_eq!(violation.invariant, Invariant::GrantsBounded);
}

#[test]
fn levels_beyond_their_bounds_are_noticed() {
    let violation = caught(
        short_messages(),
        Shows(|levels| levels.inbound_bytes = 1 << 30),
    );
    assert_eq!(violation.invariant, Invariant::MemoryBounded);
    let violation = caught(
        short_messages(),
        Shows(|levels| levels.rpcs_live = 2 * 131_072 + 1),
    );
    assert_eq!(violation.invariant, Invariant::RpcsBounded);
}

#[test]
fn what_is_left_behind_is_noticed() {
    let violation = caught(short_messages(), Shows(|levels| levels.rpcs_live = 1));
    assert_eq!(violation.invariant, Invariant::TablesEmpty);
    let violation = caught(short_messages(), Shows(|levels| levels.idle = false));
    assert_eq!(violation.invariant, Invariant::TablesEmpty);
    let violation = caught(short_messages(), Shows(|levels| levels.inbound_bytes = 1));
    assert_eq!(violation.invariant, Invariant::BudgetsZero);
}

/// Two hosts that speak like each kind of module, and two that are ours.
fn all_kinds() -> Scenario {
    let kinds = [
        ModuleKind::July,
        ModuleKind::September,
        ModuleKind::Upstream,
    ];
    let modules = kinds.into_iter().flat_map(|kind| [Some(kind); 2]);
    let mut scenario = Scenario::quiet(6, 8);
    scenario.wire = Wire::Native;
    scenario.modules = modules.collect();
    scenario.load.requests = Sizes::constant(90_000);
    scenario.load.responses = Sizes::constant(60_000);
    scenario.load.calls_max = 200;
    scenario.load.bytes_max = u64::MAX;
    scenario
}

fn starts_and_report(scenario: Scenario) -> (u64, Report) {
    let mut world = World::new(scenario).expect("valid settings");
    let starts = std::rc::Rc::new(std::cell::Cell::new(0_u64));
    let count = std::rc::Rc::clone(&starts);
    world.watch(move |record| {
        if let What::Sent(packet) = record.what {
            let is_start = packet.packet_type == Some(PacketType::StartMsg);
            count.set(count.get() + u64::from(is_start));
        }
    });
    let report = world
        .run()
        .unwrap_or_else(|violation| panic!("{violation}"));
    (starts.get(), report)
}

#[test]
fn modules_of_all_kinds_and_ours_call_one_another() {
    let (starts, report) = starts_and_report(all_kinds());
    let totals = report.totals;
    assert!(totals.calls >= 200, "{totals:?}");
    assert_eq!(totals.calls, totals.succeeded, "{totals:?}");
    assert!(starts > 100, "{starts}");
    let ours_only = Scenario {
        modules: Vec::new(),
        ..all_kinds()
    };
    assert_eq!(starts_and_report(ours_only).0, 0);
    let over_udp = Scenario {
        wire: Wire::Encapsulated,
        ..all_kinds()
    };
    assert_eq!(starts_and_report(over_udp).0, 0);
}

#[test]
fn modules_of_all_kinds_and_ours_get_over_loss_and_crashes() {
    for seed in 0..8 {
        let lossy = Scenario {
            seed,
            faults: PacketFaults {
                loss: 100_000,
                duplication: 20_000,
                reordering: 100_000,
                ..PacketFaults::default()
            },
            disturbances: vec![Disturbance {
                at: Duration::from_millis(5),
                lasts: Duration::from_millis(300),
                kind: DisturbanceKind::Crash {
                    host: usize::try_from(seed % 8).unwrap(),
                    reported: seed % 2 == 0,
                },
            }],
            ..all_kinds()
        };
        let (_, report) = starts_and_report(lossy);
        assert_eq!(report.totals.crashes, 1);
    }
}

#[test]
fn a_grant_for_a_message_that_nobody_began_is_noticed() {
    /// Hides every START_MSG from the receivers, while their senders get grants all the same.
    #[derive(Debug)]
    struct Hides;
    impl Defect for Hides {
        fn on_packet(&mut self, _: usize, packet: &mut Vec<u8>, _: &mut Priority) {
            if let Ok((header, Packet::StartMsg(start))) = wire::parse(packet) {
                let grant = Packet::Grant(Grant {
                    offset: start.message_length,
                    priority: Priority::HIGHEST,
                });
                *packet = wire::emit(&header, &grant).as_slice().to_vec();
            }
        }
    }
    let violation = caught(all_kinds(), Hides);
    assert_eq!(violation.invariant, Invariant::GrantWithinMessage);
}

#[test]
fn racks_joined_by_spines_deliver_as_one_switch_does() {
    let report = run(Scenario {
        topology: Topology::leaf_spine(3, 4, 2, 10_000),
        ..Scenario::quiet(4, 12)
    })
    .unwrap();
    assert_eq!(report.totals.calls, report.totals.succeeded);
    assert!(report.totals.network.reordered > 0, "packets are sprayed");
}

// ---- every call ends ----

/// Messages of several packets that are longer than the network takes.
fn narrow_ways() -> Scenario {
    let mut scenario = short_messages();
    scenario.packet_bytes = 4_000;
    scenario.topology.packet_bytes_max = Some(1_450);
    scenario.load.requests = Sizes::constant(20_000);
    scenario.load.responses = Sizes::constant(30_000);
    scenario.patience = Duration::from_secs(60);
    scenario
}

/// Calls are under way when the network goes bad for good.
fn going_bad() -> Scenario {
    let mut scenario = short_messages();
    scenario.load.calls_max = 100_000;
    scenario.load.bytes_max = u64::MAX;
    scenario.load.arrivals = Arrivals::Closed {
        outstanding: 10,
        pause: Duration::from_micros(1),
    };
    scenario.healing = Duration::from_millis(20);
    scenario.goes_bad = true;
    scenario.patience = Duration::from_secs(10);
    scenario
}

#[test]
fn ways_narrower_than_believed_cost_time_and_no_calls() {
    let totals = run(narrow_ways()).unwrap().totals;
    assert!(totals.network.too_long > 0);
    assert_eq!(totals.calls, totals.succeeded);
}

#[test]
fn an_endpoint_whose_packets_stay_long_is_noticed() {
    let lengthened = packets(|packet, _| {
        if packet.len() > DATA_HEADER_BYTES + 300 {
            packet.resize(packet.len().max(1_500), 0);
        }
    });
    let violation = caught(narrow_ways(), lengthened);
    assert_eq!(violation.invariant, Invariant::WorksAgain);
}

#[test]
fn calls_end_within_seconds_when_nothing_gets_anywhere_any_more() {
    let totals = run(going_bad()).unwrap().totals;
    assert!(totals.failed >= 10, "{totals:?}");
    assert_eq!(totals.calls, totals.succeeded + totals.failed);
}

#[test]
fn an_endpoint_that_waits_for_ever_for_a_dead_network_is_noticed() {
    let deaf = events(|_, event, seen| {
        if !matches!(event, Event::Failed { .. }) {
            seen.push(event);
        }
    });
    let violation = caught(going_bad(), deaf);
    assert_eq!(violation.invariant, Invariant::EveryCallEnds);
}

/// Changes every DATA packet of a server into a control packet.
fn instead_of_responses(packet: Packet<'static>) -> impl Defect {
    packets(move |bytes, level| {
        if let Ok((header, Packet::Data(..))) = wire::parse(bytes)
            && !header.sender_id.is_client()
        {
            *bytes = wire::emit(&header, &packet).as_slice().to_vec();
            *level = Priority::HIGHEST;
        }
    })
}

#[test]
fn a_server_that_says_that_it_is_at_work_for_ever_is_noticed() {
    let mut scenario = short_messages();
    scenario.wire = Wire::Native;
    scenario.patience = Duration::from_secs(60);
    let defect = instead_of_responses(Packet::Busy(Busy::Unexplained));
    let violation = caught(scenario, defect);
    assert_eq!(violation.invariant, Invariant::EveryCallEnds);
}

/// All else that can be said of a call does not keep it.
#[test]
fn questions_without_answers_end_a_call() {
    let resend = Resend {
        offset: 0,
        length: None,
        priority: Priority::HIGHEST,
    };
    for packet in [Packet::NeedAck, Packet::Resend(resend)] {
        let mut scenario = short_messages();
        scenario.wire = Wire::Native;
        scenario.patience = Duration::from_secs(60);
        let violation = caught(scenario, instead_of_responses(packet));
        // The calls end, though nothing is wrong with the network.
        assert_eq!(violation.invariant, Invariant::FailsForCause, "{packet:?}");
    }
}
