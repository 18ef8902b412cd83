//! When a port is free again: as soon as its socket is closed or dropped, on every wire and runtime, whoever
//! still holds handles or requests of it.
#![allow(clippy::unwrap_used, reason = "a test binary")]

#[allow(dead_code, reason = "one host is all that is needed")]
mod netns;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use homa_transport::transport::{Incoming, call};
use homa_transport::{BindError, Config, RpcError, Socket, Transport};
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 30;

/// The tests of this file run one at a time: a process that one of them starts holds copies of all sockets for
/// a moment, until it executes its program.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtimes() -> [Runtime; 2] {
    let mut many = Builder::new_multi_thread();
    let builders = [&mut Builder::new_current_thread(), many.worker_threads(2)];
    builders.map(|builder| builder.enable_all().build().unwrap())
}

/// A way to open a server's socket again and again, at the place of the first.
type Open = Box<dyn Fn() -> Result<Socket, BindError> + Send + Sync>;

/// A port that nobody gets by chance while it is free for a moment: not an ephemeral one, and the address is
/// that of the test alone.
fn udp(test: u8, shards: u32) -> Open {
    let addr = SocketAddr::from(([127, 77, 0, test], 20_077));
    let config = move || Config {
        shards,
        ..Config::default()
    };
    Box::new(move || Socket::udp(addr, config()))
}

fn mem(name: String) -> Open {
    Box::new(move || Socket::mem_listen(&name, Config::default()))
}

/// Ports and names that this test alone uses.
fn places(runtime: &str) -> [(&'static str, Open); 3] {
    [
        ("udp", udp(1, 1)),
        ("udp, 3 shards", udp(1, 3)),
        ("mem", mem(format!("rebind-{runtime}"))),
    ]
}

async fn closed_and_dropped_sockets_free_their_place(place: &str, open: &Open) {
    for round in 0..ROUNDS {
        let socket = open().unwrap_or_else(|error| panic!("{place}, round {round}: {error}"));
        let kept = socket.clone();
        socket.close();
        let again = open().unwrap_or_else(|error| panic!("{place}, closed {round}: {error}"));
        drop(again);
        assert!(kept.closed().is_some());
        // Of one that is closed, what does not need the link still works.
        assert_eq!(kept.local_addr(), socket.local_addr());
        let refused = call(Arc::new(kept.clone()), kept.local_addr(), b"x"[..].into()).await;
        assert!(
            matches!(refused, Err(RpcError::Closed { .. })),
            "{refused:?}"
        );
    }
}

async fn a_request_that_is_still_held_keeps_nothing(place: &str, open: &Open, client: Socket) {
    for round in 0..ROUNDS {
        let socket = open().unwrap_or_else(|error| panic!("{place}, round {round}: {error}"));
        let addr = socket.local_addr();
        let (taken, mut requests) = tokio::sync::mpsc::channel::<Incoming>(4);
        let sink = move |incoming| drop(taken.try_send(incoming));
        socket.serve(Arc::new(sink)).unwrap();
        let asked = tokio::spawn(call(Arc::new(client.clone()), addr, b"x"[..].into()));
        let held = requests.recv().await.unwrap();
        drop(socket);
        // At once: without giving the driver, or anyone else on this thread, a turn.
        drop(open().unwrap_or_else(|error| panic!("{place}, held {round}: {error}")));
        let (error, _responder) = held.responder.respond(b"y"[..].into()).unwrap_err();
        assert!(matches!(error, RpcError::Closed { .. }), "{error}");
        asked.abort();
    }
}

#[test]
fn a_place_is_free_when_its_socket_is_closed_or_dropped() {
    let _alone = alone();
    for (runtime, name) in runtimes().iter().zip(["current", "multi"]) {
        runtime.block_on(async {
            for (place, open) in &places(name) {
                closed_and_dropped_sockets_free_their_place(place, open).await;
                let client = if *place == "mem" {
                    Socket::mem_client(Config::default())
                } else {
                    Socket::udp_client(Config::default())
                };
                a_request_that_is_still_held_keeps_nothing(place, open, client.unwrap()).await;
            }
        });
    }
}

#[test]
fn ports_of_protocol_146_are_free_at_once_too() {
    needs_root!();
    let _alone = alone();
    let host = netns::Host::new();
    host.block_on(async {
        for shards in [1, 2] {
            let open: Open = Box::new(move || {
                let config = Config {
                    shards,
                    ..Config::default()
                };
                Socket::raw(SocketAddr::from(([127, 0, 0, 1], 4000)), config)
            });
            closed_and_dropped_sockets_free_their_place("raw", &open).await;
            let client = Socket::raw_client(Config::default()).unwrap();
            a_request_that_is_still_held_keeps_nothing("raw", &open, client).await;
        }
    });
}

#[test]
fn who_waits_for_the_end_finds_the_port_free() {
    let _alone = alone();
    for runtime in runtimes() {
        runtime.block_on(async {
            for shards in [1, 3] {
                let open = udp(2, shards);
                let socket = Arc::new(Mutex::new(open().unwrap()));
                for round in 0..ROUNDS {
                    let waiting = socket.lock().unwrap().clone();
                    let closing = waiting.clone();
                    let close = tokio::spawn(async move { closing.close() });
                    std::future::poll_fn(|cx| waiting.poll_closed(cx)).await;
                    let again = open().unwrap_or_else(|error| panic!("{round}: {error}"));
                    *socket.lock().unwrap() = again;
                    close.await.unwrap();
                }
            }
        });
    }
}

#[test]
fn counters_outlive_the_link() {
    let _alone = alone();
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let server = Socket::udp(SocketAddr::from(([127, 0, 0, 1], 0)), Config::default()).unwrap();
        let echo = |incoming: Incoming| {
            incoming.responder.respond(incoming.message.into()).unwrap();
        };
        server.serve(Arc::new(echo)).unwrap();
        let client = Socket::udp_client(Config::default()).unwrap();
        let asked = call(Arc::new(client), server.local_addr(), b"x"[..].into());
        asked.await.unwrap();
        let before = server.stats();
        assert!(before.receive_system_calls > 0);
        server.close();
        let after = server.stats();
        assert_eq!(after.backend, before.backend);
        assert!(after.receive_system_calls >= before.receive_system_calls);
        assert!(after.send_system_calls >= before.send_system_calls);
    });
}
