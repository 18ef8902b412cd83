//! Messages that are parts of a longer whole.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use homa_protocol::wire::PacketType;
use homa_protocol::{Config, Message, Wire};
use support::{Fate, Pair, Sent, Side, client_addr, pattern};

fn data_of_client(pair: &Pair) -> Vec<&Sent> {
    let of_client =
        |sent: &&Sent| sent.from == Side::Client && sent.packet_type == PacketType::Data;
    pair.log.iter().filter(of_client).collect()
}

fn scheduled(len: usize) -> Message {
    Message::from(pattern(len, 1)).scheduled()
}

#[test]
fn of_a_scheduled_message_one_packet_goes_before_the_first_grant() {
    for wire in [Wire::Encapsulated, Wire::Native] {
        let mut pair = Pair::with(Config::default(), wire).acquaint();
        pair.fate = Box::new(|sent| match sent.packet_type {
            PacketType::Grant => Fate::Drop,
            _ => Fate::Deliver,
        });
        pair.call(scheduled(200_000), 1);
        pair.run_for(Duration::from_millis(1));
        let sent = data_of_client(&pair);
        assert_eq!(sent.len(), 1, "{wire:?}: {sent:?}");
        assert_eq!(sent[0].len, 1_480, "{wire:?}");
        pair.fate = Box::new(|_| Fate::Deliver);
        pair.run(Duration::from_secs(5));
        assert_eq!(pair.outcomes[&1].as_ref().unwrap(), &pattern(200_000, 1));
    }
}

#[test]
fn a_scheduled_response_waits_for_grants_as_well_and_a_short_one_goes_at_once() {
    let mut pair = Pair::new().acquaint();
    pair.answer = Box::new(|request| Some(scheduled(request.len() * 1_000)));
    for (cookie, len) in [(1, 1), (2, 100)] {
        pair.call(vec![7; len], cookie);
        pair.run(Duration::from_secs(1));
        let response = pair.outcomes[&cookie].as_ref().unwrap();
        assert_eq!(response, &pattern(len * 1_000, 1));
    }
    let count = |side, kind| {
        let such = |sent: &&Sent| sent.from == side && sent.packet_type == kind;
        pair.log.iter().filter(such).count()
    };
    assert!(count(Side::Client, PacketType::Grant) > 0);
    let mut before_grant = pair.log.iter().skip_while(|sent| sent.len != 56 + 100);
    let before_grant = before_grant
        .by_ref()
        .take_while(|sent| sent.packet_type != PacketType::Grant);
    let data = |sent: &&Sent| sent.from == Side::Server && sent.packet_type == PacketType::Data;
    assert_eq!(before_grant.filter(data).count(), 1);
}

#[test]
fn a_request_is_being_received_while_its_bytes_come_or_it_waits_for_us() {
    let mut pair = Pair::new().acquaint();
    pair.answer = Box::new(|_| None);
    let receives = |pair: &Pair| pair.server.receiving_from(client_addr());
    assert!(!receives(&pair));
    // Every packet but the first few is lost.
    let mut left = 10;
    pair.fate = Box::new(move |sent| {
        if sent.from == Side::Client && sent.packet_type == PacketType::Data {
            left -= 1;
            return if left > 0 { Fate::Deliver } else { Fate::Drop };
        }
        Fate::Deliver
    });
    pair.call(pattern(100_000, 1), 1);
    pair.run_for(Duration::from_millis(500));
    assert!(receives(&pair), "bytes came half a second ago");
    pair.run_for(Duration::from_millis(600));
    assert!(!receives(&pair), "they no longer come");
    pair.fate = Box::new(|_| Fate::Deliver);
    pair.run_for(Duration::from_millis(500));
    assert_eq!(pair.open.len(), 1);
    assert!(!receives(&pair), "it is here");
    assert!(!pair.server.receiving_from(support::server_addr()));
}

#[test]
fn a_request_that_waits_for_room_is_being_received() {
    let config = Config {
        inbound_bytes_max: 2_000_000,
        inbound_bytes_per_peer_max: 2_000_000,
        ..Config::default()
    };
    let mut pair = Pair::with(config, Wire::Encapsulated).acquaint();
    pair.answer = Box::new(|_| None);
    // The first two take all the room and stop; the third has to wait.
    let mut granted = 0;
    pair.fate = Box::new(move |sent| {
        granted += usize::from(sent.packet_type == PacketType::Data);
        if granted > 150 && sent.len > 1_000 {
            return Fate::Drop;
        }
        Fate::Deliver
    });
    let long = [1, 2].map(|cookie| pair.call(pattern(1_000_000, 1), cookie));
    pair.run_for(Duration::from_millis(10));
    let stopped = long.map(|call| pair.client.id_of(call).unwrap());
    pair.fate = Box::new(move |sent| match sent.packet_type {
        PacketType::Data if stopped.contains(&sent.id) => Fate::Drop,
        _ => Fate::Deliver,
    });
    pair.call(pattern(900_000, 2), 3);
    pair.run_for(Duration::from_millis(1_200));
    let receives = |pair: &Pair| pair.server.receiving_from(client_addr());
    assert!(receives(&pair), "the third waits for room");
    let now = pair.now;
    for call in long {
        pair.client.abort(now, call);
    }
    pair.fate = Box::new(|_| Fate::Deliver);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.open.len(), 1);
    assert!(!receives(&pair));
}
