//! What reports about unreachable peers, and the lack of any answer, do to RPCs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use homa_protocol::wire::quoted_id;
use homa_protocol::{Config, Delivery, Report, RpcError, Unreachable, Wire};
use support::{Fate, Pair, client_addr, pattern, server_addr};

const LONG: Duration = Duration::from_secs(60);

/// A pair that loses all packets for some time, then none.
fn silent_at_first(wire: Wire, silence: Duration) -> Pair {
    let mut pair = Pair::with(Config::default(), wire);
    pair.fate = Box::new(|_| Fate::Drop);
    pair.call(pattern(100, 0), 1);
    pair.run_for(silence);
    pair.fate = Box::new(|_| Fate::Deliver);
    pair
}

#[test]
fn a_peer_of_which_nothing_was_ever_heard_is_given_two_and_a_half_seconds() {
    for wire in [Wire::Encapsulated, Wire::Native] {
        // One lost ARP request costs a second, two cost two.
        let mut late = silent_at_first(wire, Duration::from_millis(2_200));
        assert!(late.outcomes.is_empty(), "{:?}", late.outcomes);
        late.run(LONG);
        assert!(late.outcomes[&1].is_ok(), "{:?}", late.outcomes);
        assert!(late.is_settled());

        let dead = silent_at_first(wire, Duration::from_secs(4));
        let Err(RpcError::TimedOut { silent, .. }) = &dead.outcomes[&1] else {
            panic!("{:?}", dead.outcomes);
        };
        assert!(*silent >= Duration::from_millis(2_500), "{silent:?}");
    }
}

#[test]
fn a_peer_that_was_heard_before_is_given_up_after_the_timeout() {
    let mut pair = Pair::new();
    pair.call(pattern(100, 0), 1);
    pair.run(LONG);
    pair.fate = Box::new(|_| Fate::Drop);
    pair.call(pattern(100, 0), 2);
    pair.run_for(Duration::from_secs(2));
    let Err(RpcError::TimedOut { silent, .. }) = &pair.outcomes[&2] else {
        panic!("{:?}", pair.outcomes);
    };
    assert!(*silent < Duration::from_millis(1_500), "{silent:?}");
}

#[test]
fn requests_in_service_outlive_what_may_pass_and_end_with_their_clients_socket() {
    let report = |reason| Report {
        peer: client_addr(),
        reason,
        about: None,
    };
    for wire in [Wire::Encapsulated, Wire::Native] {
        let mut pair = Pair::with(Config::default(), wire);
        pair.answer = Box::new(|_| None);
        pair.call(pattern(100, 0), 1);
        pair.run_for(Duration::from_millis(1));
        let rpc = pair.open.pop().unwrap();
        for passing in [Unreachable::Denied, Unreachable::Host, Unreachable::Network] {
            pair.server.handle_unreachable(&report(passing));
            pair.flush();
            assert!(pair.cancelled.is_empty(), "{passing:?} ended the handler");
        }
        pair.respond(rpc, pattern(100, 1)).unwrap();
        pair.run(LONG);
        assert!(pair.outcomes[&1].is_ok(), "{:?}", pair.outcomes);

        pair.call(pattern(100, 0), 2);
        pair.run_for(Duration::from_millis(1));
        pair.server.handle_unreachable(&report(Unreachable::Port));
        pair.flush();
        assert_eq!(pair.cancelled.len(), 1);
    }
}

#[test]
fn a_refusal_of_our_own_system_ends_only_the_call_whose_first_packet_it_was() {
    let mut pair = Pair::new();
    pair.call(pattern(100, 0), 1);
    let request = pattern(100, 1);
    pair.client
        .send_request(
            pair.now,
            server_addr(),
            pair.packet_bytes,
            request.into(),
            2,
        )
        .unwrap();
    let sent = pair.client.poll_transmit(pair.now).unwrap();
    let about = quoted_id(sent.header.as_slice());
    for about in [None, about] {
        pair.client.handle_unreachable(&Report {
            peer: server_addr(),
            reason: Unreachable::Denied,
            about,
        });
    }
    pair.flush();
    let error = pair.outcomes[&2].clone().unwrap_err();
    assert_eq!(error.delivery(), Delivery::NotSent, "{error}");
    pair.run(LONG);
    assert!(pair.outcomes[&1].is_ok(), "{:?}", pair.outcomes);
}
