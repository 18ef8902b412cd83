//! What an endpoint refuses, and that it is made good when there is room.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use homa_protocol::endpoint::Event;
use homa_protocol::units::{Instant, RpcId};
use homa_protocol::wire::{Data, Header, Packet, PacketType, Tokens, Unknown, emit};
use homa_protocol::{
    Config, Delivery, Endpoint, Limit, Message, Report, RpcError, Unreachable, Wire,
};
use support::{Fate, Pair, Side, client_addr, pattern, server_addr, token_for};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn requests_without_room_for_a_record_wait_on_protocol_146_and_run_once_each() {
    let config = Config {
        rpcs_max: 4,
        ..Config::default()
    };
    let mut pair = Pair::with(Config::default(), Wire::Native);
    pair.server = Endpoint::new(config, Wire::Native, server_addr().port(), 5).unwrap();
    pair.server.set_serving(true);
    pair.answer = Box::new(|_| None);
    for cookie in 0..12_u8 {
        pair.call(pattern(3_000, cookie), u64::from(cookie));
    }
    let mut answered = 0;
    for _ in 0..3_000 {
        pair.run_for(Duration::from_millis(20));
        assert!(pair.server.stats().rpcs_live <= 4);
        while let Some(rpc) = pair.open.pop() {
            pair.respond(rpc, pattern(10, 0)).unwrap();
            answered += 1;
        }
        if pair.outcomes.len() == 12 {
            break;
        }
    }
    assert_eq!(answered, 12);
    assert!(
        pair.outcomes.values().all(Result::is_ok),
        "{:?}",
        pair.outcomes
    );
    assert!(pair.deliveries.values().all(|count| *count == 1));
    assert!(pair.server.stats().requests_refused > 0);
    assert_eq!(
        pair.server.stats().unknown_sent,
        0,
        "a refused request is not taken for a lost one"
    );
}

#[test]
fn requests_without_room_for_a_record_are_refused_over_udp_and_never_run() {
    for lost in [false, true] {
        let config = Config {
            rpcs_per_peer_max: 4,
            ..Config::default()
        };
        let mut pair = Pair::new();
        pair.server = Endpoint::new(config, Wire::Encapsulated, server_addr().port(), 5).unwrap();
        pair.server.set_serving(true);
        pair.server.handle_timeout(Instant::ZERO);
        let mut pair = pair.acquaint();
        pair.answer = Box::new(|_| None);
        let mut refusals = 0;
        pair.fate = Box::new(move |sent| {
            let refusal = sent.packet_type == PacketType::Busy;
            refusals += usize::from(refusal);
            if lost && refusal && refusals <= 8 {
                Fate::Drop
            } else {
                Fate::Deliver
            }
        });
        for cookie in 0..12_u8 {
            pair.call(pattern(3_000, cookie), u64::from(cookie));
        }
        pair.run_for(Duration::from_secs(1));
        assert_eq!(pair.outcomes.len(), 8);
        for outcome in pair.outcomes.values() {
            let error = outcome.clone().unwrap_err();
            let expected = RpcError::Refused {
                peer: server_addr(),
                option: Limit::RpcsPerPeer,
                delivery: Delivery::NotSent,
            };
            assert_eq!(error, expected);
            assert_eq!(error.delivery(), Delivery::NotSent);
        }
        for rpc in std::mem::take(&mut pair.open) {
            pair.respond(rpc, pattern(10, 0)).unwrap();
        }
        pair.run(LONG);
        assert_eq!(pair.outcomes.len(), 12);
        assert_eq!(pair.deliveries.len(), 4, "what was refused is never run");
    }
}

#[test]
fn messages_without_room_for_their_bytes_wait_shortest_first() {
    let config = Config {
        inbound_bytes_max: 2_000_000,
        ..Config::default()
    };
    let mut pair = Pair::new();
    pair.server = Endpoint::new(config, Wire::Encapsulated, server_addr().port(), 5).unwrap();
    pair.server.set_serving(true);
    for cookie in 0..40_u8 {
        pair.call(pattern(600_000, cookie), u64::from(cookie));
    }
    pair.run(LONG);
    assert_eq!(pair.outcomes.len(), 40);
    assert!(pair.outcomes.values().all(Result::is_ok));
    assert!(pair.deliveries.values().all(|count| *count == 1));
    assert!(pair.server.stats().messages_deferred > 0);
    assert!(pair.is_settled());
    assert_eq!(pair.server.inbound_bytes(), 0);
}

#[test]
fn a_response_without_room_waits_and_arrives() {
    let config = Config {
        inbound_bytes_per_peer_max: 2_000_000,
        ..Config::default()
    };
    let mut pair = Pair::new();
    pair.client = Endpoint::new(config, Wire::Encapsulated, client_addr().port(), 5).unwrap();
    pair.answer = Box::new(|request| Some(Message::from(pattern(500_000, request[0]))));
    for cookie in 0..40_u8 {
        pair.call(vec![cookie], u64::from(cookie));
    }
    pair.run(LONG);
    assert_eq!(pair.outcomes.len(), 40);
    for (cookie, outcome) in &pair.outcomes {
        let expected = pattern(500_000, u8::try_from(*cookie).unwrap());
        assert_eq!(outcome.as_ref().unwrap(), &Bytes::from(expected));
    }
    assert!(pair.is_settled());
}

/// A DATA packet of a request, as an attacker would make it.
fn data(id: u64, message_length: u32, offset: u32, incoming: u32, bytes: usize) -> Vec<u8> {
    let header = Header {
        source_port: 40_000,
        destination_port: 4_000,
        sender_id: RpcId::new(id),
    };
    let data = Data {
        message_length,
        incoming,
        ack: None,
        cutoff_version: 1,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset,
    };
    let tokens = Tokens { own: 5, shown: 0 };
    let header = emit(&header, &Packet::Data(data, &[])).with_tokens(tokens);
    let mut packet = header.as_slice().to_vec();
    packet.resize(packet.len() + bytes, 7);
    packet
}

fn server(config: Config) -> Endpoint {
    let mut server = Endpoint::new(config, Wire::Encapsulated, 4_000, 9).unwrap();
    server.set_serving(true);
    server
}

#[test]
fn first_packets_of_messages_that_never_come_hold_no_more_than_the_bounds() {
    let config = Config {
        inbound_bytes_max: 10 << 20,
        ..Config::default()
    };
    let mut server = server(config);
    let now = Instant::from_nanos(1);
    for i in 0..100_000_u64 {
        let peer = format!("10.{}.{}.1:999", i / 250 % 250, i % 250)
            .parse()
            .unwrap();
        let offset = u32::try_from(i * 7_919 % 999_000).unwrap();
        let packet = data(i * 2 + 2, 1_000_000, offset, 1_000_000, 1);
        server.handle_packet(now, peer, server_addr().ip(), &packet);
        while server.poll_transmit(now).is_some() {}
    }
    assert!(
        server.inbound_bytes() <= 10 << 20,
        "{}",
        server.inbound_bytes()
    );
    assert!(server.stats().messages_deferred > 0);
}

#[test]
fn one_peer_cannot_take_the_memory_of_all() {
    let config = Config {
        inbound_bytes_per_peer_max: 2 << 20,
        rpcs_per_peer_max: 100,
        ..Config::default()
    };
    let mut server = server(config);
    let now = Instant::from_nanos(1);
    for i in 0..10_000_u64 {
        let packet = data(i * 2 + 2, 1_000_000, 0, 40_000, 1_000);
        server.handle_packet(now, client_addr(), server_addr().ip(), &packet);
    }
    assert!(server.inbound_bytes() <= 2 << 20);
    assert!(server.stats().rpcs_live <= 100);
    let other = "10.9.9.9:1".parse().unwrap();
    server.handle_packet(now, other, server_addr().ip(), &data(2, 100, 0, 100, 100));
    assert_eq!(server.stats().requests_received, 1);
}

#[test]
fn messages_that_overshoot_what_they_announced_do_not_stop_grants() {
    let mut pair = Pair::new();
    let now = pair.now;
    let shown = token_for(&mut pair.server, now, client_addr());
    for i in 0..200_u64 {
        let packet = data(i * 2 + 0x5000, 1_000_000, 0, 1, 8_900);
        pair.server
            .handle_packet(now, client_addr(), server_addr().ip(), &packet);
        while pair.server.poll_transmit(now).is_some() {}
        let id = RpcId::new(i * 2 + 0x5000);
        let header = Header {
            source_port: 1,
            destination_port: 2,
            sender_id: id,
        };
        let unknown = Packet::RpcUnknown(Unknown::Unexplained);
        let unknown = emit(&header, &unknown).with_tokens(Tokens { own: 5, shown });
        let local = server_addr().ip();
        pair.server
            .handle_packet(now, client_addr(), local, unknown.as_slice());
    }
    assert_eq!(pair.server.incoming_bytes(), 0);
    pair.call(pattern(1_000_000, 3), 1);
    pair.run(LONG);
    assert!(pair.outcomes[&1].is_ok());
}

#[test]
fn responses_that_nobody_acknowledges_are_bounded() {
    let config = Config {
        outbound_bytes_per_peer_max: 3_000_000,
        ..Config::default()
    };
    let mut server = server(config);
    let now = Instant::from_nanos(1);
    let mut taken = 0;
    for i in 0..50_u64 {
        let packet = data(i * 2 + 2, 100, 0, 100, 100);
        server.handle_packet(now, client_addr(), server_addr().ip(), &packet);
        let Some(Event::Request { rpc, .. }) = server.poll_event() else {
            panic!("the request is delivered");
        };
        match server.send_response(now, rpc, 1_480, Message::from(vec![0; 500_000])) {
            Ok(()) => taken += 1,
            Err(RpcError::TooManyBytes { option, .. }) => {
                assert_eq!(option, Limit::OutboundBytesPerPeer);
                let error = Message::from(vec![0; 100]);
                server.send_response(now, rpc, 1_480, error).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(taken, 6);
}

#[test]
fn packets_far_ahead_of_what_has_arrived_are_refused() {
    let mut server = server(Config::default());
    let now = Instant::from_nanos(1);
    let packet = data(2, 1_000_000, 900_000, 1_000_000, 1_000);
    server.handle_packet(now, client_addr(), server_addr().ip(), &packet);
    assert_eq!(server.stats().data_ungranted, 1);
    assert!(server.inbound_bytes() <= 40_000);
}

#[test]
fn contradictory_lengths_are_dropped_and_the_first_one_stands() {
    let mut server = server(Config::default());
    let now = Instant::from_nanos(1);
    for length in [3_000, 2_000, 1_000_000, 4_000_000_000] {
        let packet = data(2, length, 0, length, 1_000);
        server.handle_packet(now, client_addr(), server_addr().ip(), &packet);
    }
    assert_eq!(server.stats().data_contradictory, 3);
    for offset in [1_000, 2_000] {
        let packet = data(2, 3_000, offset, 3_000, 1_000);
        server.handle_packet(now, client_addr(), server_addr().ip(), &packet);
    }
    assert_eq!(server.stats().requests_received, 1);
}

#[test]
fn a_response_longer_than_messages_can_be_fails_its_call() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| None);
    pair.call(vec![1], 1);
    let (id, now) = (pair.client.trace().iter().next().unwrap().id, pair.now);
    let mut packet = data(id.other_side().value(), 1_000_001, 0, 1_000_001, 100);
    let shown = token_for(&mut pair.client, now, server_addr());
    Tokens { own: 6, shown }.write(&mut packet);
    pair.client
        .handle_packet(now, server_addr(), client_addr().ip(), &packet);
    pair.flush();
    let expected = RpcError::ResponseTooLong {
        peer: server_addr(),
        len: 1_000_001,
        max: 1_000_000,
    };
    assert_eq!(pair.outcomes[&1], Err(expected));
}

#[test]
fn a_client_with_many_calls_asks_for_few_unscheduled_bytes() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| Some(Message::from(pattern(20_000, 1))));
    let grants = |pair: &Pair| pair.client.stats().grants_sent;
    for cookie in 0..64 {
        pair.call(vec![1], cookie);
    }
    pair.run(LONG);
    assert_eq!(
        grants(&pair),
        0,
        "up to the threshold responses come unscheduled"
    );
    for cookie in 100..200 {
        pair.call(vec![1], cookie);
    }
    pair.run(LONG);
    assert_eq!(grants(&pair), 36, "beyond it they are granted");
    assert!(pair.outcomes.values().all(Result::is_ok));
}

#[test]
fn freeze_shows_the_trace_only_where_it_is_allowed() {
    let freeze = {
        let id = RpcId::new(0);
        let header = Header {
            source_port: 1,
            destination_port: 0,
            sender_id: id,
        };
        emit(&header, &Packet::Freeze).as_slice().to_vec()
    };
    for allowed in [false, true] {
        let mut pair = Pair::with(
            Config {
                freeze: allowed,
                ..Config::default()
            },
            Wire::Native,
        );
        pair.call(pattern(100, 0), 1);
        pair.run(LONG);
        let now = pair.now;
        pair.server
            .handle_packet(now, client_addr(), server_addr().ip(), &freeze);
        pair.flush();
        assert_eq!(pair.frozen, usize::from(allowed));
        let text = pair.server.trace().to_string();
        assert!(text.contains("DATA 0..100 of 100"), "{text}");
        assert!(text.trim_end().ends_with("FREEZE"), "{text}");
    }
}

#[test]
fn a_thousand_calls_to_a_silent_server_do_not_flood_it() {
    let mut pair = Pair::new();
    pair.fate = Box::new(|sent| match sent.from {
        Side::Client => Fate::Drop,
        Side::Server => Fate::Deliver,
    });
    for cookie in 0..1_000 {
        pair.call(vec![1], cookie);
    }
    pair.run(LONG);
    assert_eq!(pair.outcomes.len(), 1_000);
    assert!(
        pair.outcomes
            .values()
            .all(|outcome| matches!(outcome, Err(RpcError::TimedOut { .. })))
    );
    let resends = pair
        .log
        .iter()
        .filter(|sent| sent.packet_type == PacketType::Resend)
        .count();
    assert!(resends < 200, "{resends} RESENDs");
    assert!(pair.client.is_idle());
}

#[test]
fn what_is_reported_of_a_host_ends_its_rpcs_on_all_ports_where_hosts_are_known_by_address() {
    let outcomes = |wire, reason| {
        let mut client = Endpoint::new(Config::default(), wire, 40_000, 6).unwrap();
        let servers = [([10, 0, 0, 1], 1), ([10, 0, 0, 1], 2), ([10, 0, 0, 2], 1)];
        let servers = servers.map(SocketAddr::from);
        for (cookie, server) in (0..).zip(servers) {
            let request = Message::from(pattern(100, 0));
            client
                .send_request(Instant::ZERO, server, 1_480, request, cookie)
                .unwrap();
        }
        client.handle_unreachable(&Report {
            peer: servers[0],
            reason,
            about: None,
        });
        let mut failed = Vec::new();
        while let Some(Event::Failed { cookie, error }) = client.poll_event() {
            assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
            failed.push(cookie);
        }
        failed.sort_unstable();
        failed
    };
    for reason in [
        Unreachable::Protocol,
        Unreachable::Host,
        Unreachable::Network,
    ] {
        assert_eq!(outcomes(Wire::Native, reason), [0, 1]);
        assert_eq!(outcomes(Wire::Encapsulated, reason), [0]);
    }
    assert_eq!(outcomes(Wire::Native, Unreachable::Port), [0]);
}

/// What one before it had, a server that was started meanwhile cannot say.
#[test]
fn a_refusal_by_a_server_that_was_restarted_does_not_mean_that_nobody_had_the_request() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| None);
    // The first server has the request and dies without a word.
    pair.fate = Box::new(|sent| match sent.from {
        Side::Server => Fate::Drop,
        Side::Client => Fate::Deliver,
    });
    pair.call(pattern(10, 0), 1);
    pair.run_for(Duration::from_millis(200));
    assert_eq!(pair.open.len(), 1);
    let config = Config {
        rpcs_max: 1,
        ..Config::default()
    };
    let port = server_addr().port();
    pair.server = Endpoint::new(config, Wire::Encapsulated, port, 0x9999).unwrap();
    pair.server.set_serving(true);
    pair.server.handle_timeout(pair.now);
    pair.fate = Box::new(|_| Fate::Deliver);
    // The next one is full at once.
    pair.call(pattern(20, 0), 2);
    pair.run_for(Duration::from_secs(1));
    let error = pair.outcomes[&1].clone().unwrap_err();
    assert!(matches!(error, RpcError::Refused { .. }), "{error:?}");
    assert_eq!(error.delivery(), Delivery::Unknown);
}
