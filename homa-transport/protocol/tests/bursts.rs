//! What a burst leaves behind: nothing that costs memory or work.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod counting;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use homa_protocol::units::{Instant, RpcId};
use homa_protocol::wire::{Data, Header, Packet, emit};
use homa_protocol::{Config, Endpoint, Message, Report, Unreachable, Wire};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Peers of a burst: about as many as an endpoint knows at a time.
const PEERS: u32 = 65_000;

fn endpoint(wire: Wire) -> Endpoint {
    let mut endpoint = Endpoint::new(Config::default(), wire, 4_000, 7 << 64 | 1).unwrap();
    endpoint.set_serving(true);
    endpoint
}

fn stranger(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 40_000))
}

/// The first packet of a request of which no more comes.
fn first_packet(number: u32) -> Vec<u8> {
    let header = Header {
        source_port: 40_000,
        destination_port: 4_000,
        sender_id: RpcId::new(u64::from(number) * 2 + 1_000),
    };
    let data = Data {
        message_length: 3_000,
        incoming: 3_000,
        ack: None,
        cutoff_version: 1,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset: 0,
    };
    let mut packet = emit(&header, &Packet::Data(data, &[])).as_slice().to_vec();
    packet.extend([7; 100]);
    packet
}

fn drain(endpoint: &mut Endpoint, now: Instant) {
    while endpoint.poll_event().is_some() {}
    while endpoint.poll_transmit(now).is_some() {}
    let mut released = Vec::new();
    endpoint.take_released(&mut released);
}

/// Lets time pass until nothing is left to do.
fn settle(endpoint: &mut Endpoint, mut now: Instant) -> Instant {
    let end = now + Duration::from_secs(300);
    while let Some(due) = endpoint.poll_timeout().filter(|due| *due < end) {
        now = now.max(due);
        endpoint.handle_timeout(now);
        drain(endpoint, now);
    }
    now
}

fn flood(endpoint: &mut Endpoint, now: Instant) -> Instant {
    for number in 0..PEERS {
        endpoint.handle_packet(now, stranger(number), HERE, &first_packet(number));
        drain(endpoint, now);
    }
    now
}

#[test]
fn memory_goes_back_after_a_burst_of_strangers() {
    for wire in [Wire::Encapsulated, Wire::Native] {
        let mut endpoint = endpoint(wire);
        let before = counting::live_bytes();
        let now = flood(&mut endpoint, Instant::from_nanos(1_000_000_000));
        let at_most = counting::live_bytes() - before;
        assert!(at_most > 20 << 20, "the burst is held: {at_most}");
        assert_eq!(endpoint.stats().rpcs_live, u64::from(PEERS));
        settle(&mut endpoint, now);
        assert!(endpoint.is_idle());
        let left = counting::live_bytes() - before;
        assert!(
            left < 400 << 10,
            "{left} bytes of {at_most} are left ({wire:?})"
        );
    }
}

#[test]
fn memory_goes_back_after_a_burst_of_calls() {
    let mut endpoint = endpoint(Wire::Encapsulated);
    let before = counting::live_bytes();
    let now = Instant::from_nanos(1_000_000_000);
    for cookie in 0..100_000 {
        let request = Message::from(vec![1; 100]);
        endpoint
            .send_request(now, stranger(1), 1_500, request, cookie)
            .unwrap();
        drain(&mut endpoint, now);
    }
    settle(&mut endpoint, now);
    assert!(endpoint.is_idle());
    let left = counting::live_bytes() - before;
    assert!(left < 400 << 10, "{left} bytes are left");
}

/// The least time, of several rounds, in which a number of calls begin and end by a report.
#[allow(clippy::disallowed_methods, reason = "it measures what work takes")]
fn cost_of_reports(endpoint: &mut Endpoint, now: Instant) -> Duration {
    let round = |endpoint: &mut Endpoint| {
        let start = std::time::Instant::now();
        for number in 0..50 {
            let peer = stranger(1_000_000 + number);
            let request = Message::from(vec![1; 10]);
            endpoint.send_request(now, peer, 1_500, request, 0).unwrap();
            endpoint.handle_unreachable(&Report {
                peer,
                reason: Unreachable::Port,
                about: None,
            });
            drain(endpoint, now);
        }
        start.elapsed()
    };
    (0..20).map(|_| round(endpoint)).min().unwrap()
}

#[test]
fn a_report_costs_no_more_after_a_burst_than_before() {
    for wire in [Wire::Encapsulated, Wire::Native] {
        let start = Instant::from_nanos(1_000_000_000);
        let fresh = cost_of_reports(&mut endpoint(wire), start);
        let mut flooded = endpoint(wire);
        flood(&mut flooded, start);
        let during = cost_of_reports(&mut flooded, start);
        let now = settle(&mut flooded, start);
        let after = cost_of_reports(&mut flooded, now);
        // A walk over the table would take several hundred times as long. Caches may cost a little.
        assert!(
            during < fresh * 30,
            "{during:?} while others are held, {fresh:?} alone"
        );
        assert!(
            after < fresh * 30,
            "{after:?} after a burst, {fresh:?} before"
        );
    }
}
