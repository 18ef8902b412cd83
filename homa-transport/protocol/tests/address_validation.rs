//! An address that may be forged gets little before it has shown that it is there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::time::Duration;

use homa_protocol::endpoint::Event;
use homa_protocol::units::{Instant, Priority, RpcId};
use homa_protocol::wire::{
    Acks, Busy, Data, Grant, Header, Packet, PacketType, Resend, Tokens, Unknown, emit, parse,
};
use homa_protocol::{Config, Endpoint, Wire};
use support::{Fate, Pair, Side, client_addr, pattern, server_addr, token_for};

const LONG: Duration = Duration::from_secs(60);

/// A server, and somebody who sends to it in the name of another and sees nothing of what that one gets.
struct Forger {
    server: Endpoint,
    now: Instant,
    received: usize,
    sent: usize,
}

impl Forger {
    fn new(wire: Wire) -> Self {
        let mut server =
            Endpoint::new(Config::default(), wire, server_addr().port(), 1 << 64).expect("valid");
        server.set_serving(true);
        Self {
            server,
            now: Instant::from_nanos(1_000_000_000),
            received: 0,
            sent: 0,
        }
    }

    fn send(&mut self, id: u64, packet: &Packet<'_>, payload: &[u8]) {
        let header = Header {
            source_port: client_addr().port(),
            destination_port: server_addr().port(),
            sender_id: RpcId::new(id),
        };
        let mut bytes = emit(&header, packet).as_slice().to_vec();
        bytes.extend_from_slice(payload);
        self.received += bytes.len();
        let local = server_addr().ip();
        self.server
            .handle_packet(self.now, client_addr(), local, &bytes);
        self.pump();
    }

    /// A packet of the one in whose name the others are sent.
    fn reply(&mut self, id: RpcId, packet: &Packet<'_>) {
        let header = Header {
            source_port: client_addr().port(),
            destination_port: server_addr().port(),
            sender_id: id,
        };
        let shown = token_for(&mut self.server, self.now, client_addr());
        let bytes = emit(&header, packet).with_tokens(Tokens { own: 77, shown });
        let local = server_addr().ip();
        self.server
            .handle_packet(self.now, client_addr(), local, bytes.as_slice());
    }

    fn request(&mut self, id: u64, cutoff_version: u16) {
        let data = Data {
            message_length: 100,
            incoming: 100,
            ack: None,
            cutoff_version,
            retransmit: false,
            few_unscheduled: false,
            following: 0,
            offset: 0,
        };
        self.send(id, &Packet::Data(data, &[]), &[7; 100]);
    }

    /// Answers what was delivered with `len` bytes and sends what may be sent.
    fn answer(&mut self, len: usize) {
        while let Some(event) = self.server.poll_event() {
            if let Event::Request { rpc, .. } = event {
                let answer = pattern(len, 0).into();
                self.server
                    .send_response(self.now, rpc, 1_472, answer)
                    .expect("it is in service");
            }
        }
        self.pump();
    }

    fn pump(&mut self) {
        while let Some(packet) = self.server.poll_transmit(self.now) {
            self.sent += packet.len();
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.server.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.server.handle_timeout(self.now);
            self.pump();
            self.now = self.now + Duration::from_micros(1);
        }
        self.now = end;
    }
}

#[test]
fn a_forged_request_draws_no_more_than_three_times_its_bytes() {
    for len in [1, 100, 300, 1_000, 40_000, 1_000_000] {
        let mut forger = Forger::new(Wire::Encapsulated);
        forger.request(2, 0);
        forger.answer(len);
        forger.pass(Duration::from_secs(30));
        assert!(
            forger.sent <= 3 * forger.received,
            "{} for {}",
            forger.sent,
            forger.received
        );
        assert!(forger.server.is_idle(), "{len}: nothing is kept for it");
    }
}

#[test]
fn forged_grants_and_resends_draw_no_more_either() {
    let mut forger = Forger::new(Wire::Encapsulated);
    for round in 0..200 {
        forger.request(2 + 2 * round, u16::try_from(round).unwrap());
        forger.answer(if round % 2 == 0 { 300 } else { 900_000 });
        for packet in [
            Packet::Resend(Resend {
                offset: 0,
                length: None,
                priority: Priority::new(7).unwrap(),
            }),
            Packet::Grant(Grant {
                offset: 900_000,
                priority: Priority::new(7).unwrap(),
            }),
            Packet::Busy(Busy::Unexplained),
            Packet::NeedAck,
        ] {
            forger.send(2 + 2 * round, &packet, &[]);
        }
        forger.pass(Duration::from_millis(3));
        assert!(forger.sent <= 3 * forger.received, "round {round}");
    }
    forger.pass(Duration::from_secs(30));
    assert!(forger.sent <= 3 * forger.received);
    assert!(forger.server.is_idle());
}

/// The module knows no such rule, and its clients would not answer as ours do.
#[test]
fn protocol_146_sends_all_unscheduled_bytes_at_once() {
    let mut forger = Forger::new(Wire::Native);
    forger.request(2, 0);
    forger.answer(30_000);
    assert!(forger.sent > 30_000);
}

#[test]
fn a_call_of_100_bytes_with_a_megabyte_back_costs_one_round_trip_more_once() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| Some(pattern(1_000_000, 5).into()));
    for call in 1..=3 {
        pair.call(pattern(100, u8::try_from(call).unwrap()), call);
        pair.run(LONG);
        assert_eq!(pair.outcomes[&call].as_ref().unwrap().len(), 1_000_000);
    }
    assert_eq!(pair.server.stats().responses_held, 1);
    assert_eq!(pair.server.stats().requests_received, 3);
    assert_eq!(pair.client.stats().data_resent, 1);
    let sent = |side, packet_type| {
        let of = move |sent: &&support::Sent| sent.from == side && sent.packet_type == packet_type;
        pair.log.iter().filter(of).count()
    };
    assert_eq!(sent(Side::Server, PacketType::Cutoffs), 1);
}

#[test]
fn first_calls_at_once_tell_one_token_and_none_is_held_longer_than_a_round_trip() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| Some(pattern(3_000, 5).into()));
    for call in 0..200 {
        pair.call(pattern(100, 1), call);
        pair.run_for(Duration::from_micros(1));
    }
    pair.run_for(Duration::from_millis(2));
    assert_eq!(pair.outcomes.len(), 200);
    assert!(pair.outcomes.values().all(Result::is_ok));
}

#[test]
fn a_response_that_is_ready_after_the_client_has_changed_its_tokens_goes_out_at_once() {
    // Clients make new tokens every ten minutes.
    for (minutes, calls) in [(11, 1), (11, 50), (25, 50)] {
        let mut pair = Pair::new().acquaint();
        pair.answer = Box::new(|_| None);
        for call in 0..calls {
            pair.call(pattern(100, 1), call);
        }
        pair.run_for(Duration::from_secs(60 * minutes));
        // Another call shows the new token.
        pair.answer = Box::new(|_| Some(pattern(1, 5).into()));
        pair.call(pattern(100, 1), calls);
        pair.run_for(Duration::from_millis(2));
        assert!(pair.outcomes.remove(&calls).is_some());
        for rpc in std::mem::take(&mut pair.open) {
            pair.respond(rpc, pattern(3_000, 5)).unwrap();
            pair.run_for(Duration::from_micros(1));
        }
        pair.run_for(Duration::from_millis(2));
        let ended = pair.outcomes.values().filter(|end| end.is_ok()).count();
        assert_eq!(ended as u64, calls, "{minutes} minutes");
    }
}

#[test]
fn a_first_contact_that_loses_any_packet_of_its_start_recovers() {
    for response in [10, 200, 1_000, 30_000] {
        for lost in 0..12 {
            let mut pair = Pair::new();
            pair.answer = Box::new(move |_| Some(pattern(response, 5).into()));
            pair.fate = Box::new(move |sent| {
                if sent.number == lost {
                    Fate::Drop
                } else {
                    Fate::Deliver
                }
            });
            pair.call(pattern(100, 1), 1);
            pair.run(LONG);
            let outcome = pair.outcomes.get(&1).expect("it ends");
            assert_eq!(
                outcome.as_ref().map(bytes::Bytes::len),
                Ok(response),
                "packet {lost} lost"
            );
            assert_eq!(pair.deliveries.values().sum::<usize>(), 1);
            assert!(pair.is_settled(), "{response} bytes, packet {lost} lost");
        }
    }
}

#[test]
fn a_server_that_was_called_need_not_show_that_it_is_there() {
    let mut pair = Pair::new();
    pair.call(pattern(10, 0), 1);
    pair.run(LONG);
    // Its call comes as a request to the former client, of whose call it has answered.
    let now = pair.now;
    let local = client_addr().ip();
    pair.client.set_serving(true);
    pair.server
        .send_request(now, client_addr(), 1_472, pattern(10, 0).into(), 9)
        .unwrap();
    let request = pair.server.poll_transmit(now).unwrap().to_vec();
    pair.client
        .handle_packet(now, server_addr(), local, &request);
    let rpc = loop {
        match pair.client.poll_event() {
            Some(Event::Request { rpc, .. }) => break rpc,
            Some(_) => {}
            None => panic!("the request is delivered"),
        }
    };
    pair.client
        .send_response(now, rpc, 1_472, pattern(30_000, 0).into())
        .unwrap();
    while pair.client.poll_transmit(now).is_some() {}
    assert_eq!(pair.client.stats().responses_held, 0);
    assert!(pair.client.stats().data_sent > 20);
}

/// A server that holds most of a response to a client who has shown that it is there, and what that client
/// last sent.
fn server_with_a_response_under_way() -> (Pair, u64) {
    let mut pair = Pair::new().acquaint();
    pair.answer = Box::new(|_| Some(pattern(900_000, 5).into()));
    // The client grants nothing.
    pair.fate = Box::new(|sent| match sent.packet_type {
        PacketType::Grant | PacketType::Resend | PacketType::Ack => Fate::Drop,
        _ => Fate::Deliver,
    });
    pair.call(pattern(100, 1), 1);
    pair.run_for(Duration::from_millis(2));
    assert!(pair.server.stats().data_sent > 20, "unscheduled bytes went");
    assert_eq!(pair.server.stats().rpcs_live, 1);
    let id = pair.client.trace().iter().last().unwrap().id;
    (pair, id.client_form().value())
}

/// What somebody who does not see the packets sends in the client's name about a call whose id he knows.
fn forged(id: u64, tokens: Tokens) -> Vec<Vec<u8>> {
    let resend = Resend {
        offset: 0,
        length: None,
        priority: Priority::HIGHEST,
    };
    let grant = Grant {
        offset: 900_000,
        priority: Priority::HIGHEST,
    };
    [
        Packet::Resend(resend),
        Packet::Grant(grant),
        Packet::RpcUnknown(Unknown::Unexplained),
        Packet::Ack(Acks::new()),
        Packet::Busy(Busy::Unexplained),
        Packet::NeedAck,
    ]
    .map(|packet| {
        let header = Header {
            source_port: 0,
            destination_port: 0,
            sender_id: RpcId::new(id),
        };
        emit(&header, &packet)
            .with_tokens(tokens)
            .as_slice()
            .to_vec()
    })
    .to_vec()
}

/// Sends packets in the client's name; returns the bytes that come of each.
fn answered(pair: &mut Pair, packet: &[u8]) -> usize {
    let now = pair.now;
    let local = server_addr().ip();
    pair.server.handle_packet(now, client_addr(), local, packet);
    let mut bytes = 0;
    while let Some(answer) = pair.server.poll_transmit(now) {
        bytes += answer.len();
    }
    bytes
}

#[test]
fn a_million_guessed_tokens_have_no_effect_and_draw_less_than_three_times_their_bytes() {
    let (mut pair, id) = server_with_a_response_under_way();
    let before = pair.server.stats();
    let (mut sent, mut drawn, mut random) = (0, 0, 1_u64);
    for _ in 0..1_000_000 / 6 + 1 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        let tokens = Tokens {
            own: 5,
            shown: random,
        };
        for packet in forged(id, tokens) {
            sent += packet.len();
            drawn += answered(&mut pair, &packet);
        }
    }
    let after = pair.server.stats();
    assert!(after.tokens_wrong - before.tokens_wrong >= 1_000_000);
    assert_eq!(
        after.data_sent + after.data_resent,
        before.data_sent + before.data_resent
    );
    assert_eq!(after.rpcs_live, 1, "nothing was acknowledged or cancelled");
    assert!(drawn <= 3 * sent, "{drawn} for {sent}");
    pair.fate = Box::new(|_| Fate::Deliver);
    pair.run(LONG);
    assert!(pair.outcomes[&1].is_ok(), "the good call goes on");
}

#[test]
fn tokens_of_others_of_another_port_and_of_a_former_process_are_none() {
    let (mut pair, id) = server_with_a_response_under_way();
    let now = pair.now;
    let right = token_for(&mut pair.server, now, client_addr());
    let mut other_port = client_addr();
    other_port.set_port(client_addr().port() + 1);
    let stranger = "10.0.0.77:40000".parse().unwrap();
    let mut former = Endpoint::new(Config::default(), Wire::Encapsulated, 4_000, 99 << 64).unwrap();
    let wrong = [
        0,
        1,
        right ^ 1,
        right ^ 1 << 63,
        token_for(&mut pair.server, now, other_port),
        token_for(&mut pair.server, now, stranger),
        token_for(&mut former, now, client_addr()),
        token_for(&mut pair.client, now, server_addr()),
    ];
    let before = pair.server.stats();
    for shown in wrong {
        for packet in forged(id, Tokens { own: 5, shown }) {
            answered(&mut pair, &packet);
        }
        let after = pair.server.stats();
        assert_eq!(
            (after.data_sent + after.data_resent, after.rpcs_live),
            (before.data_sent + before.data_resent, 1),
            "{shown:x}"
        );
    }
    let tokens = Tokens {
        own: 5,
        shown: right,
    };
    let drawn = answered(&mut pair, &forged(id, tokens)[1]);
    let stats = pair.server.stats();
    assert!(drawn > 100_000, "the right one counts: {drawn}, {stats:?}");
}

#[test]
fn packets_to_a_client_without_its_token_do_nothing_to_its_call() {
    let mut pair = Pair::new();
    pair.answer = Box::new(|_| None);
    pair.call(pattern(100, 1), 1);
    pair.run_for(Duration::from_millis(1));
    let id = pair.client.trace().iter().last().unwrap().id;
    let (now, local) = (pair.now, client_addr().ip());
    for shown in [0, 7, u64::MAX] {
        for mut packet in forged(id.other_side().value(), Tokens { own: 5, shown }) {
            pair.client
                .handle_packet(now, server_addr(), local, &packet);
            // As DATA of a response.
            packet.resize(100, 0);
            packet[11] = PacketType::Data as u8;
            packet[28..36].copy_from_slice(&[0, 0, 0, 10, 0, 0, 0, 10]);
            pair.client
                .handle_packet(now, server_addr(), local, &packet);
        }
    }
    pair.flush();
    assert!(pair.outcomes.is_empty(), "{:?}", pair.outcomes);
    let rpc = pair.open.pop().unwrap();
    pair.respond(rpc, pattern(10, 2)).unwrap();
    pair.run(LONG);
    assert_eq!(pair.outcomes[&1].as_deref(), Ok(&pattern(10, 2)[..]));
}

#[test]
fn one_who_forges_first_packets_in_a_clients_name_does_not_use_up_its_room() {
    let config = Config {
        rpcs_per_peer_max: 10,
        ..Config::default()
    };
    let mut pair = Pair::with(config, Wire::Encapsulated).acquaint();
    pair.answer = Box::new(|_| None);
    for number in 0..1_000_u64 {
        let header = Header {
            source_port: 0,
            destination_port: 0,
            sender_id: RpcId::new(0x7000_0000 + 2 * number),
        };
        let data = Data {
            message_length: 100,
            incoming: 100,
            ack: None,
            cutoff_version: 0,
            retransmit: false,
            few_unscheduled: false,
            following: 0,
            offset: 0,
        };
        let tokens = Tokens { own: 5, shown: 0 };
        let header = emit(&header, &Packet::Data(data, &[])).with_tokens(tokens);
        let mut packet = header.as_slice().to_vec();
        packet.extend([7; 100]);
        answered(&mut pair, &packet);
    }
    for cookie in 0..5 {
        pair.call(pattern(50, u8::try_from(cookie).unwrap()), cookie);
    }
    pair.run_for(Duration::from_millis(100));
    for rpc in std::mem::take(&mut pair.open) {
        pair.respond(rpc, pattern(10, 0)).unwrap();
    }
    pair.run_for(Duration::from_millis(100));
    assert_eq!(pair.outcomes.len(), 5);
    assert!(
        pair.outcomes.values().all(Result::is_ok),
        "{:?}",
        pair.outcomes
    );
}

/// What is asked about requests that were forged in the name of a peer goes unanswered. That must not pass for
/// the silence of the peer, or a forger could end our own calls to it. Worlds 2256, 4556.
#[test]
fn forged_requests_do_not_make_a_living_peer_dead() {
    let mut forger = Forger::new(Wire::Encapsulated);
    let (now, server) = (forger.now, &mut forger.server);
    server
        .send_request(now, client_addr(), 1_472, vec![7; 100].into(), 1)
        .expect("there is room");
    for id in 0..20 {
        forger.request(1_000 + 2 * id, 0);
    }
    forger.answer(100);
    let mut asked = 0;
    let end = forger.now + LONG / 4;
    while let Some(at) = forger.server.poll_timeout().filter(|at| *at <= end) {
        forger.now = at.max(forger.now) + Duration::from_micros(1);
        forger.server.handle_timeout(forger.now);
        while let Some(packet) = forger.server.poll_transmit(forger.now) {
            let (header, packet) = parse(packet.header.as_slice()).unwrap();
            // The peer has the call at work, and knows nothing of the others.
            if header.sender_id.is_client() && packet.packet_type() == PacketType::Resend {
                asked += 1;
                forger.reply(header.sender_id.other_side(), &Packet::Busy(Busy::Working));
            }
        }
    }
    while let Some(event) = forger.server.poll_event() {
        assert!(!matches!(event, Event::Failed { .. }), "{event:?}");
    }
    assert!(asked >= 5, "{asked}");
    assert_eq!(forger.server.rpcs_live(), 1, "only the call is left");
}

/// Tokens change with time, also while nothing is received: a first packet after hours tells one that counts.
/// World 7877.
#[test]
fn a_packet_after_a_long_silence_tells_a_token_that_counts() {
    let mut forger = Forger::new(Wire::Encapsulated);
    for hours in [0, 2, 3] {
        let now = Instant::from_nanos(hours * 3_600_000_000_000 + 1_000_000_000);
        forger.now = now;
        let endpoint = &mut forger.server;
        endpoint
            .send_request(now, client_addr(), 1_472, vec![7; 100].into(), hours)
            .expect("there is room");
        let sent = endpoint.poll_transmit(now).expect("it is sent");
        let shown = Tokens::of(sent.header.as_slice()).own;
        let (header, _) = parse(&[sent.header.as_slice(), &[7; 100]].concat()).unwrap();
        let header = Header {
            sender_id: header.sender_id.other_side(),
            ..header
        };
        let data = Data {
            message_length: 3,
            incoming: 3,
            ack: None,
            cutoff_version: 0,
            retransmit: false,
            few_unscheduled: false,
            following: 0,
            offset: 0,
        };
        let plain = emit(&header, &Packet::Data(data, &[]));
        let response = plain.with_tokens(Tokens { own: 77, shown });
        let bytes = [response.as_slice(), b"yes"].concat();
        endpoint.handle_packet(now, client_addr(), server_addr().ip(), &bytes);
        let event = endpoint.poll_event();
        assert!(
            matches!(event, Some(Event::Response { cookie, .. }) if cookie == hours),
            "after {hours} hours: {event:?}"
        );
        while endpoint.poll_transmit(now).is_some() {}
    }
}
