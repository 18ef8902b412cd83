//! Clients whose port changes on the way to the server, as a NAT makes it that has forgotten them: nothing is
//! executed twice.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use homa_transport::transport::{Incoming, call};
use homa_transport::{Config, Message, RpcError, Socket, Transport};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How often the port of a client changes.
#[derive(Clone, Copy, Debug)]
enum Changes {
    /// With every packet.
    Always,
    /// With every so many packets.
    Every(usize),
}

/// Carries packets between clients and a server, which sees other ports than the clients have.
struct Nat {
    addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Nat {
    async fn start(server: SocketAddr, changes: Changes) -> Self {
        let inside = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
        let addr = inside.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut outside: HashMap<SocketAddr, (Arc<UdpSocket>, usize)> = HashMap::new();
            // The old ports still lead to the client for a while.
            let mut returns = JoinSet::new();
            let mut buffer = vec![0; 65_536];
            loop {
                let (len, client) = inside.recv_from(&mut buffer).await.unwrap();
                let due = |sent: usize| match changes {
                    Changes::Always => true,
                    Changes::Every(packets) => sent >= packets,
                };
                if outside.get(&client).is_none_or(|(_, sent)| due(*sent)) {
                    let socket = Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap());
                    socket.connect(server).await.unwrap();
                    returns.spawn(carry_back(Arc::clone(&socket), Arc::clone(&inside), client));
                    outside.insert(client, (socket, 0));
                }
                let (socket, sent) = outside.get_mut(&client).unwrap();
                *sent += 1;
                let _refused = socket.send(&buffer[..len]).await;
            }
        });
        Self { addr, task }
    }
}

async fn carry_back(outside: Arc<UdpSocket>, inside: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; 65_536];
    while let Ok(len) = outside.recv(&mut buffer).await {
        let _refused = inside.send_to(&buffer[..len], client).await;
    }
}

/// Answers with `len` bytes, a little later, and counts how often each request came.
fn serve(socket: &Socket, len: usize) -> Arc<Mutex<HashMap<Bytes, usize>>> {
    let deliveries = Arc::new(Mutex::new(HashMap::new()));
    let seen = Arc::clone(&deliveries);
    let answer = move |incoming: Incoming| {
        *seen.lock().unwrap().entry(incoming.message).or_default() += 1;
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            let _ended = incoming.responder.respond(vec![7; len].into());
        });
    };
    socket.serve(Arc::new(answer)).unwrap();
    deliveries
}

fn config(shards: u32) -> Config {
    Config {
        shards,
        ..Config::default()
    }
}

/// Calls by two clients behind one address; how many were answered.
async fn calls(nat: &Nat, calls_each: u32, request_len: usize) -> usize {
    let mut tasks = JoinSet::new();
    for client in 0..2_u32 {
        let socket = Socket::udp_client(Config::default()).unwrap();
        let addr = nat.addr;
        tasks.spawn(async move {
            let mut answered = 0;
            for number in 0..calls_each {
                let mut request = vec![0; request_len];
                request[..4].copy_from_slice(&client.to_be_bytes());
                request[4..8].copy_from_slice(&number.to_be_bytes());
                let socket: Arc<dyn Transport> = Arc::new(socket.clone());
                let outcome = call(socket, addr, Message::from(request)).await;
                match outcome {
                    Ok(_) => answered += 1,
                    Err(RpcError::TimedOut { .. } | RpcError::Forgotten { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            answered
        });
    }
    tasks.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_changes_now_and_then_hurts_no_call_and_runs_none_twice() {
    for shards in [1, 2, 4] {
        for (request, response) in [(100, 100), (100, 30_000), (30_000, 100)] {
            let server = Socket::udp(LOOPBACK, config(shards)).unwrap();
            let deliveries = serve(&server, response);
            let nat = Nat::start(server.local_addr(), Changes::Every(7)).await;
            let answered = calls(&nat, 15, request).await;
            let deliveries = deliveries.lock().unwrap();
            assert_eq!(
                answered, 30,
                "{shards} shards, {request} and {response} bytes"
            );
            assert_eq!(deliveries.len(), 30);
            assert!(
                deliveries.values().all(|times| *times == 1),
                "{deliveries:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_changes_with_every_packet_runs_nothing_twice() {
    for shards in [1, 4] {
        let server = Socket::udp(LOOPBACK, config(shards)).unwrap();
        let deliveries = serve(&server, 100);
        let nat = Nat::start(server.local_addr(), Changes::Always).await;
        let answered = calls(&nat, 20, 3_000).await;
        let deliveries = deliveries.lock().unwrap();
        assert!(
            deliveries.values().all(|times| *times == 1),
            "{deliveries:?}"
        );
        assert!(answered <= deliveries.len());
    }
}
