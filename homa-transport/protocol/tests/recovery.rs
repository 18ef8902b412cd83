//! What recovery costs: packets sent again where the way overflows, questions where it is long.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use homa_protocol::units::Instant;
use homa_protocol::wire::PacketType;
use homa_protocol::{Config, Wire};
use homa_sim::{Arrivals, Disturbance, DisturbanceKind, Scenario, Sizes, Topology, What, World};
use support::{Fate, Pair, Side, pattern};

/// DATA sent in a world, and what would have been enough, in bytes.
#[derive(Default)]
struct Sent {
    bytes: u64,
    needed: u64,
    /// Packets of all kinds.
    lost: u64,
    data: u64,
    distinct: u64,
    seen: HashSet<(usize, u64, u32)>,
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (lost, data, distinct) = (self.lost, self.data, self.distinct);
        write!(f, "{data} packets, {distinct} needed, {lost} lost")
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
    // The processes have been there for a while when the calls begin.
    scenario.disturbances = [0, 1]
        .map(|host| Disturbance {
            at: Duration::ZERO,
            lasts: Duration::from_millis(50),
            kind: DisturbanceKind::Stall { host },
        })
        .to_vec();
    scenario
}

fn run(scenario: Scenario) -> Sent {
    let mut world = World::new(scenario).expect("valid settings");
    let sent = Rc::new(RefCell::new(Sent::default()));
    let seen = Rc::clone(&sent);
    world.watch(move |record| {
        let What::Sent(packet) = record.what else {
            return;
        };
        let mut sent = seen.borrow_mut();
        if packet.packet_type == Some(PacketType::Data) {
            let bytes = u64::from(packet.length);
            sent.bytes += bytes;
            sent.data += 1;
            let key = (record.host, packet.id.value(), packet.offset);
            if sent.seen.insert(key) {
                sent.needed += bytes;
                sent.distinct += 1;
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
    sent
}

#[test]
fn retransmissions_do_not_multiply_where_the_way_overflows() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        for levels in [8, 1] {
            for buffer in [60_000, 200_000, 600_000] {
                let sent = run(overflowing(1, wire, buffer, levels));
                let ratio = sent.bytes as f64 / sent.needed as f64;
                let what =
                    format!("{wire:?}, {levels} levels, {buffer} bytes: {ratio:.2}, {sent:?}");
                assert!(sent.lost > 500, "{what}");
                // Hardly anything is sent again but what was lost.
                let packets = sent.bytes / 1_400;
                assert!(
                    sent.data < sent.distinct + sent.lost + packets / 25,
                    "{what}"
                );
                // Half of all is lost for want of room where that is less than a packet for each call.
                assert!(buffer < 200_000 || ratio < 1.3, "{what}");
            }
        }
    }
}

// ---- questions ----

fn count(pair: &Pair, kind: PacketType) -> usize {
    let of_kind = |sent: &&support::Sent| sent.packet_type == kind;
    pair.log.iter().filter(of_kind).count()
}

/// A pair whose packets take `delay` each way.
fn far(wire: Wire, delay: Duration) -> Pair {
    let mut pair = Pair::with(Config::default(), wire);
    pair.fate = Box::new(move |_| Fate::Delay(delay));
    pair
}

#[test]
fn small_calls_over_a_long_way_cost_no_questions() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        for millis in [1, 5, 20, 100] {
            let delay = Duration::from_millis(millis);
            let mut pair = far(wire, delay);
            for cookie in 0..200 {
                pair.call(pattern(100, 1), cookie);
                pair.run_for(2 * delay + Duration::from_micros(10));
                assert!(pair.outcomes[&cookie].is_ok());
            }
            let asked = count(&pair, PacketType::NeedAck) + count(&pair, PacketType::Ack);
            assert!(asked <= 10, "{wire:?}, {delay:?}: {asked}");
        }
    }
}

#[test]
fn a_lone_call_costs_one_question_and_is_forgotten_by_its_server() {
    let mut pair = far(Wire::Native, Duration::from_millis(5));
    pair.call(pattern(100, 1), 0);
    pair.run(Duration::from_secs(60));
    assert!(pair.is_settled());
    assert_eq!(count(&pair, PacketType::NeedAck), 1);
    assert_eq!(count(&pair, PacketType::Ack), 1);
}

#[test]
fn a_response_that_is_late_is_not_asked_for_again() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        let delay = Duration::from_millis(100);
        let mut pair = far(wire, delay).acquaint();
        pair.fate = Box::new(move |_| Fate::Delay(delay));
        pair.answer = Box::new(|_| Some(pattern(300_000, 2).into()));
        for cookie in 0..10 {
            pair.call(pattern(100, 1), cookie);
            pair.run(Duration::from_secs(60));
        }
        // The response is asked for in parts once something of it is there.
        let parts = |sent: &&support::Sent| {
            sent.packet_type == PacketType::Resend && !sent.text.contains("all")
        };
        let asked = pair.log.iter().filter(parts).count();
        assert!(asked <= 20, "{wire:?}: {asked}");
        let stats = pair.server.stats();
        assert!(
            stats.data_resent * 20 < stats.data_sent,
            "{wire:?}: {stats:?}"
        );
    }
}

/// The tail of a response is behind a full queue, and a NEED_ACK overtakes it.
/// DATA packets that were sent beside those that were needed, in thousandths of these.
fn copies_permille(pair: &Pair) -> usize {
    let is_data = |sent: &&support::Sent| sent.packet_type == PacketType::Data;
    let all: Vec<_> = pair.log.iter().filter(is_data).collect();
    let distinct: HashSet<_> = all
        .iter()
        .map(|sent| (sent.id.value(), &sent.text))
        .collect();
    (all.len() - distinct.len()) * 1_000 / distinct.len()
}

#[test]
fn over_a_long_way_hardly_anything_is_sent_twice() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        for delay in [10, 50, 100] {
            for (len, calls) in [(100, 1_000), (40_000, 100), (100_000, 100)] {
                // Over UDP the first responses are held back for a round trip, and asked for meanwhile.
                let most = if wire == Wire::Native { 50 } else { 400 };
                let mut pair = far(wire, Duration::from_millis(delay));
                for call in 0..calls {
                    pair.call(pattern(len, 1), call);
                    pair.run_for(Duration::from_millis(2 * delay / 10));
                }
                pair.run(Duration::from_secs(30));
                assert!(pair.outcomes.values().all(Result::is_ok));
                let copies = copies_permille(&pair);
                let what = format!("{wire:?}, {delay} ms, {len} bytes: {copies} of 1000");
                assert!(copies <= most, "{what}");
            }
        }
    }
}

#[test]
fn a_need_ack_that_overtakes_the_tail_draws_no_resends() {
    let mut pair = Pair::with(Config::default(), Wire::Native);
    pair.answer = Box::new(|_| Some(pattern(30_000, 2).into()));
    let mut behind = 0;
    pair.fate = Box::new(move |sent| {
        if sent.packet_type == PacketType::Data && sent.from == Side::Server {
            behind += 1;
            return Fate::Delay(Duration::from_micros(2_000 * behind));
        }
        Fate::Deliver
    });
    pair.call(pattern(100, 1), 0);
    pair.run(Duration::from_secs(10));
    assert!(count(&pair, PacketType::NeedAck) > 0);
    assert_eq!(count(&pair, PacketType::Resend), 0);
    assert_eq!(pair.server.stats().data_resent, 0);
}

#[test]
fn a_response_lost_as_a_whole_is_asked_for_when_its_server_says_that_it_was_sent() {
    let mut pair = Pair::with(Config::default(), Wire::Native);
    pair.answer = Box::new(|_| None);
    pair.call(pattern(100, 1), 0);
    pair.run_for(Duration::from_secs(5));
    let mut lost = 0;
    pair.fate = Box::new(move |sent| {
        let lose = sent.packet_type == PacketType::Data && lost < 1;
        lost += i32::from(lose);
        if lose { Fate::Drop } else { Fate::Deliver }
    });
    let begin = pair.now;
    pair.respond(pair.open[0], pattern(100, 2)).unwrap();
    while pair.outcomes.is_empty() {
        pair.run_for(Duration::from_millis(1));
    }
    let took = pair.now - begin;
    assert!(took < Duration::from_millis(60), "{took:?}");
}

#[test]
fn many_calls_at_a_slow_server_are_asked_about_rarely() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        let mut pair = Pair::with(Config::default(), wire);
        pair.answer = Box::new(|_| None);
        for cookie in 0..1_028 {
            pair.call(pattern(100, 1), cookie);
        }
        pair.run_for(Duration::from_secs(5));
        for rpc in std::mem::take(&mut pair.open) {
            pair.respond(rpc, pattern(10, 0)).unwrap();
        }
        pair.run(Duration::from_secs(60));
        assert!(pair.outcomes.values().all(Result::is_ok));
        let asked = pair.client.stats().resends_sent;
        assert!(asked < 6 * 1_028, "{wire:?}: {asked}");
    }
}

/// On protocol 146 only what a server says twice within its memory proves that it never had a request.
#[test]
fn a_call_of_unknown_state_is_asked_about_within_half_of_its_servers_memory() {
    let mut pair = Pair::with(Config::default(), Wire::Native);
    pair.answer = Box::new(|_| None);
    for cookie in 0..10_000 {
        pair.call(pattern(10, 1), cookie);
    }
    pair.run_for(Duration::from_secs(12));
    let mut last: HashMap<u64, Instant> = HashMap::new();
    let mut longest = Duration::ZERO;
    for sent in pair.log.iter().filter(|sent| sent.from == Side::Client) {
        if let Some(before) = last.insert(sent.id.value(), sent.at) {
            longest = longest.max(sent.at - before);
        }
    }
    let end = pair.now;
    let waits = last.values().map(|last| end - *last).max().unwrap();
    let half = Config::default().delivered_memory / 2;
    assert!(
        longest.max(waits) <= half + Duration::from_millis(200),
        "{longest:?}, {waits:?}"
    );
}

#[test]
fn a_request_lost_among_a_hundred_thousand_is_found_within_seconds() {
    let config = Config {
        rpcs_max: 200_000,
        rpcs_per_peer_max: 200_000,
        ..Config::default()
    };
    let mut pair = Pair::with(config, Wire::Encapsulated).acquaint();
    pair.answer = Box::new(|_| None);
    let mut number = 0;
    pair.fate = Box::new(move |sent| {
        let first = sent.packet_type == PacketType::Data && sent.from == Side::Client;
        number += u32::from(first);
        if first && number.is_multiple_of(10_000) && number <= 100_000 {
            Fate::Drop
        } else {
            Fate::Deliver
        }
    });
    for cookie in 0..100_000_u64 {
        pair.call(cookie.to_be_bytes().to_vec(), cookie);
    }
    pair.run_for(Duration::from_millis(1));
    assert_eq!(pair.deliveries.len(), 99_990);
    let begin = pair.now;
    while pair.deliveries.len() < 100_000 {
        pair.run_for(Duration::from_millis(100));
        assert!(
            pair.now - begin < Duration::from_secs(5),
            "{}",
            pair.deliveries.len()
        );
    }
}

// ---- ends ----

/// Drops packets of more than `max` bytes.
fn narrow(max: usize) -> Box<dyn FnMut(&support::Sent) -> Fate> {
    Box::new(move |sent| {
        if sent.len > max {
            Fate::Drop
        } else {
            Fate::Deliver
        }
    })
}

#[test]
fn packets_too_long_for_their_way_become_shorter_for_a_while() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        for (packet_bytes, max) in [(8_972, 1_500), (8_972, 600), (1_472, 1_450), (4_000, 3_900)] {
            for len in [4_000, 30_000, 300_000] {
                let mut pair = Pair::with(Config::default(), wire);
                pair.packet_bytes = packet_bytes;
                pair.fate = narrow(max);
                let begin = pair.now;
                pair.call(pattern(len, 1), 0);
                pair.run(Duration::from_secs(60));
                let what = format!("{wire:?}, {packet_bytes} over {max}, {len} bytes");
                let right = pair.outcomes[&0] == Ok(pattern(len, 1).into());
                assert!(right, "{what}");
                assert!(pair.now - begin < Duration::from_secs(2), "{what}");
                assert!(pair.client.stats().paths_narrowed > 0, "{what}");
                // The next message goes in short packets at once.
                pair.log.clear();
                pair.call(pattern(30_000, 2), 1);
                pair.run(Duration::from_secs(1));
                assert!(pair.log.iter().all(|sent| sent.len <= max), "{what}");
                // After a while the way may be wide again.
                pair.fate = Box::new(|_| Fate::Deliver);
                pair.run_for(Duration::from_secs(61));
                pair.log.clear();
                pair.call(pattern(30_000, 2), 2);
                pair.run(Duration::from_secs(1));
                assert!(pair.log.iter().any(|sent| sent.len > max), "{what}");
            }
        }
    }
}

#[test]
fn a_way_that_becomes_narrow_in_the_midst_of_a_message_is_noticed() {
    let mut pair = Pair::new().acquaint();
    pair.packet_bytes = 8_972;
    pair.call(pattern(1_000_000, 1), 0);
    pair.run_for(Duration::from_micros(100));
    assert!(pair.outcomes.is_empty());
    pair.fate = narrow(1_500);
    let begin = pair.now;
    pair.run(Duration::from_secs(60));
    assert!(pair.outcomes[&0].is_ok());
    assert!(
        pair.now - begin < Duration::from_secs(3),
        "{:?}",
        pair.now - begin
    );
}

#[test]
fn loss_alone_does_not_make_packets_shorter() {
    let mut narrowed = 0;
    for seed in 1..40_u64 {
        let mut pair = Pair::new().acquaint();
        let mut random = seed;
        pair.fate = Box::new(move |_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random.is_multiple_of(5) {
                Fate::Drop
            } else {
                Fate::Deliver
            }
        });
        for cookie in 0..5 {
            pair.call(pattern(200_000, 1), cookie);
        }
        pair.run(Duration::from_secs(60));
        assert_eq!(pair.outcomes.len(), 5);
        narrowed += pair.client.stats().paths_narrowed + pair.server.stats().paths_narrowed;
    }
    assert!(narrowed <= 1, "{narrowed}");
}

/// Every DATA packet of the server, or all but the first of the client, is lost for ever, and all else
/// arrives.
#[test]
fn control_packets_alone_keep_no_rpc_alive() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        for side in [Side::Client, Side::Server] {
            for len in [100, 3_000, 100_000] {
                let mut pair = Pair::with(Config::default(), wire).acquaint();
                let mut first = side == Side::Client;
                pair.fate = Box::new(move |sent| {
                    let lost = sent.packet_type == PacketType::Data && sent.from == side;
                    if lost && !std::mem::take(&mut first) {
                        Fate::Drop
                    } else {
                        Fate::Deliver
                    }
                });
                if side == Side::Client {
                    pair.answer = Box::new(|_| Some(pattern(10, 0).into()));
                }
                pair.call(pattern(len, 1), 0);
                pair.run_for(Duration::from_secs(70));
                let what = format!("{wire:?}, {side:?}, {len} bytes");
                assert_eq!(pair.outcomes.len(), 1, "{what}");
                let lives = pair.client.stats().rpcs_live + pair.server.stats().rpcs_live;
                assert_eq!(lives, 0, "{what}");
            }
        }
    }
}

#[test]
fn a_request_that_waits_for_room_or_was_refused_ends() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        let config = Config {
            rpcs_per_peer_max: 1,
            ..Config::default()
        };
        let mut pair = Pair::with(config, wire).acquaint();
        pair.answer = Box::new(|_| None);
        pair.call(pattern(10, 1), 0);
        pair.call(pattern(11, 1), 1);
        pair.run_for(Duration::from_secs(60));
        assert!(!pair.outcomes.contains_key(&0), "the application holds it");
        assert!(pair.outcomes.contains_key(&1), "{wire:?}");
    }
}

// ---- cutoffs ----

fn cutoffs_sent(pair: &Pair) -> usize {
    count(pair, PacketType::Cutoffs)
}

#[test]
fn cutoffs_are_told_at_once_and_then_once_a_second() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        let mut pair = Pair::with(Config::default(), wire);
        pair.call(pattern(100, 1), 0);
        pair.run_for(Duration::from_millis(1));
        assert!(cutoffs_sent(&pair) >= 1, "{wire:?}");
        // The client does not hear of them, as a module that has those of another process.
        pair.restart_client_of(wire);
        pair.log.clear();
        pair.fate = Box::new(|sent| {
            let lost = sent.packet_type == PacketType::Cutoffs && sent.number > 0;
            if lost { Fate::Drop } else { Fate::Deliver }
        });
        for cookie in 1..300 {
            pair.call(pattern(100, 1), cookie);
            pair.run_for(Duration::from_millis(10));
        }
        let told = cutoffs_sent(&pair);
        assert!((2..=4).contains(&told), "{wire:?}: {told}");
    }
}

#[test]
fn a_client_that_lacks_the_token_hears_it_soon() {
    let mut pair = Pair::new();
    let mut lost = 0;
    pair.fate = Box::new(move |sent| {
        let lose = sent.from == Side::Server && lost < 3;
        lost += i32::from(lose);
        if lose { Fate::Drop } else { Fate::Deliver }
    });
    pair.call(pattern(30_000, 1), 0);
    pair.run_for(Duration::from_millis(50));
    assert!(pair.outcomes[&0].is_ok());
}
