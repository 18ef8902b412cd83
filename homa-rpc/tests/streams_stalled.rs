//! A thousand clients that open a message of several frames and stop, on a simulated network in tokio's paused
//! time: memory is bounded, short calls beside them take no longer, and nothing is left after ten seconds.
//!
//! What is counted is the heap of the whole process, so there is one test here.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod counting;
#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use homa_rpc::Server;
use homa_transport::sim::{PacketFaults, SimNetwork, Topology};
use homa_transport::{Config, Message, RpcError, Socket, Transport, Wire, transport};
use streaming::{Closures, Item, StreamsClient};
use support::frames::{self, FRAGMENT, MESSAGE, Raw, RawReply, SINGLE};
use support::run;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const METHODS: [&[u8]; 3] = [
    b"/test.streams.Streams/Say",
    b"/test.streams.Streams/Record",
    b"/test.streams.Streams/Chat",
];

/// Hosts that the clients are on, and clients on each, which share a socket there: what a socket needs would be
/// counted.
const HOSTS: usize = 50;
const CLIENTS_EACH: usize = 20;
/// Bytes of the first piece, about what a client may send before it has heard anything.
const PIECE: usize = 65_000;
/// Length of the message that it begins, as announced.
const TOTAL: u32 = 4 << 20;
/// What the server may hold of requests, in bytes.
const LIMIT: usize = 16 << 20;
/// What else there may be: calls, RPCs, and packets on their way.
const OTHER_BYTES: u64 = 24 << 20;
/// The stalled calls end after this time.
const GONE_AFTER: Duration = Duration::from_secs(11);

fn open(network: &SimNetwork, host: usize, port: u16) -> Arc<dyn Transport> {
    let link = network.host(host, port).unwrap();
    Arc::new(Socket::over(Arc::new(link), Wire::Encapsulated, Config::default()).unwrap())
}

/// The first frame of a long message in a call `call_id`. All pieces are the same bytes in memory.
fn first_frame(call_id: u64, path: &'static [u8], piece: &Bytes) -> Message {
    let mut head = Raw {
        flags: MESSAGE | FRAGMENT | if path.ends_with(b"Say") { SINGLE } else { 0 },
        total_len: TOTAL,
        ..Raw::open(call_id, path, 1 << 16)
    }
    .bytes();
    // The length of the message is the last field of the header.
    head[60..64].copy_from_slice(&u32::try_from(piece.len()).unwrap().to_be_bytes());
    let mut frame = Message::from(head);
    frame.push(piece.clone());
    frame
}

/// Times of short calls, one every 2 ms; the greatest but one in a hundred.
async fn p99(client: &StreamsClient, calls: usize) -> Duration {
    let mut tasks = JoinSet::new();
    for _ in 0..calls {
        let client = client.clone();
        tasks.spawn(async move {
            let begun = Instant::now();
            client.say(Item::long(100)).await.unwrap();
            begun.elapsed()
        });
        sleep(Duration::from_millis(2)).await;
    }
    let mut times = tasks.join_all().await;
    times.sort();
    times[times.len() * 99 / 100]
}

/// A socket on each host.
fn sockets(network: &SimNetwork) -> Vec<Arc<dyn Transport>> {
    (0..HOSTS)
        .map(|host| open(network, 2 + host, 5_000))
        .collect()
}

/// Opens the calls, of these methods in turn.
fn stall(
    sockets: &[Arc<dyn Transport>],
    server: SocketAddr,
    paths: &[&'static [u8]],
) -> JoinSet<Result<Bytes, RpcError>> {
    let piece = Bytes::from(vec![7; PIECE]);
    let mut calls = JoinSet::new();
    for number in 0..HOSTS * CLIENTS_EACH {
        let socket = &sockets[number % HOSTS];
        let frame = first_frame(number as u64 + 1, paths[number % paths.len()], &piece);
        calls.spawn(transport::call(Arc::clone(socket), server, frame));
    }
    calls
}

#[tokio::test(start_paused = true)]
async fn a_thousand_messages_that_stop_cost_bounded_memory_and_ten_seconds() {
    let faults = PacketFaults::default();
    let topology = Topology::single_switch(2 + HOSTS, 10_000);
    let network = SimNetwork::new(topology, faults, 5).unwrap();
    let builder = Server::builder().request_bytes_limit(LIMIT);
    let builder = builder.add_service(Closures::default().server());
    let running = run(
        builder,
        (open(&network, 0, 4_000), open(&network, 1, 4_000)),
    );
    let client = StreamsClient::new(running.channel.clone());
    let before = p99(&client, 500).await;
    let sockets = sockets(&network);
    let server = running.server.local_addr();
    // The same packets to a method that is not there: what the network keeps for so many is not counted.
    let refused = stall(&sockets, server, &[b"/test.streams.Streams/None"]);
    drop(refused.join_all().await);
    sleep(Duration::from_secs(20)).await;
    let held = counting::held();

    let begun = Instant::now();
    let mut stalled = stall(&sockets, server, &METHODS);
    let during = p99(&client, 2_000).await;
    let grown = counting::held().saturating_sub(held);
    println!(
        "stats {:?} {:?}",
        running.monitor.stats(),
        running.server.stats()
    );
    println!("short calls: P99 {before:?} before, {during:?} during; {grown} bytes more are held");
    assert!(during <= 2 * before, "{before:?} before, {during:?} during");
    assert!(grown <= LIMIT as u64 + OTHER_BYTES, "{grown} bytes");
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "they are still there"
    );
    assert!(running.monitor.stats().calls_in_progress > 100);

    // A client that goes on is served.
    let item = Item::long(3_000_000);
    let reply = client.say(item.clone()).await.unwrap();
    assert!(reply.into_inner() == item);

    while running.monitor.stats().calls_in_progress > 0 {
        assert!(
            begun.elapsed() < GONE_AFTER,
            "{:?}",
            running.monitor.stats()
        );
        sleep(Duration::from_millis(10)).await;
    }
    while let Some(reply) = stalled.join_next().await {
        // Each was told how much more it may send, and never came back.
        let reply = RawReply::read(&reply.unwrap().unwrap());
        assert_eq!(
            (reply.code, reply.has(frames::END)),
            (0, false),
            "{reply:?}"
        );
    }
    sleep(Duration::from_secs(20)).await;
    let left = counting::held().saturating_sub(held);
    println!("{left} bytes more are held at the end");
    assert!(left < 4 << 20, "{left} bytes");
}
