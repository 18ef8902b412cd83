//! Defects that simulated worlds have shown, each as small as it could be made.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use homa_transport::endpoint::Event;
use homa_transport::sim::{Arrivals, Scenario, Sizes, World};
use homa_transport::units::Instant;
use homa_transport::{Config, Delivery, Endpoint, Message, Unreachable, Wire};

fn peer(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 4_000))
}

fn endpoint(seed: u64) -> Endpoint {
    let mut endpoint =
        Endpoint::new(Config::default(), Wire::Encapsulated, 4_000, seed).expect("valid settings");
    endpoint.set_serving(true);
    endpoint
}

fn run(seed: u64) {
    if let Err(violation) = World::of_seed(seed).run() {
        panic!("{violation}");
    }
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

/// A report says no more than that some packet to the peer was refused. Worlds 4406, 14212.
#[test]
fn a_report_about_a_call_given_up_does_not_make_another_one_not_sent() {
    let mut client = endpoint(100);
    let now = Instant::from_nanos(5_000_000_000);
    let request = || Message::from(vec![1; 10]);
    let first = client
        .send_request(now, peer(2), 1_472, request(), 1)
        .unwrap();
    while client.poll_transmit(now).is_some() {}
    client.abort(now, first);
    let later = now + Duration::from_micros(10);
    client
        .send_request(later, peer(2), 1_472, request(), 2)
        .unwrap();
    while client.poll_transmit(later).is_some() {}
    // The second request is on its way when the refusal of the first one comes back.
    client.handle_unreachable(peer(2), Unreachable::Port);
    let Some(Event::Failed { cookie: 2, error }) = client.poll_event() else {
        panic!("the call fails");
    };
    assert_eq!(error.delivery(), Delivery::Unknown, "{error}");
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
