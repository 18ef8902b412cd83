//! Sockets of several shards: what an application sees.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use homa_transport::endpoint::{Event, LinkBudget, RpcKey};
use homa_transport::transport::{Incoming, Responder, call, pinned};
use homa_transport::units::Instant;
use homa_transport::{
    BindError, CloseReason, Config, Endpoint, Message, RpcError, Socket, Stats, Transport, Wire,
};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn config(shards: u32) -> Config {
    Config {
        shards,
        ..Config::default()
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn server(addr: SocketAddr, shards: u32) -> Socket {
    Socket::udp(addr, config(shards)).unwrap()
}

fn client(shards: u32) -> Socket {
    Socket::udp_client(config(shards)).unwrap()
}

/// Answers every request with its own bytes, and counts how often each came.
fn serve_echo(socket: &Socket) -> Arc<Mutex<HashMap<Bytes, usize>>> {
    let deliveries = Arc::new(Mutex::new(HashMap::new()));
    let seen = Arc::clone(&deliveries);
    let echo = move |incoming: Incoming| {
        *seen
            .lock()
            .unwrap()
            .entry(incoming.message.clone())
            .or_default() += 1;
        let _ = incoming.responder.respond(incoming.message.into());
    };
    socket.serve(Arc::new(echo)).unwrap();
    deliveries
}

async fn ask(
    socket: &Socket,
    addr: SocketAddr,
    request: impl Into<Message>,
) -> Result<Bytes, RpcError> {
    call(Arc::new(socket.clone()), addr, request.into()).await
}

/// Waits until `done`, however long the machine takes.
async fn eventually(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn counts(socket: &Socket, counter: impl Fn(Stats) -> u64) -> Vec<u64> {
    socket.stats_by_shard().into_iter().map(counter).collect()
}

/// Makes calls from ever more threads, until every shard of `client` has made one.
fn call_from_all_shards(runtime: &Runtime, client: &Socket, mut one: impl AsyncFnMut() + Send) {
    loop {
        let mut run = || runtime.block_on(one());
        std::thread::scope(|scope| scope.spawn(&mut run).join().unwrap());
        if !counts(client, |stats| stats.requests_sent).contains(&0) {
            return;
        }
    }
}

#[test]
fn calls_reach_all_shards_of_both_ends_and_are_answered_once_each() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let server = server(loopback(), 3);
    let deliveries = serve_echo(&server);
    let mut sent = 0_u64;
    while counts(&server, |stats| stats.requests_received).contains(&0) {
        let client = client(3);
        call_from_all_shards(&runtime, &client, async || {
            for len in [10, 5_000, 200_000] {
                let mut request = vec![7; len];
                request[..8].copy_from_slice(&sent.to_be_bytes());
                sent += 1;
                let response = ask(&client, server.local_addr(), request.clone()).await;
                assert_eq!(response.unwrap(), request);
            }
        });
        let stats = client.stats();
        assert_eq!(stats.responses_received, stats.requests_sent);
    }
    let deliveries = deliveries.lock().unwrap();
    assert_eq!(deliveries.len() as u64, sent);
    assert!(deliveries.values().all(|count| *count == 1));
    assert_eq!(server.stats().requests_received, sent);
}

#[test]
fn the_shards_of_one_client_call_all_shards_of_a_server() {
    let runtime = runtime();
    let _inside = runtime.enter();
    for _ in 0..5 {
        let server = server(loopback(), 2);
        serve_echo(&server);
        let client = client(2);
        call_from_all_shards(&runtime, &client, async || {
            let answer = ask(&client, server.local_addr(), b"?".as_slice()).await;
            answer.unwrap();
        });
        let received = counts(&server, |stats| stats.requests_received);
        assert!(!received.contains(&0), "{received:?}");
    }
}

#[test]
fn what_a_client_sends_comes_to_one_shard_over_ipv4_and_ipv6() {
    runtime().block_on(async {
        let shards = 5;
        let any = server(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), shards);
        let port = any.local_addr().port();
        let servers = [
            (server(loopback(), shards), None),
            (
                server(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), shards),
                None,
            ),
            (any.clone(), Some(IpAddr::from(Ipv4Addr::LOCALHOST))),
            (any, Some(IpAddr::from(Ipv6Addr::LOCALHOST))),
        ];
        for (server, ip) in servers {
            serve_echo(&server);
            let addr = ip.map_or(server.local_addr(), |ip| SocketAddr::new(ip, port));
            for _ in 0..8 {
                let client = client(1);
                let before = counts(&server, |stats| stats.packets_received);
                for len in [1, 1_400, 3_000, 300_000] {
                    let request = vec![3; len];
                    assert_eq!(ask(&client, addr, request.clone()).await.unwrap(), request);
                }
                client.close();
                let after = counts(&server, |stats| stats.packets_received);
                let grown = before
                    .iter()
                    .zip(&after)
                    .filter(|(before, after)| after > before);
                assert_eq!(grown.count(), 1, "{addr}: {before:?}, {after:?}");
                // The acks owed have come before the next client counts.
                eventually(|| server.stats().rpcs_live == 0).await;
            }
        }
    });
}

#[test]
fn a_pinned_handle_calls_by_one_port_from_whatever_thread() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let server = server(loopback(), 3);
    let ports = Arc::new(Mutex::new(HashMap::<u16, usize>::new()));
    let seen = Arc::clone(&ports);
    let note = move |incoming: Incoming| {
        *seen
            .lock()
            .unwrap()
            .entry(incoming.peer.port())
            .or_default() += 1;
        let _ = incoming.responder.respond(incoming.message.into());
    };
    server.serve(Arc::new(note)).unwrap();
    let client: Arc<dyn Transport> = Arc::new(client(4));
    let addr = server.local_addr();
    let handle = pinned(&client, addr);
    // The handle of a handle is the same, and one shard needs none.
    assert!(handle.pin(addr).is_none());
    assert!(self::client(1).pin(addr).is_none());
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..10 {
                    let one = call(Arc::clone(&handle), addr, b"x".as_slice().into());
                    runtime.block_on(one).unwrap();
                }
            });
        }
    });
    let of_handle = ports.lock().unwrap().clone();
    assert_eq!(of_handle.into_values().collect::<Vec<_>>(), [80]);
    // It keeps the socket open.
    drop(client);
    let one = call(handle, addr, b"x".as_slice().into());
    runtime.block_on(one).unwrap();
    assert_eq!(ports.lock().unwrap().len(), 1);
}

#[test]
fn a_server_of_several_shards_calls_too() {
    runtime().block_on(async {
        let caller = server(loopback(), 4);
        for _ in 0..8 {
            let server = server(loopback(), 1);
            serve_echo(&server);
            for len in [1, 100_000] {
                let request = vec![9; len];
                let response = ask(&caller, server.local_addr(), request.clone()).await;
                assert_eq!(response.unwrap(), request);
            }
        }
        // The system tells whichever shard it likes that nobody is there.
        for _ in 0..16 {
            let nobody = std::net::UdpSocket::bind(loopback()).unwrap();
            let addr = nobody.local_addr().unwrap();
            drop(nobody);
            let error = ask(&caller, addr, b"?".as_slice()).await.unwrap_err();
            assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
        }
    });
}

#[test]
fn calls_that_are_given_up_end_at_the_shard_that_serves_them() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let server = server(loopback(), 2);
    let held: Arc<Mutex<Vec<Responder>>> = Arc::default();
    let hold = Arc::clone(&held);
    let sink = move |incoming: Incoming| hold.lock().unwrap().push(incoming.responder);
    server.serve(Arc::new(sink)).unwrap();
    let client = client(2);
    let mut keys = Vec::new();
    call_from_all_shards(&runtime, &client, async || {
        let message = Message::from(b"wait".to_vec());
        keys.push(client.start_call(server.local_addr(), message).unwrap());
    });
    runtime.block_on(eventually(|| held.lock().unwrap().len() == keys.len()));
    for key in &keys {
        client.cancel(*key);
    }
    let cancelled = || server.stats().rpcs_cancelled_by_client == keys.len() as u64;
    runtime.block_on(eventually(cancelled));
    for responder in held.lock().unwrap().drain(..) {
        let (error, _responder) = responder.respond(b"late".to_vec().into()).unwrap_err();
        assert_eq!(error, RpcError::Stale);
    }
}

#[test]
fn a_port_with_several_shards_is_refused_to_others() {
    runtime().block_on(async {
        let held = server(loopback(), 2);
        let addr = held.local_addr();
        for shards in [1, 2, 3] {
            let error = Socket::udp(addr, config(shards)).unwrap_err();
            assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
        }
        // And its refusals have not disturbed it.
        serve_echo(&held);
        for _ in 0..4 {
            ask(&client(1), addr, b"?".as_slice()).await.unwrap();
        }
        drop(held);
        let mut again = Socket::udp(addr, config(2));
        while again.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            again = Socket::udp(addr, config(2));
        }
    });
}

/// The port that the test below gives to a process of its own.
const PORT_OF_ANOTHER: &str = "HOMA_TEST_PORT_OF_ANOTHER";

#[test]
fn a_port_with_several_shards_is_refused_to_a_second_process() {
    runtime().block_on(async {
        if let Ok(addr) = std::env::var(PORT_OF_ANOTHER) {
            for shards in [1, 2] {
                let error = Socket::udp(addr.parse().unwrap(), config(shards)).unwrap_err();
                assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
            }
            return;
        }
        let held = server(loopback(), 2);
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_port_with_several_shards_is_refused_to_a_second_process",
            ])
            .env(PORT_OF_ANOTHER, held.local_addr().to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    });
}

#[test]
fn a_port_that_others_share_is_not_joined() {
    runtime().block_on(async {
        let domain = socket2::Domain::IPV4;
        let other = socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
        other.set_reuse_port(true).unwrap();
        other.bind(&loopback().into()).unwrap();
        let addr = other.local_addr().unwrap().as_socket().unwrap();
        let error = Socket::udp(addr, config(2)).unwrap_err();
        assert!(matches!(error, BindError::AddressInUse { .. }), "{error}");
    });
}

#[test]
fn closing_ends_the_calls_of_all_shards() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let server = server(loopback(), 2);
    server.serve(Arc::new(std::mem::forget)).unwrap();
    let client = client(2);
    let mut calls = Vec::new();
    call_from_all_shards(&runtime, &client, async || {
        let socket = Arc::new(client.clone());
        let call = call(socket, server.local_addr(), b"?".as_slice().into());
        let mut call = Box::pin(call);
        assert!(poll_once(&mut call).is_pending());
        calls.push(call);
    });
    client.close();
    client.close();
    for call in calls {
        let error = runtime.block_on(call).unwrap_err();
        let reason = CloseReason::Closed;
        assert!(
            matches!(&error, RpcError::Closed { reason: r, .. } if *r == reason),
            "{error}"
        );
    }
    assert_eq!(client.closed(), Some(CloseReason::Closed));
    call_is_refused(&runtime, &client, server.local_addr(), &CloseReason::Closed);
}

#[test]
fn the_shards_of_a_runtime_that_is_gone_are_closed() {
    let home = runtime();
    let (server, client) = {
        let _inside = home.enter();
        (server(loopback(), 2), client(2))
    };
    home.shutdown_timeout(Duration::from_secs(60));
    let runtime = runtime();
    let reason = CloseReason::RuntimeGone;
    call_is_refused(&runtime, &client, server.local_addr(), &reason);
    assert_eq!(server.closed(), Some(reason));
}

/// Calls from so many threads that every shard would have to make one.
fn call_is_refused(runtime: &Runtime, socket: &Socket, addr: SocketAddr, reason: &CloseReason) {
    for _ in 0..8 {
        let one = || runtime.block_on(ask(socket, addr, b"?".as_slice()));
        let result = std::thread::scope(|scope| scope.spawn(one).join().unwrap());
        let error = result.unwrap_err();
        assert!(
            matches!(&error, RpcError::Closed { reason: r, .. } if r == reason),
            "{error}"
        );
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut cx)
}

#[test]
fn a_number_of_shards_out_of_range_is_refused() {
    runtime().block_on(async {
        for shards in [0, 65] {
            for result in [
                Socket::udp(loopback(), config(shards)),
                Socket::udp_client(config(shards)),
            ] {
                let error = result.unwrap_err();
                assert!(matches!(error, BindError::Config(_)), "{error}");
                assert!(error.to_string().contains("`shards`"), "{error}");
            }
        }
    });
}

/// Two servers on one host, each with the client that sends to it. Packets arrive at once.
struct Host {
    pairs: [(Endpoint, Endpoint); 2],
    now: Instant,
    max_incoming: u64,
}

impl Host {
    fn new(max_incoming_bytes: u32, window_bytes: u32) -> Self {
        let config = Config {
            max_incoming_bytes,
            window_bytes,
            // All that is on its way then was granted.
            unscheduled_bytes: 1,
            grant_fifo_permille: 0,
            ..Config::default()
        };
        let budget = Arc::new(LinkBudget::new(2, max_incoming_bytes));
        let pairs = [1, 2].map(|port| {
            let endpoint = |seed| Endpoint::new(config.clone(), Wire::Encapsulated, port, seed);
            let (client, mut server) = (endpoint(7).unwrap(), endpoint(8).unwrap());
            server.share_link(&budget);
            server.set_serving(true);
            (client, server)
        });
        Self {
            pairs,
            now: Instant::from_nanos(1_000_000_000),
            max_incoming: u64::from(max_incoming_bytes),
        }
    }

    fn addr(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], port))
    }

    fn send(&mut self, pair: usize, len: usize) -> RpcKey {
        let port = u16::try_from(pair).unwrap() + 1;
        let to = Self::addr(2, port);
        let client = &mut self.pairs[pair].0;
        let message = Message::from(vec![1; len]);
        client
            .send_request(self.now, to, 1_500, message, 0)
            .unwrap()
    }

    fn incoming(&self) -> u64 {
        self.pairs
            .iter()
            .map(|(_, server)| server.incoming_bytes())
            .sum()
    }

    /// Moves one packet of a client to its server, if there is one.
    fn carry_one(&mut self, pair: usize) -> bool {
        let port = u16::try_from(pair).unwrap() + 1;
        let (client, server) = &mut self.pairs[pair];
        let Some(packet) = client.poll_transmit(self.now) else {
            return false;
        };
        let to = packet.to.ip();
        server.handle_packet(self.now, Self::addr(1, port), to, &packet.to_vec());
        true
    }

    /// Moves all packets of a server to its client.
    fn carry_back(&mut self, pair: usize) {
        let port = u16::try_from(pair).unwrap() + 1;
        loop {
            let (client, server) = &mut self.pairs[pair];
            let Some(packet) = server.poll_transmit(self.now) else {
                return;
            };
            let to = packet.to.ip();
            client.handle_packet(self.now, Self::addr(2, port), to, &packet.to_vec());
            // Those that come first go beyond the ceiling.
            let incoming = self.incoming();
            assert!(incoming <= 2 * self.max_incoming, "{incoming}");
        }
    }

    fn received(&mut self, pair: usize) -> usize {
        let events = std::iter::from_fn(|| self.pairs[pair].1.poll_event());
        events
            .filter(|event| matches!(event, Event::Request { .. }))
            .count()
    }
}

#[test]
fn two_endpoints_never_grant_more_than_twice_what_they_share() {
    let mut host = Host::new(200_000, 0);
    for (pair, len) in [
        (0, 900_000),
        (1, 300_000),
        (0, 500_000),
        (1, 1_000_000),
        (0, 90_000),
    ] {
        host.send(pair, len);
    }
    let mut received = [0, 0];
    let mut highest = 0;
    while received != [3, 2] {
        let mut moved = false;
        for pair in [0, 1] {
            // At different speeds, so that one has more on its way than the other.
            for _ in 0..=2 * pair {
                moved |= host.carry_one(pair);
            }
            host.carry_back(pair);
            highest = highest.max(host.incoming());
            received[pair] += host.received(pair);
        }
        if !moved {
            host.now = host.now + Duration::from_millis(1);
        }
    }
    assert!(highest > 150_000, "most of it is used: {highest}");
    assert_eq!(host.incoming(), 0);
}

#[test]
fn an_endpoint_gets_its_part_while_the_other_has_all_that_it_can_get() {
    let mut host = Host::new(200_000, 0);
    host.send(0, 1_000_000);
    host.send(0, 1_000_000);
    // Both are granted to, and their data does not come.
    for _ in 0..2 {
        host.carry_one(0);
    }
    host.carry_back(0);
    let greedy = host.incoming();
    assert!(greedy >= 80_000, "{greedy}");
    host.send(1, 400_000);
    let mut rounds = 0..4_000;
    while host.received(1) == 0 {
        rounds.next().expect("it comes through");
        host.carry_one(1);
        host.carry_back(1);
        host.now = host.now + Duration::from_micros(1);
    }
    assert_eq!(host.incoming(), greedy);
}

#[test]
fn an_endpoint_that_wanted_more_asks_again_by_itself() {
    let mut host = Host::new(200_000, 150_000);
    let first_call = host.send(0, 1_000_000);
    host.carry_one(0);
    host.carry_back(0);
    for _ in 0..2 {
        host.send(1, 1_000_000);
        host.carry_one(1);
    }
    host.carry_back(1);
    let (first, all) = (host.pairs[0].1.incoming_bytes(), host.incoming());
    // The second one's first message goes beyond the ceiling; the other has to wait.
    assert_eq!((first, all), (150_000, 300_000));
    // The first one's message is given up, which nobody tells the second.
    host.pairs[0].0.abort(host.now, first_call);
    while host.carry_one(0) {}
    assert_eq!(host.pairs[0].1.incoming_bytes(), 0);
    host.pairs[1].1.handle_timeout(host.now);
    let due = host.pairs[1].1.poll_timeout().unwrap();
    assert!(due > host.now && due <= host.now + Duration::from_millis(1));
    let before = host.incoming();
    host.now = due;
    host.carry_back(1);
    assert!(
        host.incoming() > before,
        "{} after {before}",
        host.incoming()
    );
}
