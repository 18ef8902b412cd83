//! Calls whose server works on them for long: what they cost, and when a death is noticed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use homa_protocol::error::Report;
use homa_protocol::units::Instant;
use homa_protocol::wire::PacketType;
use homa_protocol::{Config, Endpoint, RpcError, Unreachable, Wire};
use support::{Fate, Pair, Side, client_addr, pattern, server_addr};

const SECOND: Duration = Duration::from_secs(1);

/// So many calls that wait for their answers, after their first seconds.
fn at_rest(wire: Wire, calls: u64) -> Pair {
    let mut pair = Pair::with(Config::default(), wire).acquaint();
    pair.answer = Box::new(|_| None);
    for call in 0..calls {
        pair.call(vec![1; 100], call);
    }
    pair.run_for(20 * SECOND);
    assert_eq!(pair.open.len() as u64, calls);
    pair.log.clear();
    pair
}

/// Packets in both directions in a second.
fn rate(pair: &mut Pair, seconds: u32) -> f64 {
    pair.log.clear();
    pair.run_for(seconds * SECOND);
    assert_eq!(pair.outcomes.len(), 0, "{:?}", pair.outcomes);
    assert_eq!(pair.cancelled.len(), 0);
    pair.log.len() as f64 / f64::from(seconds)
}

fn cut(pair: &mut Pair) {
    pair.fate = Box::new(|_| Fate::Drop);
}

/// A new process at an address, with a secret of its own.
fn process(addr: SocketAddr, now: Instant) -> Endpoint {
    let seed = 7 << 64 | 0x9999;
    let config = Config::default();
    let mut endpoint = Endpoint::new(config, Wire::Encapsulated, addr.port(), seed).unwrap();
    endpoint.set_serving(true);
    endpoint.handle_timeout(now);
    endpoint
}

#[test]
fn over_udp_all_calls_at_rest_cost_one_question_a_second_together() {
    for calls in [1, 100, 10_000] {
        let rate = rate(&mut at_rest(Wire::Encapsulated, calls), 20);
        assert!(rate <= 2.0, "{calls}: {rate}");
    }
}

#[test]
fn on_protocol_146_a_call_at_work_costs_less_than_one_packet_a_second() {
    for calls in [1, 100] {
        let rate = rate(&mut at_rest(Wire::Native, calls), 20) / calls as f64;
        assert!(rate <= 0.8, "{calls}: {rate}");
    }
}

#[test]
fn either_end_notices_within_two_seconds_that_the_other_is_cut_off() {
    for calls in [1, 7, 300] {
        for phase in 0..12 {
            let mut pair = at_rest(Wire::Encapsulated, calls);
            pair.run_for(Duration::from_millis(90) * phase);
            cut(&mut pair);
            pair.run_for(Duration::from_millis(900));
            assert_eq!((pair.outcomes.len(), pair.cancelled.len()), (0, 0));
            pair.run_for(Duration::from_millis(1_100));
            assert_eq!(pair.outcomes.len() as u64, calls, "{phase}");
            assert_eq!(pair.cancelled.len() as u64, calls, "{phase}");
            for outcome in pair.outcomes.values() {
                assert!(
                    matches!(outcome, Err(RpcError::TimedOut { .. })),
                    "{outcome:?}"
                );
            }
        }
    }
}

#[test]
fn a_word_of_the_network_ends_requests_at_rest_at_once() {
    for phase in 0..8 {
        let mut pair = at_rest(Wire::Encapsulated, 5);
        pair.run_for(Duration::from_millis(130) * phase);
        cut(&mut pair);
        pair.log.clear();
        pair.run_for(Duration::from_millis(1_300));
        let asks = pair
            .log
            .iter()
            .find(|sent| sent.from == Side::Server)
            .unwrap();
        assert_eq!(
            asks.packet_type,
            PacketType::Resend,
            "{phase}: {}",
            asks.text
        );
        pair.server.handle_unreachable(&Report {
            peer: client_addr(),
            reason: Unreachable::Port,
            about: None,
        });
        pair.run_for(Duration::ZERO);
        assert_eq!(pair.cancelled.len(), 5);
    }
}

#[test]
fn calls_at_rest_end_when_their_server_is_restarted() {
    for calls in [1, 50] {
        for phase in 0..8 {
            let mut pair = at_rest(Wire::Encapsulated, calls);
            pair.run_for(Duration::from_millis(130) * phase);
            pair.open.clear();
            pair.server = process(server_addr(), pair.now);
            pair.run_for(Duration::from_millis(1_500));
            assert_eq!(pair.outcomes.len() as u64, calls, "{phase}");
            let known = |outcome: &Result<_, RpcError>| {
                let error = outcome.as_ref().unwrap_err();
                matches!(
                    error,
                    RpcError::PeerRestarted { .. } | RpcError::Forgotten { .. }
                )
            };
            assert!(pair.outcomes.values().all(known), "{:?}", pair.outcomes);
        }
    }
}

#[test]
fn requests_of_a_client_that_was_restarted_end_when_the_new_one_is_heard() {
    let mut pair = at_rest(Wire::Encapsulated, 20);
    pair.client = process(client_addr(), pair.now);
    pair.call(vec![2; 100], 99);
    pair.run_for(SECOND);
    assert_eq!(pair.cancelled.len(), 20);
    pair.run_for(60 * SECOND);
    assert_eq!((pair.cancelled.len(), pair.outcomes.len()), (20, 0));
}

#[test]
fn a_response_that_is_lost_comes_again_soon() {
    let mut pair = at_rest(Wire::Encapsulated, 3);
    let mut lost = 0;
    pair.fate = Box::new(move |sent| {
        let is_data = sent.packet_type == PacketType::Data && sent.from == Side::Server;
        lost += usize::from(is_data);
        if is_data && lost <= 2 {
            Fate::Drop
        } else {
            Fate::Deliver
        }
    });
    let rpc = pair.open[1];
    pair.respond(rpc, pattern(2_000, 1)).unwrap();
    pair.run_for(Duration::from_millis(200));
    assert_eq!(pair.outcomes[&1].as_ref().unwrap(), &pattern(2_000, 1));
    assert!(rate_of_others(&mut pair) <= 2.0);
}

/// The rate when calls have ended.
fn rate_of_others(pair: &mut Pair) -> f64 {
    pair.outcomes.clear();
    pair.run_for(2 * SECOND);
    rate(pair, 20)
}

#[test]
fn calls_rest_on_when_the_tokens_change() {
    let mut pair = at_rest(Wire::Encapsulated, 30);
    // Tokens change every ten minutes; each change costs some packets for each call.
    let rate = rate(&mut pair, 1_300);
    assert!(rate <= 2.5, "{rate}");
    for rpc in std::mem::take(&mut pair.open) {
        pair.respond(rpc, pattern(10, 0)).unwrap();
    }
    pair.run_for(SECOND);
    assert_eq!(pair.outcomes.len(), 30);
}

#[test]
fn a_request_whose_cancellation_was_lost_ends_though_its_client_lives() {
    let mut pair = at_rest(Wire::Encapsulated, 1);
    let (now, key) = (pair.now, pair.call(vec![2; 100], 2));
    pair.run_for(SECOND);
    cut(&mut pair);
    pair.client.abort(now, key);
    pair.flush();
    pair.fate = Box::new(|_| Fate::Deliver);
    pair.run_for(45 * SECOND);
    assert_eq!(pair.cancelled.len(), 1);
    assert_eq!(pair.outcomes.len(), 0, "the other goes on");
}

#[test]
fn a_call_ends_whose_request_was_dropped_and_others_rest_on() {
    for lost in [false, true] {
        let mut pair = at_rest(Wire::Encapsulated, 5);
        let mut words = 0;
        pair.fate = Box::new(move |sent| {
            let is_word = sent.packet_type == PacketType::Busy && sent.from == Side::Server;
            words += usize::from(is_word);
            if lost && is_word && words == 1 {
                Fate::Drop
            } else {
                Fate::Deliver
            }
        });
        let (now, rpc) = (pair.now, pair.open[2]);
        pair.server.abort(now, rpc);
        pair.run_for(13 * SECOND);
        assert_eq!(pair.outcomes.len(), 1, "{lost}: {:?}", pair.outcomes);
        assert!(
            matches!(pair.outcomes[&2], Err(RpcError::TimedOut { peer, .. }) if peer == server_addr())
        );
        assert!(rate_of_others(&mut pair) <= 2.0);
    }
}
