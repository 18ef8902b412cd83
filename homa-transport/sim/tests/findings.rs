//! Defects that simulated worlds have shown, each as small as it could be made.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use homa_protocol::endpoint::Event;
use homa_protocol::units::{Instant, Priority, RpcId};
use homa_protocol::wire::{Busy, Data, Header, Packet, Resend, Tokens, emit, parse, quoted_id};
use homa_protocol::{Config, Delivery, Endpoint, Message, Report, Unreachable, Wire};
use homa_sim::{Arrivals, Scenario, Sizes, World, fuzz};

fn peer(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 4_000))
}

fn endpoint(seed: u128) -> Endpoint {
    let mut endpoint =
        Endpoint::new(Config::default(), Wire::Encapsulated, 4_000, seed).expect("valid settings");
    endpoint.set_serving(true);
    endpoint
}

fn refused(peer: SocketAddr, about: Option<RpcId>) -> Report {
    Report {
        peer,
        reason: Unreachable::Port,
        about,
    }
}

fn run(seed: u64) {
    if let Err(violation) = World::of_seed(seed).run() {
        panic!("{violation}");
    }
}

/// Runs the fuzz target `endpoint` on bytes in hexadecimal digits.
fn fuzz_endpoint(input: &str) {
    let byte = |at| u8::from_str_radix(&input[at..at + 2], 16).expect("two digits");
    let bytes: Vec<u8> = (0..input.len()).step_by(2).map(byte).collect();
    fuzz::endpoint(&bytes);
}

/// Packets that overshoot the grant (a packet goes when its first byte is granted) make
/// `received` exceed `granted`; the next grant then counts more as incoming than is ever taken off.
/// Worlds 20, 36, 58, 1612.
#[test]
fn grants_go_on_when_packets_overshoot_them() {
    let mut scenario = Scenario::quiet(1, 2);
    scenario.packet_bytes = 8_972;
    scenario.config.max_incoming_bytes = 60_000;
    scenario.load.requests = Sizes::constant(900_000);
    scenario.load.responses = Sizes::constant(900_000);
    scenario.load.bytes_max = u64::MAX;
    scenario.load.calls_max = 30;
    scenario.load.arrivals = Arrivals::Closed {
        outstanding: 4,
        pause: Duration::ZERO,
    };
    if let Err(violation) = World::new(scenario).unwrap().run() {
        panic!("{violation}");
    }
}

/// The wheel starts half a turn before the first timer, which may lie in the future: a timer set
/// next for an earlier time comes late. World 14212.
#[test]
fn a_long_timer_does_not_delay_the_short_one_set_after_it() {
    let (mut client, mut server) = (endpoint(100), endpoint(200));
    let now = Instant::from_nanos(5_000_000_000);
    let local: IpAddr = peer(2).ip();
    client
        .send_request(now, peer(2), 1_472, Message::from(vec![1; 10]), 1)
        .unwrap();
    let packet = client.poll_transmit(now).unwrap().to_vec();
    server.handle_packet(now, peer(1), local, &packet);
    let Some(Event::Request { .. }) = server.poll_event() else {
        panic!("the request is delivered");
    };
    // The request is in service: its timer waits for long. The wheel is empty once it was run.
    let mut at = now;
    for _ in 0..3 {
        at = server.poll_timeout().unwrap().max(at);
        server.handle_timeout(at);
    }
    server
        .send_request(at, peer(3), 1_472, Message::from(vec![1; 10]), 2)
        .unwrap();
    while server.poll_transmit(at).is_some() {}
    let resend = Duration::from_millis(7);
    let mut later = at;
    while later < at + resend {
        later = server
            .poll_timeout()
            .unwrap()
            .max(later + Duration::from_micros(1));
        server.handle_timeout(later);
    }
    assert!(later < at + Duration::from_millis(20), "{at:?} {later:?}");
    assert!(server.stats().resends_sent > 0, "{at:?} {later:?}");
}

/// A report about a packet of one call says nothing about another. Worlds 4406, 14212.
#[test]
fn a_report_about_a_call_given_up_does_not_make_another_one_not_sent() {
    for about_second in [false, true] {
        let mut client = endpoint(100);
        let now = Instant::from_nanos(5_000_000_000);
        let request = || Message::from(vec![1; 10]);
        let first = client
            .send_request(now, peer(2), 1_472, request(), 1)
            .unwrap();
        let sent = client.poll_transmit(now).unwrap();
        client.abort(now, first);
        let later = now + Duration::from_micros(10);
        client
            .send_request(later, peer(2), 1_472, request(), 2)
            .unwrap();
        let packets = std::iter::from_fn(|| client.poll_transmit(later));
        let second = packets.last().unwrap();
        // The second request is on its way when a refusal comes back.
        let refused_one = if about_second { &second } else { &sent };
        let quoted = quoted_id(refused_one.header.as_slice());
        assert!(quoted.is_some());
        client.handle_unreachable(&refused(peer(2), quoted));
        let Some(Event::Failed { cookie: 2, error }) = client.poll_event() else {
            panic!("the call fails");
        };
        let safe = error.delivery() == Delivery::NotSent;
        assert_eq!(safe, about_second, "{error}");
    }
}

/// When a refusal had failed the calls to a server, all about it was forgotten, and a refusal that came
/// later, about a packet from before, took the next call for refused, which the server executed: it was
/// back. Found by the fuzz target `world`.
#[test]
fn a_late_report_does_not_make_a_call_not_sent_to_a_server_that_is_back() {
    run(0xc8f5_773e_4690_f93c);
}

/// The server has given the answered call up (its client was stopped for longer than the timeout)
/// and forgotten its id; the client, which has heard nothing, takes RPC_UNKNOWN for "never had it".
#[test]
fn a_client_that_was_stopped_for_long_does_not_have_its_request_executed_again() {
    run(2_528);
}

/// The first grant reserves the whole message without a look at the budget.
#[test]
fn memory_for_incoming_messages_stays_within_its_bound() {
    run(1_185);
}

/// The client of a request that had moved to its new port was asked at the old one, to which a late packet had
/// brought the request back, and taken for dead. Found by `worlds`.
#[test]
fn a_client_at_rest_is_asked_at_the_port_where_it_is_heard() {
    run(24_842);
}

/// A client whose calls rest says nothing at its new port for a second: its responses were given up meanwhile.
/// Found by `worlds`.
#[test]
fn responses_to_a_client_at_rest_outlast_a_change_of_its_port() {
    run(16_995);
}

/// The calls to a peer counted against the bound of its calls to us: two hosts that had as many calls
/// to each other as that refused each other for ever. Found by the fuzz target `endpoint`.
#[test]
fn hosts_with_as_many_calls_to_each_other_as_one_peer_may_have_serve_each_other() {
    let config = Config {
        rpcs_per_peer_max: 1,
        ..Config::default()
    };
    let now = Instant::from_nanos(1_000_000_000);
    let mut ends = [1, 2].map(|seed| {
        let mut end = Endpoint::new(config.clone(), Wire::Encapsulated, 4_000, seed).unwrap();
        end.set_serving(true);
        end
    });
    for (end, to) in ends.iter_mut().zip([2, 1]) {
        end.send_request(now, peer(to), 1_472, Message::from(vec![1; 10]), 1)
            .unwrap();
    }
    let [one, two] = &mut ends;
    let to_two = one.poll_transmit(now).unwrap().to_vec();
    let to_one = two.poll_transmit(now).unwrap().to_vec();
    one.handle_packet(now, peer(2), peer(1).ip(), &to_one);
    two.handle_packet(now, peer(1), peer(2).ip(), &to_two);
    for end in &mut ends {
        assert!(matches!(end.poll_event(), Some(Event::Request { .. })));
        assert_eq!(end.stats().requests_refused, 0);
    }
}

/// The least step of a grant was taken from a window that `max_incoming_bytes` never allows; no step
/// was large enough. Found by the fuzz target `endpoint`.
#[test]
fn a_window_larger_than_all_that_may_come_in_does_not_stop_grants() {
    let mut scenario = Scenario::quiet(1, 2);
    scenario.config.window_bytes = 1 << 30;
    scenario.config.max_incoming_bytes = 10_000;
    scenario.config.grant_increment_bytes = 1_000_000;
    scenario.config.grant_fifo_permille = 0;
    scenario.load.requests = Sizes::constant(900_000);
    scenario.load.responses = Sizes::constant(10);
    scenario.load.bytes_max = u64::MAX;
    scenario.load.calls_max = 4;
    if let Err(violation) = World::new(scenario).unwrap().run() {
        panic!("{violation}");
    }
}

/// A defect of the oracle: a request whose id was damaged on its way, so that it is that of an earlier
/// call to another host, was taken for that call. Found by the fuzz target `world`.
#[test]
fn a_damaged_id_that_is_that_of_another_call_is_no_second_delivery() {
    run(11_220_192_987_849_844_216);
}

/// A request that waited for room had no length to be compared with. A second first packet with a
/// length over the limit ended it as if it were a call of ours: with a failure of call 0, which may be
/// another one, in progress. Found by the fuzz target `endpoint`.
#[test]
fn a_request_that_waits_for_room_is_not_failed_as_a_call_when_its_length_is_forged() {
    let config = Config {
        inbound_bytes_per_peer_max: 2_000_000,
        ..Config::default()
    };
    let mut server = Endpoint::new(config, Wire::Encapsulated, 4_000, 9).unwrap();
    server.set_serving(true);
    let now = Instant::from_nanos(1_000_000_000);
    let data = |id: u64, message_length: u32| {
        let header = Header {
            source_port: 4_000,
            destination_port: 4_000,
            sender_id: RpcId::new(id),
        };
        let data = Data {
            message_length,
            incoming: 40_000,
            ack: None,
            cutoff_version: 1,
            retransmit: false,
            few_unscheduled: false,
            following: 0,
            offset: 0,
        };
        let mut packet = emit(&header, &Packet::Data(data, &[])).as_slice().to_vec();
        packet.resize(packet.len() + 1_000, 7);
        packet
    };
    for id in 1..=40 {
        server.handle_packet(now, peer(1), peer(2).ip(), &data(id * 2, 900_000));
    }
    assert!(server.stats().messages_deferred > 0);
    for id in 1..=40 {
        server.handle_packet(now, peer(1), peer(2).ip(), &data(id * 2, 1_000_001));
    }
    assert_eq!(server.poll_event(), None);
    assert_eq!(server.stats().rpcs_failed, 0);
    assert_eq!(server.stats().data_contradictory, 40);
}

/// A RESEND for an unknown request was taken for that of a refused one while there was no room for
/// another record, and its request asked for when there was. It may have been delivered before, so long
/// ago that its id is forgotten. Found by the fuzz target `endpoint`.
#[test]
fn a_forgotten_request_is_not_asked_for_because_the_server_was_full_in_between() {
    let config = Config {
        rpcs_max: 1,
        ..Config::default()
    };
    let mut server = Endpoint::new(config, Wire::Encapsulated, 4_000, 9).unwrap();
    server.set_serving(true);
    let packet = |id: u64, packet: Packet<'_>| {
        let header = Header {
            source_port: 4_000,
            destination_port: 4_000,
            sender_id: RpcId::new(id),
        };
        let mut bytes = emit(&header, &packet).as_slice().to_vec();
        if let Packet::Data(_, data) = packet {
            bytes.extend_from_slice(data);
        }
        bytes
    };
    let data = Data {
        message_length: 3,
        incoming: 3,
        ack: None,
        cutoff_version: 1,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset: 0,
    };
    let resend = Resend {
        offset: 0,
        length: None,
        priority: Priority::HIGHEST,
    };
    let local = peer(2).ip();
    let mut now = Instant::from_nanos(1_000_000_000);
    server.handle_packet(now, peer(1), local, &packet(2, Packet::Data(data, b"one")));
    assert!(matches!(server.poll_event(), Some(Event::Request { .. })));
    server.handle_unreachable(&refused(peer(1), None));
    assert!(matches!(server.poll_event(), Some(Event::Cancelled { .. })));
    for _ in 0..250 {
        now = now + Duration::from_millis(100);
        server.handle_packet(
            now,
            peer(3),
            local,
            &packet(4, Packet::Busy(Busy::Unexplained)),
        );
    }
    server.handle_packet(now, peer(3), local, &packet(6, Packet::Data(data, b"two")));
    assert!(matches!(server.poll_event(), Some(Event::Request { .. })));
    server.handle_packet(now, peer(1), local, &packet(2, Packet::Resend(resend)));
    server.handle_unreachable(&refused(peer(3), None));
    server.handle_packet(now, peer(1), local, &packet(2, Packet::Resend(resend)));
    assert_eq!(server.stats().resends_sent, 0);
    assert_eq!(server.stats().unknown_sent, 2);
}

/// A defect of the oracle: it took the length of a message from a packet with a damaged id, for which
/// the endpoint had no room, and then a grant for the right message as one beyond its end. Found by the
/// fuzz target `world`.
#[test]
fn a_grant_is_not_measured_by_the_length_in_a_damaged_packet() {
    run(10_746_620_380_169_534_475);
}

/// A client that had part of the response obeyed a RESEND for its request. Its server, which had given
/// the answered call up while the client was stopped, and had forgotten its id, got the request a second
/// time and executed it. Found by the fuzz target `endpoint`.
#[test]
fn a_client_that_has_part_of_the_response_does_not_send_its_request_again() {
    fuzz_endpoint(
        "bc7e98e27fceab61f426bb294eb7adc032a895519fd77bc4aef7627ac621de6413602912b8c6b47ef5783847fe6862d0033f209d7ea8ce8943bec4",
    );
}

/// The client was stopped for longer than its server goes on without it and then remembers its request;
/// among what it finds when it wakes is the server's RESEND from before. Found by the fuzz target `endpoint`.
#[test]
fn a_client_that_wakes_to_an_old_resend_does_not_send_its_request_again() {
    fuzz_endpoint(
        "242f95c761aaec47cd698e7dab73841bb86998fdf491dd54770ce0a464ec54a7b2b47bbd9f621cc0bef9",
    );
}

/// The same packet by packet: an answer to the RESEND may be a second execution, so the call fails. If
/// its response is there as well, that counts.
#[test]
fn a_call_asked_for_again_after_a_long_sleep_fails_unless_its_response_is_there() {
    for answered in [false, true] {
        let mut client = endpoint(100);
        let now = Instant::from_nanos(5_000_000_000);
        let local: IpAddr = peer(1).ip();
        client
            .send_request(now, peer(2), 1_472, Message::from(vec![1; 10]), 7)
            .unwrap();
        let request = client.poll_transmit(now).unwrap().to_vec();
        let (sent, _) = parse(&request).unwrap();
        let woken = now + Config::default().delivered_memory;
        let resend = Packet::Resend(Resend {
            offset: 0,
            length: None,
            priority: Priority::new(7).unwrap(),
        });
        let header = Header {
            sender_id: sent.sender_id.other_side(),
            ..sent
        };
        let tokens = Tokens {
            own: 5,
            shown: Tokens::of(&request).own,
        };
        let resend = emit(&header, &resend).with_tokens(tokens);
        client.handle_packet(woken, peer(2), local, resend.as_slice());
        assert!(client.poll_transmit(woken).is_none());
        if answered {
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
            let mut packet = emit(&header, &Packet::Data(data, &[])).as_slice().to_vec();
            packet.extend_from_slice(b"yes");
            tokens.write(&mut packet);
            client.handle_packet(woken, peer(2), local, &packet);
        }
        client.handle_timeout(woken);
        match client.poll_event() {
            Some(Event::Response { cookie: 7, message }) if answered => {
                assert_eq!(message.to_vec(), b"yes");
            }
            Some(Event::Failed { cookie: 7, error }) if !answered => {
                assert_eq!(error.delivery(), Delivery::Unknown, "{error}");
            }
            other => panic!("answered: {answered}, {other:?}"),
        }
    }
}

/// A defect of the oracle: a request that began again after its server was told that the client cannot be
/// reached counted with what it was granted before. Found by the fuzz target `world`.
#[test]
fn what_an_rpc_was_granted_before_it_began_again_is_not_held_against_it() {
    run(10_082_942_612_410_575_770);
}

/// A request is remembered from its end on, not from its delivery, and its client is not forgotten
/// before it, so that no time is left in which a duplicate would begin it again.
#[test]
fn a_request_that_its_server_gave_up_is_not_executed_again() {
    let (mut client, mut server) = (endpoint(100), endpoint(200));
    let mut now = Instant::from_nanos(5_000_000_000);
    let local: IpAddr = peer(2).ip();
    client
        .send_request(now, peer(2), 1_472, Message::from(vec![1; 10]), 1)
        .unwrap();
    let packet = client.poll_transmit(now).unwrap().to_vec();
    server.handle_packet(now, peer(1), local, &packet);
    assert!(matches!(server.poll_event(), Some(Event::Request { .. })));
    for _ in 0..120 {
        now = now + Duration::from_millis(100);
        server.handle_timeout(now);
    }
    assert!(matches!(server.poll_event(), Some(Event::Cancelled { .. })));
    server.handle_packet(now, peer(1), local, &packet);
    assert_eq!(server.stats().duplicate_requests, 1);
    for _ in 0..200 {
        now = now + Duration::from_millis(100);
        server.handle_timeout(now);
    }
    assert_eq!(server.poll_timeout(), None, "the memory ends");
}

/// Each call of the timer within a millisecond left an entry of its own in the wheel: twenty thousand for
/// one RPC. Found by the fuzz target `endpoint`.
#[test]
fn a_timer_set_again_and_again_leaves_one_entry() {
    fuzz_endpoint("1f05be59ee5a5b2a163776a6a60d8260036ec471708d30054e986cb8f0da9c31583e74205e");
}

/// A server that was started again executed a late duplicate of a request, held the response until its
/// client would show that it is there, and said BUSY; the client, which had part of the response, waited.
/// Found by the fuzz target `world`.
#[test]
fn a_call_that_a_restarted_server_asks_for_again_and_again_fails() {
    run(0xaa71_902d_01df_ad29);
}

/// The peer had been slow once, and from then on each granted packet was lost: it was asked for only after
/// a tenth of a second, for ever. Found by the fuzz target `endpoint`.
#[test]
fn a_peer_that_was_slow_once_is_asked_sooner_as_it_answers() {
    fuzz_endpoint(
        "2c799d7a04feda5b151f4e21cfed73665c47839b32bf97d244479240c4dee98b31207eef383f2f1f8cfc1b1fc71c105f6be6ae",
    );
}

/// A client that had all that it had granted said nothing to NEED_ACK, so its server took it for dead and
/// dropped the response.
#[test]
fn a_client_that_has_yet_to_grant_is_not_taken_for_dead() {
    run(600);
}

/// Pauses between copies were doubled without a bound of their own, beyond the time that peers wait.
#[test]
fn copies_are_never_put_off_for_longer_than_peers_wait() {
    run(1509);
}
