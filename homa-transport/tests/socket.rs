//! Sockets over the UDP and in-process links: what an application sees.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use homa_transport::transport::{Incoming, call};
use homa_transport::{
    BindError, CloseReason, Config, Delivery, Message, RpcError, Socket, Transport, Unreachable,
};

const MULTI: usize = 2;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(MULTI)
        .enable_all()
        .build()
        .unwrap()
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// Answers every request with its own bytes, reversed.
fn serve_reversed(socket: &Socket) {
    socket.serve(Arc::new(reverse)).unwrap();
}

fn reverse(incoming: Incoming) {
    tokio::spawn(async move {
        let mut bytes = incoming.message.to_vec();
        bytes.reverse();
        let _ = incoming.responder.respond(bytes.into());
    });
}

fn reversed(bytes: &[u8]) -> Bytes {
    bytes.iter().rev().copied().collect()
}

struct Wire {
    server: Socket,
    client: Socket,
    addr: SocketAddr,
}

/// A server and a client on every wire, each ready to use.
fn wires() -> Vec<(&'static str, Wire)> {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let config = Config::default;
    let v4 = Socket::udp(loopback(), config()).unwrap();
    let v6 = Socket::udp(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), config()).unwrap();
    let name = format!("socket-test-{}", NAMES.fetch_add(1, Ordering::Relaxed));
    let mem = Socket::mem_listen(&name, config()).unwrap();
    let (v4_addr, v6_addr) = (v4.local_addr(), v6.local_addr());
    let mem_addr = Socket::mem_resolve(&name).unwrap();
    let udp = || Socket::udp_client(config()).unwrap();
    vec![
        (
            "udp v4",
            Wire {
                server: v4,
                client: udp(),
                addr: v4_addr,
            },
        ),
        (
            "udp v6",
            Wire {
                server: v6,
                client: udp(),
                addr: v6_addr,
            },
        ),
        (
            "mem",
            Wire {
                server: mem,
                client: Socket::mem_client(config()).unwrap(),
                addr: mem_addr,
            },
        ),
    ]
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

#[test]
fn every_size_is_echoed_exactly_on_every_wire() {
    runtime().block_on(async {
        for (name, wire) in wires() {
            serve_reversed(&wire.server);
            for len in [1, 100, 1_424, 1_425, 40_000, 40_001, 999_999, 1_000_000] {
                let request = pattern(len);
                let response = ask(&wire.client, wire.addr, request.clone()).await.unwrap();
                assert_eq!(response, reversed(&request), "{name}, {len} bytes");
            }
            let stats = wire.server.stats();
            assert_eq!(
                (stats.requests_received, stats.responses_sent),
                (8, 8),
                "{name}"
            );
        }
    });
}

#[test]
fn a_message_that_is_too_long_is_refused_before_anything_is_sent() {
    runtime().block_on(async {
        for (name, wire) in wires() {
            serve_reversed(&wire.server);
            let error = ask(&wire.client, wire.addr, vec![0; 1_000_001])
                .await
                .unwrap_err();
            assert_eq!(
                error,
                RpcError::MessageTooLong {
                    len: 1_000_001,
                    max: 1_000_000
                }
            );
            assert_eq!(error.delivery(), Delivery::NotSent);
            let empty = ask(&wire.client, wire.addr, Message::new())
                .await
                .unwrap_err();
            assert_eq!(empty, RpcError::EmptyMessage);
            assert_eq!(wire.client.stats().packets_sent, 0, "{name}");
        }
    });
}

#[test]
fn a_thousand_concurrent_calls_all_answer() {
    runtime().block_on(async {
        for (name, wire) in wires() {
            serve_reversed(&wire.server);
            let calls: Vec<_> = (0..1000_usize)
                .map(|i| {
                    let (client, addr) = (wire.client.clone(), wire.addr);
                    tokio::spawn(async move {
                        let request = pattern(1 + i * 17 % 5_000);
                        let response = ask(&client, addr, request.clone()).await;
                        assert_eq!(response, Ok(reversed(&request)));
                    })
                })
                .collect();
            for call in calls {
                call.await.unwrap();
            }
            assert_eq!(wire.server.stats().requests_received, 1000, "{name}");
        }
    });
}

#[test]
fn sequential_calls_leave_the_tables_empty() {
    runtime().block_on(async {
        for (name, wire) in wires() {
            serve_reversed(&wire.server);
            let rounds = if name == "mem" { 50_000 } else { 25_000 };
            for _ in 0..rounds {
                ask(&wire.client, wire.addr, vec![1; 32]).await.unwrap();
            }
            assert_eq!(wire.client.stats().rpcs_live, 0, "{name}");
            eventually(|| wire.server.stats().rpcs_live == 0).await;
            assert_eq!(wire.server.stats().requests_received, rounds, "{name}");
            let woken = wire.client.stats().waiters_woken;
            assert!(
                woken <= rounds,
                "{name}: {woken} wake-ups, at most one per call"
            );
        }
    });
}

#[test]
fn a_dead_server_fails_its_calls_at_once_and_nobody_elses() {
    runtime().block_on(async {
        for (name, wire) in wires() {
            if name == "mem" {
                continue;
            }
            serve_reversed(&wire.server);
            let dead = Socket::udp(loopback(), Config::default())
                .unwrap()
                .local_addr();
            for _ in 0..20 {
                let (failed, answered) = tokio::join!(
                    ask(&wire.client, dead, vec![1; 100]),
                    ask(&wire.client, wire.addr, vec![1; 100])
                );
                let error = failed.unwrap_err();
                assert!(
                    matches!(
                        error,
                        RpcError::Unreachable {
                            reason: Unreachable::Port,
                            ..
                        }
                    ),
                    "{name}: {error}"
                );
                assert!(error.to_string().contains(&dead.to_string()), "{error}");
                answered.unwrap();
            }
        }
    });
}

#[test]
fn a_server_on_a_taken_port_is_refused_by_the_ports_name() {
    runtime().block_on(async {
        let first = Socket::udp(loopback(), Config::default()).unwrap();
        let addr = first.local_addr();
        let error = Socket::udp(addr, Config::default()).unwrap_err();
        assert!(matches!(error, BindError::AddressInUse { .. }), "{error:?}");
        assert!(
            error.to_string().contains(&addr.port().to_string()),
            "{error}"
        );
        drop(first);
        eventually(|| Socket::udp(addr, Config::default()).is_ok()).await;
    });
}

#[test]
fn dropping_a_call_cancels_the_request_at_the_server() {
    runtime().block_on(async {
        for (name, wire) in wires() {
            let cancelled = Arc::new(AtomicUsize::new(0));
            let arrived = Arc::new(AtomicUsize::new(0));
            let counters = (Arc::clone(&arrived), Arc::clone(&cancelled));
            wire.server
                .serve(Arc::new(move |incoming: Incoming| {
                    let (arrived, cancelled) = counters.clone();
                    tokio::spawn(async move {
                        arrived.fetch_add(1, Ordering::Relaxed);
                        std::future::poll_fn(|cx| incoming.responder.poll_cancelled(cx)).await;
                        cancelled.fetch_add(1, Ordering::Relaxed);
                    });
                }))
                .unwrap();
            let call = tokio::spawn({
                let (client, addr) = (wire.client.clone(), wire.addr);
                async move { ask(&client, addr, vec![1; 10]).await }
            });
            eventually(|| arrived.load(Ordering::Relaxed) == 1).await;
            call.abort();
            eventually(|| cancelled.load(Ordering::Relaxed) == 1).await;
            assert_eq!(wire.server.stats().rpcs_cancelled_by_client, 1, "{name}");
        }
    });
}

#[test]
fn a_handler_that_blocks_its_thread_fails_no_concurrent_call() {
    runtime().block_on(async {
        for (name, wire) in wires() {
            wire.server
                .serve(Arc::new(|incoming: Incoming| {
                    tokio::spawn(async move {
                        if incoming.message.len() == 1 {
                            block_thread(Duration::from_millis(300));
                        }
                        let _ = incoming.responder.respond(vec![9].into());
                    });
                }))
                .unwrap();
            let (client, addr) = (wire.client.clone(), wire.addr);
            let blocking = tokio::spawn({
                let client = client.clone();
                async move { ask(&client, addr, vec![0]).await }
            });
            let others: Vec<_> = (0..200)
                .map(|_| {
                    let client = client.clone();
                    tokio::spawn(async move { ask(&client, addr, vec![0; 2]).await })
                })
                .collect();
            for other in others {
                assert!(other.await.unwrap().is_ok(), "{name}");
            }
            assert!(blocking.await.unwrap().is_ok(), "{name}");
        }
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test is about a handler that does this"
)]
fn block_thread(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn calls_on_a_socket_whose_runtime_is_gone_fail_with_a_typed_error() {
    for (name, socket, addr) in {
        let owner = runtime();
        let _inside = owner.enter();
        let parts: Vec<_> = wires()
            .into_iter()
            .map(|(n, wire)| (n, wire.client, wire.addr))
            .collect();
        drop(_inside);
        drop(owner);
        parts
    } {
        let error = runtime().block_on(ask(&socket, addr, vec![1])).unwrap_err();
        let expected = RpcError::Closed {
            reason: CloseReason::RuntimeGone,
            delivery: Delivery::NotSent,
        };
        assert_eq!(error, expected, "{name}");
    }
}

#[test]
fn a_call_in_progress_fails_when_the_runtime_of_its_socket_goes() {
    let (owner, user) = (runtime(), runtime());
    let wire = owner.block_on(async { wires().remove(0).1 });
    wire.server
        .serve(Arc::new(|incoming: Incoming| std::mem::forget(incoming)))
        .unwrap();
    let (client, addr) = (wire.client.clone(), wire.addr);
    let waiting = user.spawn(async move { ask(&client, addr, vec![1]).await });
    user.block_on(eventually(|| wire.server.stats().requests_received == 1));
    drop(owner);
    let error = user.block_on(waiting).unwrap().unwrap_err();
    let expected = RpcError::Closed {
        reason: CloseReason::RuntimeGone,
        delivery: Delivery::Unknown,
    };
    assert_eq!(error, expected);
}

#[test]
fn a_closed_socket_refuses_and_its_peers_are_not_left_waiting() {
    runtime().block_on(async {
        for (name, wire) in wires() {
            serve_reversed(&wire.server);
            ask(&wire.client, wire.addr, vec![1]).await.unwrap();
            wire.client.close();
            let error = ask(&wire.client, wire.addr, vec![1]).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    RpcError::Closed {
                        reason: CloseReason::Closed,
                        ..
                    }
                ),
                "{name}"
            );
            eventually(|| wire.server.stats().rpcs_live == 0).await;
        }
    });
}

/// Bytes whose owner looks at the socket when it is dropped.
struct Owner(Vec<u8>, Socket);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.1.stats();
    }
}

#[test]
fn messages_whose_owner_uses_the_socket_in_its_drop_do_no_harm() {
    runtime().block_on(async {
        for (name, wire) in wires() {
            let server = wire.server.clone();
            wire.server
                .serve(Arc::new(move |incoming: Incoming| {
                    let response = Owner(vec![7; 20_000], server.clone());
                    let _ = incoming
                        .responder
                        .respond(Bytes::from_owner(response).into());
                }))
                .unwrap();
            for len in [10, 100_000, 1_000_001] {
                let request = Bytes::from_owner(Owner(vec![1; len], wire.client.clone()));
                let response = ask(&wire.client, wire.addr, request).await;
                assert_eq!(response.is_ok(), len < 1_000_001, "{name}");
            }
            let nowhere = SocketAddr::new(wire.addr.ip(), 0);
            let request = Bytes::from_owner(Owner(vec![1; 10], wire.client.clone()));
            let refused = ask(&wire.client, nowhere, request).await;
            assert!(
                matches!(refused, Err(RpcError::BadAddress { .. })),
                "{name}"
            );
            wire.client.close();
            let request = Bytes::from_owner(Owner(vec![1; 10], wire.client.clone()));
            assert!(ask(&wire.client, wire.addr, request).await.is_err());
            eventually(|| wire.server.stats().rpcs_live == 0).await;
            wire.server.close();
        }
    });
}

#[test]
fn opening_a_socket_outside_a_runtime_is_a_typed_error() {
    assert!(matches!(
        Socket::udp(loopback(), Config::default()),
        Err(BindError::NoRuntime)
    ));
    assert!(matches!(
        Socket::mem_client(Config::default()),
        Err(BindError::NoRuntime)
    ));
}

#[test]
fn noise_thrown_at_a_serving_port_is_counted_and_hurts_no_call() {
    runtime().block_on(async {
        let (_, wire) = wires().remove(0);
        serve_reversed(&wire.server);
        let noise = std::net::UdpSocket::bind(loopback()).unwrap();
        let good = good_packet();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..200_usize {
            for _ in 0..50 {
                let mut packet = match random() % 3 {
                    0 => (0..random() % 200)
                        .map(|_| random().to_le_bytes()[0])
                        .collect(),
                    1 => good[..usize::try_from(random()).unwrap() % good.len()].to_vec(),
                    _ => good.clone(),
                };
                if !packet.is_empty() {
                    let bit = usize::try_from(random()).unwrap() % (packet.len() * 8);
                    packet[bit / 8] ^= 1 << (bit % 8);
                }
                noise.send_to(&packet, wire.addr).unwrap();
            }
            let request = pattern(1 + round * 37);
            assert_eq!(
                ask(&wire.client, wire.addr, request.clone()).await,
                Ok(reversed(&request))
            );
        }
        let stats = wire.server.stats();
        assert!(stats.malformed_truncated > 0, "{stats:?}");
        assert!(stats.malformed_type > 0, "{stats:?}");
        assert!(stats.malformed_field > 0, "{stats:?}");
    });
}

/// A DATA packet that makes up a whole request.
fn good_packet() -> Vec<u8> {
    use homa_transport::units::RpcId;
    use homa_transport::wire::{Data, Header, Packet, emit};
    let header = Header {
        source_port: 7,
        destination_port: 8,
        sender_id: RpcId::new(0x7000),
    };
    let data = Data {
        message_length: 100,
        incoming: 100,
        ack: None,
        cutoff_version: 1,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset: 0,
    };
    let mut packet = emit(&header, &Packet::Data(data, &[])).as_slice().to_vec();
    packet.extend_from_slice(&[5; 100]);
    packet
}

#[test]
fn a_server_that_panics_in_a_handler_lives_on() {
    runtime().block_on(async {
        let (_, wire) = wires().remove(0);
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        wire.server
            .serve(Arc::new(move |incoming: Incoming| {
                let first = count.fetch_add(1, Ordering::Relaxed) == 0;
                tokio::spawn(async move {
                    assert!(!first, "the first handler fails");
                    let _ = incoming.responder.respond(vec![1].into());
                });
            }))
            .unwrap();
        let mut lost = Box::pin(ask(&wire.client, wire.addr, vec![1]));
        std::future::poll_fn(|cx| {
            assert!(lost.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        eventually(|| seen.load(Ordering::Relaxed) == 1).await;
        assert!(ask(&wire.client, wire.addr, vec![1]).await.is_ok());
        drop(lost);
    });
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_advances_beside_a_socket_that_polls() {
    let config = Config {
        busy_poll: Duration::from_millis(100),
        ..Config::default()
    };
    let _socket = Socket::udp(loopback(), config).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_socket_that_polls_lets_other_tasks_go_first() {
    let config = Config {
        busy_poll: Duration::from_millis(100),
        ..Config::default()
    };
    let _socket = Socket::udp(loopback(), config).unwrap();
    // On one thread this ends only if polling gives way, and long before it is given up.
    for _ in 0..100_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_succeed_with_and_without_busy_polling() {
    for busy_poll in [Duration::ZERO, Duration::from_micros(100)] {
        let config = Config {
            busy_poll,
            ..Config::default()
        };
        let server = Socket::udp(loopback(), config.clone()).unwrap();
        serve_reversed(&server);
        let client = Socket::udp(loopback(), config).unwrap();
        for len in 1..50 {
            let request = pattern(len);
            let reply = call(
                Arc::new(client.clone()),
                server.local_addr(),
                request.clone().into(),
            );
            let reply = reply.await;
            assert_eq!(reply.unwrap(), reversed(&request));
        }
    }
}

#[tokio::test]
async fn many_small_calls_at_once_share_system_calls() {
    let server = Socket::udp(loopback(), Config::default()).unwrap();
    serve_reversed(&server);
    let client = Socket::udp(loopback(), Config::default()).unwrap();
    let addr = server.local_addr();
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                for call_index in 0..20 {
                    // Of different lengths, so that they have to be padded.
                    let request = pattern(80 + (caller + call_index) % 40);
                    let reply = call(Arc::new(client.clone()), addr, request.clone().into()).await;
                    assert_eq!(reply.unwrap(), reversed(&request));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let (client, server) = (client.stats(), server.stats());
    for (end, mean) in [
        ("client sends", client.packets_per_send()),
        ("server sends", server.packets_per_send()),
        ("client receives", client.packets_per_receive()),
        ("server receives", server.packets_per_receive()),
    ] {
        assert!(mean > 3.0, "{end} {mean} packets per system call");
    }
}

#[tokio::test]
async fn a_call_knows_whether_its_peer_was_heard_since_it_began() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Socket::udp(loopback(), Config::default()).unwrap();
    let (taken, mut requests) = tokio::sync::mpsc::channel::<Incoming>(4);
    let sink = move |incoming| drop(taken.try_send(incoming));
    server.serve(Arc::new(sink)).unwrap();
    let client = Socket::udp_client(Config::default()).unwrap();
    let begin = |addr| {
        let request = b"question"[..].into();
        let mut call = call(Arc::new(client.clone()), addr, request);
        assert_eq!(call.peer_heard(), None, "not begun");
        let poll = std::pin::Pin::new(&mut call)
            .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(poll.is_pending());
        call
    };
    let unheard = begin(silent.local_addr().unwrap());
    let held = begin(server.local_addr());
    let request = requests.recv().await.unwrap();
    // The server answers the question how the call is, though its handler is not done.
    eventually(|| held.peer_heard() == Some(true)).await;
    assert_eq!(unheard.peer_heard(), Some(false));
    let second = begin(server.local_addr());
    request.responder.respond(b"answer"[..].into()).unwrap();
    // A sign of life of the peer, whichever call it is about.
    eventually(|| second.peer_heard() == Some(true)).await;
    eventually(|| client.stats().responses_received > 0).await;
    assert_eq!(
        held.peer_heard(),
        Some(true),
        "answered, and not looked at yet"
    );
}
