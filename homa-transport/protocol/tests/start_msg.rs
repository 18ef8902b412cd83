//! Messages that go by grants alone: how they begin, what happens when a packet of them is lost, and who
//! gets them. The other ends speak like Linux modules of three kinds.

#![allow(clippy::unwrap_used, reason = "a test binary")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use homa_protocol::endpoint::Event;
use homa_protocol::endpoint::ModuleKind::{self, July, September, Upstream};
use homa_protocol::units::{Instant, RpcId};
use homa_protocol::wire::{self, Busy, Header, Packet, PacketType, StartMsg, emit};
use homa_protocol::{Config, Endpoint, Message, RpcError, Wire};
use support::{Fate, Pair, Sent, Side, client_addr, pattern, server_addr};

const LONG: Duration = Duration::from_secs(60);
/// Longer than what goes unasked.
const LEN: usize = 70_000;

/// Client and server; `None` is our own.
type Kinds = [Option<ModuleKind>; 2];

/// All pairs of which at least one end is ours.
const PAIRS: [Kinds; 7] = [
    [Some(September), None],
    [None, Some(September)],
    [Some(July), None],
    [None, Some(July)],
    [Some(Upstream), None],
    [None, Some(Upstream)],
    [None, None],
];

fn pair_of(kinds: Kinds, config: Config) -> Pair {
    let mut pair = Pair::with(config, Wire::Native);
    let [client, server] = kinds;
    if let Some(kind) = client {
        pair.client.imitate(kind);
    }
    if let Some(kind) = server {
        pair.server.imitate(kind);
    }
    pair
}

/// Runs one echo and checks that it ends as it should.
fn echo(kinds: Kinds, len: usize, fate: impl FnMut(&Sent) -> Fate + 'static) -> Pair {
    let mut pair = pair_of(kinds, Config::default());
    pair.fate = Box::new(fate);
    again(&mut pair, len, 1);
    pair
}

/// Another one.
fn again(pair: &mut Pair, len: usize, cookie: u64) {
    let request = Bytes::from(pattern(len, 3));
    pair.deliveries.clear();
    pair.call(request.clone(), cookie);
    pair.run(LONG);
    let context = format!("{len} bytes, {:#?}", texts(pair));
    assert_eq!(
        pair.outcomes.get(&cookie),
        Some(&Ok(request.clone())),
        "{context}"
    );
    assert_eq!(pair.deliveries.get(&request), Some(&1), "{context}");
    assert!(pair.is_settled(), "{context}");
    assert_eq!(pair.client.inbound_bytes() + pair.server.inbound_bytes(), 0);
}

/// What was sent, as `client: DATA 0..1424 of 5000`.
fn texts(pair: &Pair) -> Vec<String> {
    let text = |sent: &Sent| format!("{}: {}", side(sent.from), sent.text);
    pair.log.iter().map(text).collect()
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

fn of_type(pair: &Pair, from: Side, packet_type: PacketType) -> usize {
    let is = |sent: &&Sent| sent.from == from && sent.packet_type == packet_type;
    pair.log.iter().filter(is).count()
}

/// Loses the first packet of `from` whose text begins so.
fn lose_first(from: Side, text: &'static str) -> impl FnMut(&Sent) -> Fate {
    let mut left = 1;
    move |sent| {
        if left > 0 && sent.from == from && sent.text.starts_with(text) {
            left -= 1;
            return Fate::Drop;
        }
        Fate::Deliver
    }
}

/// The texts from the first of `from` that begins with `text`.
fn tail(pair: &Pair, from: Side, text: &str) -> Vec<String> {
    let begin = format!("{}: {text}", side(from));
    let mut all = texts(pair);
    let at = all.iter().position(|text| text.starts_with(&begin));
    all.split_off(at.expect(text))
}

// ---- who gets which kind ----

#[test]
fn a_long_message_goes_by_grants_alone_and_a_short_one_without() {
    for len in [1, 1_425, 39_999, 40_000, 40_001, LEN, 1_000_000] {
        for kinds in [[Some(September), None], [Some(September), Some(September)]] {
            let pair = echo(kinds, len, |_| Fate::Deliver);
            let starts = usize::from(len > 40_000);
            for (from, to) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
                assert_eq!(of_type(&pair, from, PacketType::StartMsg), starts, "{len}");
                assert_eq!(of_type(&pair, from, PacketType::Resend), 0, "{len}");
                assert_eq!(of_type(&pair, to, PacketType::Grant) > 0, len > 40_000);
            }
            if len > 40_000 {
                let texts = texts(&pair);
                assert_eq!(texts[0], format!("client: START_MSG of {len}"));
                assert!(texts[1].starts_with("server: GRANT up to"), "{}", texts[1]);
                let response = tail(&pair, Side::Server, "START_MSG");
                assert!(response[1].starts_with("client: GRANT"), "{response:?}");
            }
        }
    }
}

#[test]
fn a_host_that_was_not_heard_gets_the_older_scheme_and_one_that_was_its_own() {
    let mut pair = echo([None, Some(September)], LEN, |_| Fate::Deliver);
    assert_eq!(texts(&pair)[0], "client: DATA 0..1424 of 70000");
    assert_eq!(of_type(&pair, Side::Client, PacketType::StartMsg), 0);
    assert_eq!(of_type(&pair, Side::Server, PacketType::StartMsg), 1);
    pair.log.clear();
    again(&mut pair, LEN, 2);
    assert_eq!(texts(&pair)[0], "client: START_MSG of 70000");
    for kind in [None, Some(July), Some(Upstream)] {
        let mut pair = echo([None, kind], LEN, |_| Fate::Deliver);
        again(&mut pair, LEN, 2);
        let started = of_type(&pair, Side::Client, PacketType::StartMsg);
        assert_eq!(started, 0, "{kind:?}");
    }
}

#[test]
fn what_a_host_speaks_is_known_of_all_its_ports_once_a_message_has_come_whole() {
    let mut server = server();
    let other = SocketAddr::new(client_addr().ip(), 77);
    assert_eq!(first_packet_to(&mut server, other), PacketType::Data);
    take(&mut server, client_addr(), start(2, 1_000));
    assert_eq!(sent(&mut server), [(RpcId::new(3), PacketType::Grant)]);
    // Anybody could have sent that in its name.
    assert_eq!(first_packet_to(&mut server, other), PacketType::Data);
    take_data(&mut server, 1_000, &[7; 1_000]);
    assert!(matches!(server.poll_event(), Some(Event::Request { .. })));
    assert_eq!(first_packet_to(&mut server, other), PacketType::StartMsg);
    let elsewhere = "10.0.0.77:4000".parse().unwrap();
    assert_eq!(first_packet_to(&mut server, elsewhere), PacketType::Data);
}

/// The type of the packet with which a long call to `peer` begins.
fn first_packet_to(endpoint: &mut Endpoint, peer: SocketAddr) -> PacketType {
    let message = Message::from(pattern(LEN, 0));
    let call = endpoint.send_request(NOW, peer, 1480, message, 1).unwrap();
    let first = endpoint.poll_transmit(NOW).unwrap().to_vec();
    endpoint.abort(NOW, call);
    while endpoint.poll_transmit(NOW).is_some() {}
    wire::parse(&first).unwrap().1.packet_type()
}

#[test]
fn a_module_that_does_not_know_start_msg_gets_the_message_in_the_older_scheme() {
    for kind in [July, Upstream] {
        let mut pair = echo([Some(September), Some(kind)], LEN, |_| Fate::Deliver);
        assert_eq!(of_type(&pair, Side::Client, PacketType::StartMsg), 8);
        // A host was started again with an older module.
        let mut pair_of_ours = echo([None, Some(September)], LEN, |_| Fate::Deliver);
        let port = server_addr().port();
        let mut older = Endpoint::new(Config::default(), Wire::Native, port, 0x3000).unwrap();
        older.set_serving(true);
        older.imitate(kind);
        pair_of_ours.server = older;
        pair_of_ours.log.clear();
        again(&mut pair_of_ours, LEN, 2);
        let tried = of_type(&pair_of_ours, Side::Client, PacketType::StartMsg);
        assert_eq!(tried, 8);
        again(&mut pair_of_ours, LEN, 3);
        let tried_again = of_type(&pair_of_ours, Side::Client, PacketType::StartMsg);
        assert_eq!(tried_again, tried, "it is not tried with the next message");
        pair.log.clear();
    }
}

#[test]
fn over_udp_start_msg_is_an_unknown_type() {
    let mut pair = Pair::new().acquaint();
    let before = pair.server.stats();
    let (from, to) = (client_addr(), server_addr());
    let packet = bytes(from, to, 0x5000, Packet::StartMsg(start_of(70_000)));
    pair.server.handle_packet(pair.now, from, to.ip(), &packet);
    let after = pair.server.stats();
    assert_eq!(after.malformed_type, before.malformed_type + 1);
    assert_eq!(after.rpcs_live, before.rpcs_live);
    assert!(pair.server.poll_transmit(pair.now).is_none());
}

// ---- every packet lost ----

#[test]
fn each_packet_lost_repeated_or_late_changes_nothing_whoever_speaks() {
    let fates = [
        Fate::Drop,
        Fate::Duplicate,
        Fate::Delay(Duration::from_micros(130)),
        Fate::Delay(Duration::from_millis(12)),
    ];
    let both = [[Some(September), Some(September)]];
    for kinds in PAIRS.into_iter().chain(both) {
        let packets = echo(kinds, LEN, |_| Fate::Deliver).log.len();
        assert!(packets > 100, "{kinds:?}");
        for victim in 0..packets + 2 {
            for fate in fates {
                echo(kinds, LEN, move |sent| {
                    if sent.number == victim {
                        fate
                    } else {
                        Fate::Deliver
                    }
                });
            }
        }
    }
}

#[test]
fn all_packets_of_one_type_lost_for_a_while_change_nothing() {
    use PacketType::{Ack, Busy, Data, Grant, NeedAck, Resend, RpcUnknown, StartMsg};
    for kinds in PAIRS {
        for lost in [
            Data, Grant, Resend, RpcUnknown, Busy, NeedAck, Ack, StartMsg,
        ] {
            for side in [Side::Client, Side::Server] {
                let mut left = 6;
                echo(kinds, LEN, move |sent| {
                    let hit = sent.packet_type == lost && sent.from == side && left > 0;
                    left -= i32::from(hit);
                    if hit { Fate::Drop } else { Fate::Deliver }
                });
            }
        }
    }
}

#[test]
fn random_faults_change_nothing_whoever_speaks() {
    for seed in 0..70_u64 {
        let kinds = PAIRS[usize::try_from(seed % 7).unwrap()];
        let mut random = Random(seed + 1);
        let mut pair = echo(kinds, LEN, move |_| match random.next() % 100 {
            0..10 => Fate::Drop,
            10..15 => Fate::Duplicate,
            15..30 => Fate::Delay(Duration::from_micros(random.next() % 3_000)),
            _ => Fate::Deliver,
        });
        again(&mut pair, 2 * LEN, 2);
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

// ---- the rules of the module, one by one ----

#[test]
fn rule_1_a_lost_start_of_a_request_is_repeated_by_its_client() {
    let pair = echo(
        [Some(September), None],
        LEN,
        lose_first(Side::Client, "START_MSG"),
    );
    let texts = texts(&pair);
    assert_eq!(texts[1], "client: START_MSG of 70000", "{texts:#?}");
    assert_eq!(of_type(&pair, Side::Client, PacketType::StartMsg), 2);
    assert_eq!(of_type(&pair, Side::Client, PacketType::Resend), 0);
}

#[test]
fn rule_2_a_short_request_that_was_lost_is_sent_again_after_rpc_unknown() {
    for kinds in [[Some(September), None], [None, Some(September)]] {
        let mut left = 29;
        let pair = echo(kinds, 40_000, move |sent| {
            left -= 1;
            if left >= 0 && sent.packet_type == PacketType::Data {
                Fate::Drop
            } else {
                Fate::Deliver
            }
        });
        let texts = tail(&pair, Side::Client, "RESEND");
        assert_eq!(texts[0], "client: RESEND everything");
        assert_eq!(texts[1], "server: RPC_UNKNOWN");
        assert_eq!(texts[2], "client: DATA 0..1424 of 40000 again");
    }
}

#[test]
fn rules_3_and_6_lost_data_of_what_has_begun_is_asked_for_by_its_receiver() {
    for (from, to) in [(Side::Client, Side::Server), (Side::Server, Side::Client)] {
        let data_lost = lose_first(from, "DATA 14240..");
        let pair = echo([Some(September), None], LEN, data_lost);
        let texts = tail(&pair, to, "RESEND");
        assert_eq!(texts[0], format!("{}: RESEND 14240..15664", side(to)));
        let again = format!("{}: DATA 14240..15664 of 70000 again", side(from));
        assert_eq!(texts[1], again);
        assert_eq!(of_type(&pair, from, PacketType::StartMsg), 1);
    }
}

#[test]
fn rule_4_a_lost_start_of_a_response_comes_again_instead_of_data() {
    for kinds in [[Some(September), None], [None, Some(September)]] {
        let lost = lose_first(Side::Server, "START_MSG");
        let pair = echo(kinds, LEN, lost);
        let texts = tail(&pair, Side::Server, "START_MSG");
        let rest: Vec<&str> = texts[1..].iter().map(String::as_str).collect();
        assert_eq!(rest[0], "client: RESEND everything", "{rest:#?}");
        assert_eq!(rest[1], "server: START_MSG of 70000");
        assert!(rest[2].starts_with("client: GRANT"), "{rest:#?}");
        assert!(rest[3].starts_with("server: DATA 0.."), "{rest:#?}");
    }
}

#[test]
fn rule_5_a_short_response_that_was_lost_is_asked_for_and_comes_whole() {
    let mut left = 29;
    let pair = echo([Some(September), None], 40_000, move |sent| {
        let hit = sent.packet_type == PacketType::Data && sent.from == Side::Server && left > 0;
        left -= i32::from(hit);
        if hit { Fate::Drop } else { Fate::Deliver }
    });
    let texts = tail(&pair, Side::Client, "RESEND");
    assert_eq!(texts[0], "client: RESEND everything");
    assert_eq!(texts[1], "server: DATA 0..1424 of 40000 again");
    assert_eq!(of_type(&pair, Side::Server, PacketType::StartMsg), 0);
}

#[test]
fn a_lost_grant_is_made_good_by_whoever_asks_first() {
    // The client of a request has waited for longer than its server.
    let pair = echo(
        [Some(September), None],
        LEN,
        lose_first(Side::Server, "GRANT"),
    );
    let after = tail(&pair, Side::Server, "GRANT");
    let expected = [
        "client: START_MSG of 70000",
        "server: GRANT up to 70000",
        "client: DATA 0..1424 of 70000",
    ];
    assert_eq!(after[1..4], expected);
    // The server of a response does not ask for grants.
    let pair = echo(
        [Some(September), None],
        LEN,
        lose_first(Side::Client, "GRANT"),
    );
    let after = tail(&pair, Side::Client, "GRANT");
    let expected = [
        "client: RESEND 0..70000",
        "server: BUSY",
        "server: DATA 0..1424 of 70000",
    ];
    assert_eq!(after[1..4], expected);
}

#[test]
fn what_was_begun_by_start_msg_and_given_up_is_cancelled_at_its_server() {
    let mut pair = pair_of([Some(September), None], Config::default());
    let rpc = pair.call(pattern(LEN, 1), 5);
    pair.client.abort(pair.now, rpc);
    pair.flush();
    assert_eq!(of_type(&pair, Side::Client, PacketType::RpcUnknown), 1);
    pair.run_for(Duration::from_millis(1));
    assert!(pair.deliveries.is_empty());
    assert_eq!(pair.server.stats().rpcs_live, 0);
    assert_eq!(pair.server.inbound_bytes(), 0);
}

#[test]
fn a_server_that_never_answers_ends_the_call() {
    let mut pair = pair_of([Some(September), None], Config::default());
    pair.fate = Box::new(|_| Fate::Drop);
    pair.call(pattern(LEN, 1), 5);
    pair.run(LONG);
    let error = pair.outcomes[&5].clone().unwrap_err();
    assert!(matches!(error, RpcError::TimedOut { .. }), "{error}");
}

// ---- memory ----

const NOW: Instant = Instant::from_nanos(1_000_000_000);

fn server() -> Endpoint {
    server_with(Config::default())
}

fn server_with(config: Config) -> Endpoint {
    let port = server_addr().port();
    let mut server = Endpoint::new(config, Wire::Native, port, 0x2000).unwrap();
    server.set_serving(true);
    server.handle_timeout(Instant::ZERO);
    server
}

fn start_of(message_length: u32) -> StartMsg {
    StartMsg { message_length }
}

fn start(id: u64, message_length: u32) -> (u64, Packet<'static>) {
    (id, Packet::StartMsg(start_of(message_length)))
}

fn bytes(from: SocketAddr, to: SocketAddr, id: u64, packet: Packet<'_>) -> Vec<u8> {
    let header = Header {
        source_port: from.port(),
        destination_port: to.port(),
        sender_id: RpcId::new(id),
    };
    emit(&header, &packet).as_slice().to_vec()
}

fn take(server: &mut Endpoint, from: SocketAddr, (id, packet): (u64, Packet<'_>)) {
    let packet = bytes(from, server_addr(), id, packet);
    server.handle_packet(NOW, from, server_addr().ip(), &packet);
}

/// The first bytes of the client's first message, as if they came unasked with all others.
fn take_data(server: &mut Endpoint, message_length: u32, data: &[u8]) {
    let description = wire::Data {
        message_length,
        incoming: 0,
        ack: None,
        cutoff_version: 1,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset: 0,
    };
    let (from, to) = (client_addr(), server_addr());
    let mut packet = bytes(from, to, 2, Packet::Data(description, &[]));
    packet.extend_from_slice(data);
    server.handle_packet(NOW, from, to.ip(), &packet);
}

/// What the endpoint sends now.
fn sent(endpoint: &mut Endpoint) -> Vec<(RpcId, PacketType)> {
    let next = || endpoint.poll_transmit(NOW).map(|packet| packet.to_vec());
    let parsed = |packet: Vec<u8>| {
        let (header, packet) = wire::parse(&packet).unwrap();
        (header.sender_id, packet.packet_type())
    };
    std::iter::from_fn(next).map(parsed).collect()
}

#[test]
fn a_message_that_begins_reserves_its_first_window_and_no_more() {
    let mut server = server();
    for call in 1..=20_u32 {
        take(
            &mut server,
            client_addr(),
            start(u64::from(call) * 2, 1_000_000),
        );
        assert_eq!(server.inbound_bytes(), call as usize * 40_000);
    }
    // Again and again: nothing more.
    for call in 1..=20 {
        take(&mut server, client_addr(), start(call * 2, 1_000_000));
    }
    assert_eq!(server.inbound_bytes(), 20 * 40_000);
    assert_eq!(server.incoming_bytes(), 0, "nothing is granted unasked");
}

#[test]
fn messages_without_room_are_told_to_wait_and_the_bound_holds() {
    let config = Config {
        inbound_bytes_max: 2_000_000,
        inbound_bytes_per_peer_max: 2_000_000,
        rpcs_max: 40,
        rpcs_per_peer_max: 40,
        ..Config::default()
    };
    let mut server = server_with(config);
    let mut busy = 0;
    for call in 1..=100 {
        take(&mut server, client_addr(), start(call * 2, 1_000_000));
        let answers = sent(&mut server);
        let is_busy = |(_, packet_type): &&(RpcId, PacketType)| *packet_type == PacketType::Busy;
        busy += answers.iter().filter(is_busy).count();
        assert!(server.inbound_bytes() <= 2_000_000);
    }
    // Of 40 that have a record 25 have room for a window at the most; 60 have not even a record.
    assert!((75..=99).contains(&busy), "{busy}");
    // Those without a record hear it whenever they ask.
    take(&mut server, client_addr(), start(200, 1_000_000));
    let answer = (RpcId::new(201), PacketType::Busy);
    assert_eq!(sent(&mut server), [answer]);
}

#[test]
fn lengths_that_no_message_has_are_refused() {
    let mut server = server();
    for length in [1_000_001, u32::MAX] {
        take(&mut server, client_addr(), start(2, length));
        assert_eq!(server.stats().rpcs_live, 0);
    }
    take(&mut server, client_addr(), start(2, 1_000_000));
    let before = server.stats().data_contradictory;
    take(&mut server, client_addr(), start(2, 999_999));
    assert_eq!(server.stats().data_contradictory, before + 1);
    // A response of that length fails its call.
    let mut pair = pair_of([None, Some(September)], Config::default());
    pair.answer = Box::new(|_| None);
    pair.call(pattern(10, 0), 1);
    let first = pair.client.trace().iter().next().unwrap().id;
    let response = first.value() | 1;
    let packet = Packet::StartMsg(start_of(1_000_001));
    let packet = bytes(server_addr(), client_addr(), response, packet);
    let (from, to) = (server_addr(), client_addr().ip());
    pair.client.handle_packet(pair.now, from, to, &packet);
    pair.flush();
    let error = pair.outcomes[&1].clone().unwrap_err();
    assert!(matches!(error, RpcError::ResponseTooLong { .. }), "{error}");
}

#[test]
fn a_start_that_waits_for_its_grant_hears_busy_and_gets_it_in_the_end() {
    // The ceiling is a single window, so that most of the messages wait.
    let config = Config {
        max_incoming_bytes: 20_000,
        max_overcommit: 1,
        ..Config::default()
    };
    let mut pair = pair_of([Some(September), None], config);
    for cookie in 0..20_u64 {
        let len = LEN + usize::try_from(cookie).unwrap();
        pair.call(pattern(len, 1), cookie);
    }
    pair.run(LONG);
    assert_eq!(pair.outcomes.len(), 20);
    assert!(pair.outcomes.values().all(Result::is_ok));
    assert!(pair.deliveries.values().all(|count| *count == 1));
    assert!(pair.is_settled());
}

#[test]
fn peers_that_know_no_grants_stay_within_the_memory_there_is() {
    let config = Config {
        inbound_bytes_max: 2_000_000,
        inbound_bytes_per_peer_max: 2_000_000,
        ..Config::default()
    };
    let mut pair = pair_of([Some(Upstream), None], config);
    pair.answer = Box::new(|request| Some(vec![u8::from(request.len() > 8); 10].into()));
    for cookie in 0..40_u64 {
        let mut request = pattern(200_000, 1);
        request[..8].copy_from_slice(&cookie.to_be_bytes());
        pair.call(request, cookie);
    }
    let end = pair.now + LONG;
    while pair.outcomes.len() < 40 && pair.now < end {
        pair.run_for(Duration::from_millis(1));
        assert!(pair.server.inbound_bytes() <= 2_000_000);
    }
    assert_eq!(pair.outcomes.len(), 40);
    assert!(pair.outcomes.values().all(Result::is_ok));
    assert!(pair.deliveries.values().all(|count| *count == 1));
    pair.run(LONG);
    assert_eq!(pair.server.inbound_bytes(), 0);
    // The peer heeds no grant, and the server has none to give.
    assert_eq!(pair.server.stats().grants_sent, 0);
}

#[test]
fn data_of_a_started_message_that_says_0_does_not_grant_itself() {
    let mut server = server();
    take(&mut server, client_addr(), start(2, 1_000_000));
    let granted = sent(&mut server);
    assert_eq!(granted, [(RpcId::new(3), PacketType::Grant)]);
    let allowed = server.incoming_bytes();
    take_data(&mut server, 1_000_000, &[7; 1_000]);
    assert_eq!(server.incoming_bytes(), allowed - 1_000);
    let busy = Packet::Busy(Busy::Unexplained);
    take(&mut server, client_addr(), (2, busy));
    assert_eq!(server.stats().rpcs_live, 1);
}
