//! Two endpoints and a network that loses, repeats and reorders chosen packets.

mod support;

use std::time::Duration;

use bytes::Bytes;
use homa_protocol::wire::{PacketType, quoted_id};
use homa_protocol::{Config, Delivery, Limit, Message, Report, RpcError, Unreachable, Wire};
use support::{Fate, Pair, Side, client_addr, pattern, server_addr};

const LONG: Duration = Duration::from_secs(60);

/// Runs one echo of `len` bytes under `fate` and checks that it ends as it should.
fn echo(len: usize, wire: Wire, fate: impl FnMut(&support::Sent) -> Fate + 'static) -> Pair {
    let mut pair = Pair::with(Config::default(), wire);
    pair.fate = Box::new(fate);
    let request = Bytes::from(pattern(len, 3));
    pair.answer = Box::new(|request| {
        Some(
            request
                .iter()
                .map(|byte| byte ^ 0x5a)
                .collect::<Vec<u8>>()
                .into(),
        )
    });
    pair.call(request.clone(), 1);
    pair.run(LONG);
    let expected: Vec<u8> = request.iter().map(|byte| byte ^ 0x5a).collect();
    assert_eq!(
        pair.outcomes.get(&1),
        Some(&Ok(Bytes::from(expected))),
        "{len} bytes"
    );
    assert_eq!(pair.deliveries.get(&request), Some(&1), "{len} bytes");
    assert!(
        pair.is_settled(),
        "{:?} {:?}",
        pair.client.stats(),
        pair.server.stats()
    );
    assert_eq!(pair.client.inbound_bytes() + pair.server.inbound_bytes(), 0);
    pair
}

#[test]
fn every_size_arrives_exactly_and_leaves_nothing_behind() {
    for wire in [Wire::Native, Wire::Encapsulated] {
        for len in [
            1, 100, 1_424, 1_425, 39_999, 40_000, 40_001, 200_000, 999_999, 1_000_000,
        ] {
            let pair = echo(len, wire, |_| Fate::Deliver);
            // Once, a packet of the request shows that the client is where it says it is.
            let server = pair.server.stats();
            let first_contact = wire == Wire::Encapsulated && (1_425..=40_001).contains(&len);
            assert_eq!(server.responses_held, u64::from(first_contact), "{len}");
            assert_eq!(server.resends_sent, server.responses_held, "{len}");
            assert_eq!(pair.client.stats().data_resent, server.responses_held);
        }
    }
}

#[test]
fn a_small_rpc_costs_one_packet_each_way_and_the_ack() {
    let mut pair = echo(100, Wire::Native, |_| Fate::Deliver);
    pair.log.clear();
    for cookie in 2..12 {
        pair.call(pattern(100, 9), cookie);
        pair.run(Duration::from_micros(200));
    }
    let data = pair
        .log
        .iter()
        .filter(|sent| sent.packet_type == PacketType::Data)
        .count();
    assert_eq!(
        (data, pair.log.len()),
        (20, 20),
        "acks ride on the next request: {:?}",
        pair.log
    );
}

#[test]
fn each_packet_of_a_small_rpc_lost_repeated_or_delayed_changes_nothing() {
    let packets = echo(100, Wire::Encapsulated, |_| Fate::Deliver).log.len();
    for victim in 0..packets + 2 {
        for fate in fates() {
            echo(100, Wire::Encapsulated, move |sent| {
                choose(sent.number == victim, fate)
            });
        }
    }
}

#[test]
fn each_packet_of_a_long_rpc_lost_changes_nothing() {
    each_packet_of_a_long_rpc(Wire::Encapsulated, Fate::Drop);
    each_packet_of_a_long_rpc(Wire::Native, Fate::Drop);
}

#[test]
fn each_packet_of_a_long_rpc_repeated_changes_nothing() {
    each_packet_of_a_long_rpc(Wire::Encapsulated, Fate::Duplicate);
}

#[test]
fn each_packet_of_a_long_rpc_out_of_order_changes_nothing() {
    each_packet_of_a_long_rpc(Wire::Encapsulated, Fate::Delay(Duration::from_micros(130)));
    each_packet_of_a_long_rpc(Wire::Native, Fate::Delay(Duration::from_millis(12)));
}

fn each_packet_of_a_long_rpc(wire: Wire, fate: Fate) {
    let packets = echo(500_000, wire, |_| Fate::Deliver).log.len();
    assert!(packets > 600);
    for victim in 0..packets + 2 {
        echo(500_000, wire, move |sent| {
            choose(sent.number == victim, fate)
        });
    }
}

fn fates() -> [Fate; 4] {
    [
        Fate::Drop,
        Fate::Duplicate,
        Fate::Delay(Duration::from_micros(130)),
        Fate::Delay(Duration::from_millis(12)),
    ]
}

fn choose(chosen: bool, fate: Fate) -> Fate {
    if chosen { fate } else { Fate::Deliver }
}

#[test]
fn all_packets_of_one_type_lost_for_a_while_change_nothing() {
    use PacketType::{Ack, Busy, Cutoffs, Data, Grant, NeedAck, Resend, RpcUnknown};
    for lost in [Data, Grant, Resend, RpcUnknown, Busy, Cutoffs, NeedAck, Ack] {
        for side in [Side::Client, Side::Server] {
            for len in [100, 500_000] {
                let mut left = 20;
                echo(len, Wire::Encapsulated, move |sent| {
                    let hit = sent.packet_type == lost && sent.from == side && left > 0;
                    left -= i32::from(hit);
                    choose(hit, Fate::Drop)
                });
            }
        }
    }
}

#[test]
fn no_length_fails_under_heavy_random_faults() {
    for seed in 0..60_u64 {
        let len = [1, 700, 1_425, 40_001, 120_000, 1_000_000][usize::try_from(seed % 6).unwrap()];
        let mut random = Random(seed + 1);
        echo(len, Wire::Encapsulated, move |_| {
            match random.next() % 100 {
                0..15 => Fate::Drop,
                15..20 => Fate::Duplicate,
                20..35 => Fate::Delay(Duration::from_micros(random.next() % 3_000)),
                35..37 => Fate::Delay(Duration::from_millis(random.next() % 40)),
                _ => Fate::Deliver,
            }
        });
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn many_calls_at_once_under_loss_each_run_once() {
    let mut pair = Pair::new();
    let mut random = Random(77);
    pair.fate = Box::new(move |_| choose(random.next().is_multiple_of(10), Fate::Drop));
    for cookie in 0..500_u64 {
        let len = 8 + usize::try_from(cookie * 997 % 30_000).unwrap();
        let mut request = pattern(len, 1);
        request[..8].copy_from_slice(&cookie.to_be_bytes());
        pair.call(request, cookie);
    }
    pair.run(LONG);
    assert_eq!(pair.outcomes.len(), 500);
    let failed = pair.outcomes.iter().find(|(_, outcome)| outcome.is_err());
    assert_eq!(failed, None, "{:?}", pair.server.stats());
    assert!(pair.deliveries.values().all(|count| *count == 1));
    assert!(pair.is_settled());
}

#[test]
fn a_duplicate_that_comes_after_the_ack_is_not_executed_again() {
    let mut pair = Pair::new();
    let mut first = true;
    pair.fate = Box::new(move |sent| {
        let hit = first && sent.from == Side::Client;
        first = false;
        choose(hit, Fate::Delay(Duration::from_millis(400)))
    });
    pair.call(pattern(50, 1), 1);
    pair.run(LONG);
    pair.run_for(Duration::from_millis(500));
    assert!(pair.outcomes[&1].is_ok());
    assert_eq!(pair.deliveries.values().sum::<usize>(), 1);
    assert_eq!(pair.server.stats().duplicate_requests, 1);
}

#[test]
fn a_silent_server_fails_the_call_after_the_timeout_with_delivery_unknown() {
    let mut pair = Pair::new();
    pair.fate = Box::new(|_| Fate::Drop);
    let begin = pair.now;
    pair.call(pattern(100, 0), 5);
    pair.run(LONG);
    let error = pair.outcomes[&5].clone().unwrap_err();
    assert_eq!(error.delivery(), Delivery::Unknown);
    assert!(
        error.to_string().contains(&server_addr().to_string()),
        "{error}"
    );
    assert!(matches!(error, RpcError::TimedOut { resends, .. } if resends >= 10));
    assert!(
        pair.now - begin >= Duration::from_secs(1),
        "{:?}",
        pair.now - begin
    );
    assert!(
        pair.now - begin < Duration::from_secs(3),
        "{:?}",
        pair.now - begin
    );
    assert!(pair.client.is_idle());
}

#[test]
fn a_slow_server_is_waited_for_and_answers_busy() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| None);
    pair.call(pattern(100, 0), 5);
    pair.run_for(Duration::from_secs(30));
    assert!(pair.outcomes.is_empty(), "{:?}", pair.outcomes);
    assert!(pair.server.stats().busy_sent >= 10);
    assert!(
        pair.server.stats().busy_sent < 200,
        "RESENDs after BUSY back off"
    );
    let rpc = pair.open[0];
    pair.respond(rpc, pattern(10, 0)).unwrap();
    pair.run(LONG);
    assert_eq!(pair.outcomes[&5], Ok(Bytes::from(pattern(10, 0))));
}

#[test]
fn a_call_given_up_cancels_the_request_at_the_server() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| None);
    let rpc = pair.call(pattern(100, 0), 5);
    pair.run_for(Duration::from_millis(1));
    assert_eq!(pair.open.len(), 1);
    pair.client.abort(pair.now, rpc);
    pair.run(LONG);
    assert_eq!(pair.cancelled, pair.open);
    assert!(pair.is_settled());
    assert_eq!(
        pair.respond(pair.open[0], pattern(1, 0)),
        Err(RpcError::Stale)
    );
}

#[test]
fn a_cancel_that_overtakes_its_request_keeps_it_from_running() {
    let mut pair = Pair::new().acquaint();
    pair.fate = Box::new(|sent| {
        choose(
            sent.packet_type == PacketType::Data,
            Fate::Delay(Duration::from_millis(3)),
        )
    });
    let rpc = pair.call(pattern(100, 0), 5);
    pair.client.abort(pair.now, rpc);
    pair.run_for(Duration::from_millis(100));
    assert!(pair.deliveries.is_empty());
}

#[test]
fn a_lost_cancel_is_made_good_by_the_ack_on_the_next_call() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|request| (request.len() < 100).then(|| request.clone().into()));
    pair.fate = Box::new(|sent| choose(sent.packet_type == PacketType::RpcUnknown, Fate::Drop));
    let rpc = pair.call(pattern(100, 0), 5);
    pair.run_for(Duration::from_millis(1));
    pair.client.abort(pair.now, rpc);
    pair.call(pattern(10, 0), 6);
    pair.run(LONG);
    assert_eq!(pair.cancelled, pair.open);
}

#[test]
fn a_server_restarted_before_anything_was_heard_gets_the_request_again() {
    let mut pair = Pair::new();
    pair.fate = Box::new(|sent| choose(sent.from == Side::Server && sent.number < 4, Fate::Drop));
    pair.call(pattern(100, 0), 5);
    pair.restart_server();
    pair.fate = Box::new(|_| Fate::Deliver);
    pair.run(LONG);
    assert!(pair.outcomes[&5].is_ok());
}

#[test]
fn a_request_that_a_killed_server_had_is_not_executed_by_its_successor_however_often_it_says_no() {
    // The client is heard again only a while after the new server was started: what that says first
    // proves nothing, and the next reply reaches back no further than to the first.
    for down in [50, 150, 400, 900] {
        let mut pair = Pair::new();
        pair.answer = Box::new(|_| None);
        pair.call(pattern(100, 0), 5);
        pair.run_for(Duration::from_millis(300));
        let (open, executed) = (pair.open.len(), pair.server.stats().requests_received);
        assert_eq!((open, executed), (1, 1));
        pair.fate = Box::new(|_| Fate::Drop);
        pair.restart_server();
        pair.run_for(Duration::from_millis(down));
        pair.fate = Box::new(|_| Fate::Deliver);
        pair.run(LONG);
        assert_eq!(pair.server.stats().requests_received, 0, "{down} ms");
        let error = pair.outcomes[&5].clone().unwrap_err();
        assert_eq!(error.delivery(), Delivery::Unknown, "{down} ms: {error}");
    }
}

#[test]
fn a_server_restarted_after_it_had_the_request_fails_the_call_as_maybe_executed() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| None);
    pair.call(pattern(100, 0), 5);
    pair.run_for(Duration::from_millis(20));
    assert!(pair.server.stats().busy_sent > 0);
    pair.restart_server();
    pair.run(LONG);
    let error = pair.outcomes[&5].clone().unwrap_err();
    assert_eq!(
        error,
        RpcError::PeerRestarted {
            peer: server_addr()
        }
    );
    assert_eq!(error.delivery(), Delivery::Unknown);
    assert_eq!(pair.deliveries.values().sum::<usize>(), 1);
}

#[test]
fn an_unreachable_peer_fails_its_calls_at_once() {
    let mut pair = Pair::new();
    pair.fate = Box::new(|_| Fate::Drop);
    let refused = |peer, about| Report {
        peer,
        reason: Unreachable::Port,
        about,
    };
    let request = Message::from(pattern(100, 0));
    pair.client
        .send_request(pair.now, server_addr(), pair.packet_bytes, request, 1)
        .unwrap();
    let sent = pair.client.poll_transmit(pair.now).unwrap();
    let about = quoted_id(sent.header.as_slice());
    pair.client
        .handle_unreachable(&refused(client_addr(), about));
    assert!(pair.outcomes.is_empty(), "a report about somebody else");
    pair.client
        .handle_unreachable(&refused(server_addr(), about));
    pair.flush();
    let error = pair.outcomes[&1].clone().unwrap_err();
    assert_eq!(error.delivery(), Delivery::NotSent, "{error}");
    for cookie in 2..4 {
        pair.call(pattern(100, 0), cookie);
    }
    pair.client
        .handle_unreachable(&refused(server_addr(), None));
    pair.flush();
    for cookie in 2..4 {
        let error = pair.outcomes[&cookie].clone().unwrap_err();
        assert_eq!(
            error.delivery(),
            Delivery::Unknown,
            "which of them was refused? {error}"
        );
    }
}

#[test]
fn a_client_that_vanishes_leaves_nothing_at_the_server() {
    for answered in [false, true] {
        let mut pair = Pair::new();
        pair.answer = Box::new(move |request| answered.then(|| Message::from(request.clone())));
        pair.fate = Box::new(|sent| choose(sent.from == Side::Server, Fate::Drop));
        pair.call(pattern(100_000, 0), 5);
        pair.run_for(Duration::from_millis(2));
        pair.fate = Box::new(|_| Fate::Drop);
        pair.run(LONG);
        assert!(
            pair.server.is_idle(),
            "answered: {answered}, {:?}",
            pair.server.stats()
        );
        assert_eq!(pair.server.inbound_bytes(), 0);
    }
}

#[test]
fn a_client_that_was_stopped_does_not_fail_healthy_calls() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| None);
    pair.call(pattern(100, 0), 5);
    pair.run_for(Duration::from_millis(50));
    // Neither side runs for ten seconds, as in a paused machine.
    pair.now = pair.now + Duration::from_secs(10);
    pair.flush();
    pair.run_for(Duration::from_millis(20));
    assert!(pair.outcomes.is_empty(), "{:?}", pair.outcomes);
    let rpc = pair.open[0];
    pair.respond(rpc, pattern(10, 0)).unwrap();
    pair.run(LONG);
    assert!(pair.outcomes[&5].is_ok());
}

#[test]
fn messages_outside_the_limits_are_refused_before_anything_is_sent() {
    let mut pair = Pair::new();
    let now = pair.now;
    let too_long = pair.client.send_request(
        now,
        server_addr(),
        1480,
        Message::from(vec![0; 1_000_001]),
        1,
    );
    assert_eq!(
        too_long,
        Err(RpcError::MessageTooLong {
            len: 1_000_001,
            max: 1_000_000
        })
    );
    let empty = pair
        .client
        .send_request(now, server_addr(), 1480, Message::new(), 1);
    assert_eq!(empty, Err(RpcError::EmptyMessage));
    let nowhere = pair.client.send_request(
        now,
        "10.0.0.1:0".parse().unwrap(),
        1480,
        Message::from(vec![1]),
        1,
    );
    assert!(matches!(nowhere, Err(RpcError::BadAddress { .. })));
    assert!(pair.client.poll_transmit(now).is_none());
    pair.answer = Box::new(|_| None);
    pair.call(pattern(10, 0), 2);
    pair.run_for(Duration::from_millis(1));
    let rpc = pair.open[0];
    assert!(matches!(
        pair.respond(rpc, vec![0; 1_000_001]),
        Err(RpcError::MessageTooLong { .. })
    ));
    assert_eq!(
        pair.respond(rpc, vec![7]),
        Ok(()),
        "it can still be answered"
    );
    pair.run(LONG);
    assert!(pair.outcomes[&2].is_ok());
}

#[test]
fn the_number_of_calls_is_bounded() {
    let config = Config {
        rpcs_max: 3,
        ..Config::default()
    };
    let mut pair = Pair::with(config, Wire::Encapsulated);
    pair.answer = Box::new(|_| None);
    for cookie in 0..3 {
        pair.call(pattern(10, 0), cookie);
    }
    let now = pair.now;
    let more = pair
        .client
        .send_request(now, server_addr(), 1480, Message::from(vec![1]), 9);
    assert_eq!(
        more,
        Err(RpcError::TooManyRpcs {
            limit: 3,
            option: Limit::Rpcs
        })
    );
}

#[test]
fn a_message_of_several_slices_arrives_as_one() {
    let mut pair = Pair::new();
    let parts: Message = (0..50_u8).map(|i| Bytes::from(pattern(4_321, i))).collect();
    let joined = parts.clone().into_bytes();
    pair.call(parts, 1);
    pair.run(LONG);
    assert_eq!(pair.outcomes[&1], Ok(joined));
}

#[test]
fn an_endpoint_that_does_not_serve_takes_no_requests() {
    let mut pair = Pair::new();
    pair.server.set_serving(false);
    pair.call(pattern(10, 0), 1);
    pair.run(LONG);
    assert!(pair.outcomes[&1].is_err());
    assert!(pair.deliveries.is_empty());
    assert!(pair.server.stats().requests_unserved > 0);
}

#[test]
fn closing_tells_the_servers_and_sends_the_acks_owed() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|request| (request.len() < 100).then(|| request.clone().into()));
    pair.call(pattern(10, 0), 1);
    pair.call(pattern(200, 0), 2);
    pair.run_for(Duration::from_micros(100));
    assert!(pair.outcomes[&1].is_ok());
    assert_eq!(pair.server.stats().rpcs_live, 2);
    pair.client.close();
    pair.run_for(Duration::from_micros(100));
    assert_eq!(pair.server.stats().rpcs_live, 0);
    assert_eq!(pair.cancelled.len(), 1);
}
