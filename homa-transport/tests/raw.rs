//! Sockets over raw IP: between network namespaces that the tests make themselves. Needs root; without
//! it each test says that it is skipped.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test binary"
)]

mod netns;
#[path = "raw/packets.rs"]
mod packets;
#[allow(
    dead_code,
    reason = "replay.rs plays the recordings, here they are compared"
)]
#[path = "../protocol/tests/vectors/replay/mod.rs"]
mod recording;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use homa_transport::transport::{Incoming, call};
use homa_transport::{
    Backend, BindError, Config, Delivery, Message, RpcError, Socket, Transport, Unreachable,
};
use tokio::task::JoinSet;

use self::netns::Host;

/// The second host's addresses in [`Host::pair`], with a port.
const SERVERS: [&str; 2] = ["10.0.0.2:4000", "[fd00::2]:4000"];

/// Of hosts that may be slow: nobody gives up while `ip` does its work, or the machine's.
fn patient() -> Config {
    Config {
        timeout: Duration::from_secs(60),
        delivered_memory: Duration::from_secs(60),
        ..Config::default()
    }
}

fn server(host: &Host, addr: &str) -> Socket {
    let addr: SocketAddr = addr.parse().unwrap();
    host.block_on(async move { Socket::raw(addr, patient()).unwrap() })
}

fn client(host: &Host) -> Socket {
    host.block_on(async { Socket::raw_client(patient()).unwrap() })
}

/// Answers every request with its own bytes, reversed.
fn serve_reversed(socket: &Socket) {
    let reverse = |incoming: Incoming| {
        let mut bytes = incoming.message.to_vec();
        bytes.reverse();
        incoming.responder.respond(bytes.into()).unwrap();
    };
    socket.serve(Arc::new(reverse)).unwrap();
}

/// Bytes that differ from place to place and from call to call.
fn pattern(len: usize, call: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len)
        .map(|i| u8::try_from((i * 7 + (i >> 8) * 13 + call) % 251).unwrap())
        .collect();
    let number = call.to_be_bytes();
    let start = len.min(number.len());
    bytes[..start].copy_from_slice(&number[number.len() - start..]);
    bytes
}

fn reversed(bytes: &[u8]) -> Bytes {
    bytes.iter().rev().copied().collect()
}

async fn ask(
    socket: &Socket,
    addr: SocketAddr,
    request: impl Into<Message>,
) -> Result<Bytes, RpcError> {
    call(Arc::new(socket.clone()), addr, request.into()).await
}

/// Makes a call of `len` bytes and checks the answer.
async fn echo(socket: Socket, addr: SocketAddr, len: usize, number: usize) {
    let request = pattern(len, number);
    let response = ask(&socket, addr, request.clone()).await.unwrap();
    assert!(response == reversed(&request), "{addr}, {len} bytes");
}

/// Waits until `done`, however long the machine takes.
async fn eventually(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

// ---- what arrives ----

#[test]
fn loopback_carries_every_size() {
    needs_root!();
    let host = Host::new();
    for (listen, to) in [
        ("127.0.0.1:4000", "127.0.0.1:4000"),
        ("[::1]:4001", "[::1]:4001"),
        ("[::]:4002", "127.0.0.1:4002"),
        ("0.0.0.0:4003", "127.0.0.9:4003"),
    ] {
        let server = server(&host, listen);
        serve_reversed(&server);
        let client = client(&host);
        let to: SocketAddr = to.parse().unwrap();
        for len in [1, 100, 40_000, 40_001, 65_400, 65_500, 999_999, 1_000_000] {
            host.block_on(echo(client.clone(), to, len, len));
        }
        assert_eq!(client.stats().backend, Some(Backend::Raw));
    }
}

#[test]
fn a_network_carries_every_size_at_every_mtu() {
    needs_root!();
    for mtu in [1500, 9000] {
        let [here, there] = Host::pair(u32::try_from(mtu).unwrap());
        let any = server(&there, "[::]:4000");
        serve_reversed(&any);
        let client = client(&here);
        let mut expected = 0;
        for addr in SERVERS.map(|addr| addr.parse::<SocketAddr>().unwrap()) {
            let full = mtu - if addr.is_ipv4() { 76 } else { 96 };
            for len in [1, 100, full, full + 1, 40_000, 40_001, 500_000, 1_000_000] {
                here.block_on(echo(client.clone(), addr, len, len));
                // There is one more cut at the unscheduled limit.
                let unscheduled = len.min(40_000);
                let packets = unscheduled.div_ceil(full) + (len - unscheduled).div_ceil(full);
                expected += u64::try_from(packets).unwrap();
            }
        }
        assert_eq!(client.stats().data_sent, expected, "packets fill the MTU");
        assert_eq!(any.stats().receive_drops, 0);
    }
}

#[test]
fn a_thousand_concurrent_calls_arrive_exactly_once_each() {
    needs_root!();
    for mtu in [1500, 9000] {
        for addr in SERVERS {
            let [here, there] = Host::pair(mtu);
            let server = server(&there, addr);
            let seen = Arc::new(Mutex::new(Vec::new()));
            let requests = Arc::clone(&seen);
            let note = move |incoming: Incoming| {
                let number = incoming.message[..8].try_into().unwrap();
                requests.lock().unwrap().push(u64::from_be_bytes(number));
                let response = reversed(&incoming.message);
                incoming.responder.respond(response.into()).unwrap();
            };
            server.serve(Arc::new(note)).unwrap();
            let client = client(&here);
            let addr: SocketAddr = addr.parse().unwrap();
            here.block_on(async move {
                let mut calls = JoinSet::new();
                for number in 0..1000 {
                    let len = [100, 2_000, 20_000][number % 3];
                    calls.spawn(echo(client.clone(), addr, len, number));
                }
                calls.join_all().await;
            });
            let mut seen = seen.lock().unwrap().clone();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..1000), "{addr}, MTU {mtu}");
        }
    }
}

// ---- ports ----

#[test]
fn sockets_side_by_side_see_only_their_own_packets() {
    needs_root!();
    let host = Host::new();
    let servers =
        ["127.0.0.1:1", "127.0.0.1:2", "0.0.0.0:3", "[::]:4"].map(|addr| server(&host, addr));
    let clients = [client(&host), client(&host)];
    for server in &servers {
        serve_reversed(server);
    }
    for client in &clients {
        for port in 1..=4 {
            let addr = SocketAddr::from(([127, 0, 0, 1], port));
            for len in [50, 200_000] {
                host.block_on(echo(client.clone(), addr, len, len));
            }
        }
    }
    let mut stats = servers.iter().chain(&clients).map(Transport::stats);
    assert!(stats.all(|stats| stats.wrong_port == 0 && stats.receive_drops == 0));
}

#[test]
fn a_port_has_one_socket_whatever_the_address() {
    needs_root!();
    let host = Host::new();
    let first = server(&host, "127.0.0.1:77");
    for addr in ["127.0.0.1:77", "127.0.0.2:77", "0.0.0.0:77", "[::1]:77"] {
        let addr: SocketAddr = addr.parse().unwrap();
        let again = host.block_on(async move { Socket::raw(addr, Config::default()) });
        let error = again.unwrap_err();
        assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
        assert!(error.to_string().contains("77"), "{error}");
    }
    drop(first);
    // The driver lets go of the port when it has seen that.
    let addr = "127.0.0.1:77".parse().unwrap();
    host.block_on(async move {
        while let Err(error) = Socket::raw(addr, Config::default()) {
            assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn servers_get_the_first_free_port_of_the_lower_half_and_clients_one_of_the_upper() {
    needs_root!();
    let host = Host::new();
    let ports = [(); 3].map(|()| server(&host, "127.0.0.1:0"));
    let ports = ports.each_ref().map(|socket| socket.local_addr().port());
    assert_eq!(ports, [1, 2, 3]);
    assert!(client(&host).local_addr().port() >= 32_768);
    let addr = "127.0.0.1:32768".parse().unwrap();
    let error = host.block_on(async move { Socket::raw(addr, Config::default()) });
    let error = error.unwrap_err();
    assert!(matches!(error, BindError::ServerPort { .. }), "{error}");
}

// ---- who cannot be reached ----

/// The error of a call, and what the other calls' errors are not to be.
fn failure(host: &Host, client: &Socket, addr: &str) -> RpcError {
    let (client, addr) = (client.clone(), addr.parse().unwrap());
    host.block_on(async move { ask(&client, addr, pattern(100, 1)).await.unwrap_err() })
}

fn assert_unreachable(error: &RpcError, expected: Unreachable) {
    match error {
        RpcError::Unreachable { reason, .. } => assert_eq!(*reason, expected, "{error}"),
        _ => panic!("{error}"),
    }
}

#[test]
fn a_port_without_a_socket_is_reported_by_the_other_host() {
    needs_root!();
    let [here, there] = Host::pair(1500);
    // Somebody there has raw sockets, so that the system does not answer by itself.
    let _bystander = server(&there, "[::]:1");
    let client = client(&here);
    for addr in SERVERS {
        let error = failure(&here, &client, addr);
        assert_unreachable(&error, Unreachable::Port);
    }
}

#[test]
fn a_port_without_a_socket_of_this_host_is_reported_too() {
    needs_root!();
    let host = Host::new();
    let client = client(&host);
    for addr in ["127.0.0.1:5", "[::1]:5"] {
        let error = failure(&host, &client, addr);
        assert_unreachable(&error, Unreachable::Port);
    }
}

#[test]
fn a_server_that_closes_ends_the_calls_that_wait_for_it_and_no_others() {
    needs_root!();
    let [here, there] = Host::pair(1500);
    let closing = server(&there, "10.0.0.2:10");
    let staying = server(&there, "10.0.0.2:11");
    let (held, mut holding) = tokio::sync::mpsc::channel(1);
    // The request is kept unanswered by the test.
    let hold = move |incoming: Incoming| held.try_send(incoming).unwrap();
    closing.serve(Arc::new(hold)).unwrap();
    serve_reversed(&staying);
    let client = client(&here);
    let waiting = here.spawn({
        let client = client.clone();
        async move { ask(&client, "10.0.0.2:10".parse().unwrap(), pattern(100, 1)).await }
    });
    let request = here.block_on(async move { holding.recv().await.unwrap() });
    closing.close();
    drop((closing, request));
    let error = here.block_on(waiting).unwrap().unwrap_err();
    assert_unreachable(&error, Unreachable::Port);
    assert_eq!(error.delivery(), Delivery::Unknown, "the server had it");
    let addr = "10.0.0.2:11".parse().unwrap();
    here.block_on(echo(client, addr, 1000, 1));
}

#[test]
fn a_host_without_homa_is_reported_as_such() {
    needs_root!();
    let [here, _there] = Host::pair(1500);
    let client = client(&here);
    for addr in SERVERS {
        let error = failure(&here, &client, addr);
        assert_unreachable(&error, Unreachable::Protocol);
    }
}

#[test]
fn a_host_that_a_router_cannot_reach_is_reported() {
    needs_root!();
    let [here, router] = Host::pair(1500);
    router.ip("route add unreachable 10.1.0.2");
    router.ip("-6 route add unreachable fd01::2 dev lo");
    router.forward_packets();
    here.ip("route add 10.1.0.0/24 via 10.0.0.2");
    here.ip("-6 route add fd01::/64 via fd00::2");
    let client = client(&here);
    for (addr, expected) in [
        ("10.1.0.2:1", Unreachable::Host),
        ("[fd01::2]:1", Unreachable::Network),
    ] {
        assert_unreachable(&failure(&here, &client, addr), expected);
    }
}

#[test]
fn errors_about_others_packets_fail_no_call() {
    needs_root!();
    let [here, there] = Host::pair(1500);
    let good = server(&there, "10.0.0.2:4000");
    serve_reversed(&good);
    let (unlucky, lucky) = (client(&here), client(&here));
    let addr: SocketAddr = "10.0.0.2:4000".parse().unwrap();
    here.block_on(async move {
        for round in 0..50 {
            let bad = SocketAddr::from(([10, 0, 0, 2], 5_000));
            // Every raw socket of this host hears of the errors that these calls meet.
            let failing = ask(&unlucky, bad, pattern(100, round)).await;
            assert_unreachable(&failing.unwrap_err(), Unreachable::Port);
            echo(lucky.clone(), addr, 3_000, round).await;
            echo(unlucky.clone(), addr, 3_000, round).await;
        }
    });
}

#[test]
fn a_network_without_a_route_is_reported() {
    needs_root!();
    let host = Host::new();
    let client = client(&host);
    for addr in ["192.0.2.1:1", "[2001:db8::1]:1"] {
        let error = failure(&host, &client, addr);
        assert_unreachable(&error, Unreachable::Network);
    }
    let v4_only = server(&host, "127.0.0.1:0");
    let error = failure(&host, &v4_only, "[::1]:1");
    assert_unreachable(&error, Unreachable::Network);
}

// ---- networks that change ----

#[test]
fn packets_grow_when_the_way_has_become_wider() {
    needs_root!();
    let [here, there] = Host::pair(1500);
    let server = server(&there, "[::]:4000");
    serve_reversed(&server);
    let client = client(&here);
    for addr in SERVERS {
        let addr: SocketAddr = addr.parse().unwrap();
        for host in [&here, &there] {
            host.ip("link set eth mtu 1500");
        }
        here.block_on(echo(client.clone(), addr, 8_000, 1));
        for host in [&here, &there] {
            host.ip("link set eth mtu 9000");
        }
        let (client, before) = (client.clone(), client.stats().data_sent);
        here.block_on(async move {
            let mut before = before;
            loop {
                echo(client.clone(), addr, 8_000, 2).await;
                let sent = client.stats().data_sent;
                if sent - before == 1 {
                    break;
                }
                before = sent;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
}

#[test]
fn an_interface_that_goes_away_fails_calls_and_keeps_nobody_busy() {
    needs_root!();
    let [here, there] = Host::pair(1500);
    let server = server(&there, "10.0.0.2:4000");
    serve_reversed(&server);
    let client = client(&here);
    let addr: SocketAddr = "10.0.0.2:4000".parse().unwrap();
    here.block_on(echo(client.clone(), addr, 1000, 1));
    here.ip("link del eth");
    let error = failure(&here, &client, "10.0.0.2:4000");
    assert_unreachable(&error, Unreachable::Network);
    // Sooner or later there is a pause in which it asks the system for nothing, unlike a busy loop.
    let idle = client.clone();
    here.block_on(async move {
        let receives = || idle.stats().receive_system_calls;
        let mut before = None;
        while before != Some(receives()) {
            before = Some(receives());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(client.closed(), None, "another interface may come");
}

#[test]
fn a_message_cut_for_a_wide_way_arrives_when_the_way_has_become_narrow() {
    needs_root!();
    for addr in SERVERS {
        let [here, there] = Host::pair(9000);
        let server = server(&there, "[::]:4000");
        let client = client(&here);
        let addr: SocketAddr = addr.parse().unwrap();
        let calling = client.clone();
        // Nobody takes requests yet: all packets that go now are lost.
        let call = here.spawn(echo(calling, addr, 300_000, 1));
        here.block_on({
            let server = server.clone();
            async move { eventually(|| server.stats().requests_unserved > 0).await }
        });
        let full = here.block_on({
            let client = client.clone();
            async move { client.stats().data_sent }
        });
        assert!(full <= 6, "packets were cut to 9000 bytes: {full}");
        for host in [&here, &there] {
            host.ip("link set eth mtu 1500");
        }
        serve_reversed(&server);
        here.block_on(call).unwrap();
        here.block_on(echo(client.clone(), addr, 300_000, 2));
    }
}

#[test]
fn a_router_that_says_packet_too_big_is_heeded() {
    needs_root!();
    let [here, router] = Host::pair(9000);
    let far = Host::new();
    let id = far.block_on(async { netns::thread_id() });
    router.ip(&format!("link add far type veth peer name eth netns {id}"));
    router.ip("link set far mtu 1400 up");
    router.ip("addr add 10.1.0.1/24 dev far");
    router.ip("addr add fd01::1/64 dev far nodad");
    far.ip("link set eth mtu 1400 up");
    far.ip("addr add 10.1.0.2/24 dev eth");
    far.ip("addr add fd01::2/64 dev eth nodad");
    far.ip("route add default via 10.1.0.1");
    far.ip("-6 route add default via fd01::1");
    here.ip("route add 10.1.0.0/24 via 10.0.0.2");
    here.ip("-6 route add fd01::/64 via fd00::2");
    router.forward_packets();
    router.wait_for("far");
    far.wait_for("eth");
    let server = server(&far, "[::]:4000");
    serve_reversed(&server);
    let client = client(&here);
    for addr in ["10.1.0.2:4000", "[fd01::2]:4000"] {
        let addr: SocketAddr = addr.parse().unwrap();
        for call in 0..3 {
            here.block_on(echo(client.clone(), addr, 200_000, call));
        }
    }
    let stats = client.stats();
    assert!(
        stats.data_resent > 0,
        "the first packets were too big: {stats:?}"
    );
}

#[test]
fn a_way_too_narrow_for_a_header_is_a_typed_error() {
    needs_root!();
    let [here, there] = Host::pair(1500);
    let server = server(&there, "10.0.0.2:4000");
    serve_reversed(&server);
    let client = client(&here);
    here.ip("link set eth mtu 68");
    let error = failure(&here, &client, "10.0.0.2:4000");
    assert_unreachable(&error, Unreachable::PathTooNarrow);
}

// ---- rights, and the end ----

#[test]
fn without_the_right_to_raw_sockets_the_error_says_what_to_do() {
    needs_root!();
    let refused = std::thread::spawn(|| {
        netns::sys::give_up_raw_sockets().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        Socket::raw_client(Config::default()).unwrap_err()
    });
    let error = refused.join().unwrap();
    assert!(
        matches!(error, BindError::RawNotPermitted { .. }),
        "{error}"
    );
    let text = error.to_string();
    for remedy in ["setcap cap_net_raw+ep", "kernel module", "homa+udp"] {
        assert!(text.contains(remedy), "{text}");
    }
}

#[test]
fn a_socket_that_closes_sends_the_acks_it_owes() {
    needs_root!();
    let [here, there] = Host::pair(1500);
    // A server that would ask for them later than the test lasts.
    let config = Config {
        need_ack_delay: Duration::from_secs(3600),
        ..patient()
    };
    let addr: SocketAddr = "10.0.0.2:4000".parse().unwrap();
    let server = there.block_on(async move { Socket::raw(addr, config).unwrap() });
    serve_reversed(&server);
    let client = client(&here);
    for call in 0..3 {
        here.block_on(echo(client.clone(), addr, 100, call));
    }
    assert!(server.stats().rpcs_live > 0);
    drop(client);
    there.block_on({
        let server = server.clone();
        async move { eventually(|| server.stats().rpcs_live == 0).await }
    });
    assert_eq!(server.stats().need_acks_sent, 0);
}
