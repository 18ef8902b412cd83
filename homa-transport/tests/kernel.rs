//! Sockets of the Linux Homa module, within this machine. Skipped where the module is not loaded.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod conformance;

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use homa_transport::kernel::KernelError;
use homa_transport::transport::{Incoming, call};
use homa_transport::{
    BindError, CloseReason, Config, Delivery, KernelSocket, Message, Responder, RpcError,
    Transport, Unreachable,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Runs `test` if there is a module to run it with.
fn with_module<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    if let Err(error) = KernelSocket::probe() {
        eprintln!("skipped, without the Linux Homa module: {error}");
        return;
    }
    runtime().block_on(test());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn server(config: Config) -> (KernelSocket, SocketAddr) {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let socket = KernelSocket::bind(any, config).unwrap();
    let port = socket.local_addr().port();
    (socket, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn client() -> Arc<dyn Transport> {
    Arc::new(KernelSocket::client(Config::default()).unwrap())
}

fn serve(socket: &KernelSocket, sink: impl Fn(Incoming) + Send + Sync + 'static) {
    socket.serve(Arc::new(sink)).unwrap();
}

async fn ask(
    client: &Arc<dyn Transport>,
    server: SocketAddr,
    request: impl Into<Message>,
) -> Result<Bytes, RpcError> {
    call(Arc::clone(client), server, request.into()).await
}

/// Waits until `done`, however long the machine takes.
async fn eventually(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn the_conformance_suite_passes_over_every_family_of_addresses() {
    with_module(|| async {
        let (socket, v4) = server(Config::default());
        serve(&socket, conformance::echo);
        let mut servers = vec![v4];
        if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            servers.push(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), v4.port()));
        } else {
            eprintln!("without IPv6: this machine has no [::1]");
        }
        for server in servers {
            let client = client();
            conformance::refusals(&client, server).unwrap();
            conformance::sizes(&client, server).await.unwrap();
            conformance::slices(&client, server).await.unwrap();
            conformance::concurrent(&client, server, 1_000)
                .await
                .unwrap();
            conformance::given_up(&client, server).await.unwrap();
        }
    });
}

#[test]
fn answers_and_requests_that_are_kept_do_not_stop_others() {
    with_module(|| async {
        let small = Config {
            inbound_bytes_max: 8 << 20,
            ..Config::default()
        };
        let kept = Mutex::new(Vec::new());
        let (socket, addr) = server(small.clone());
        serve(&socket, move |incoming| {
            kept.lock().unwrap().push(incoming.message.clone());
            conformance::echo(incoming);
        });
        let client: Arc<dyn Transport> = Arc::new(KernelSocket::client(small).unwrap());
        conformance::kept(&client, addr, 24 << 20).await.unwrap();
    });
}

#[test]
fn requests_wait_until_the_socket_serves() {
    with_module(|| async {
        let (socket, addr) = server(Config::default());
        let client = client();
        let mut waiting = Box::pin(ask(&client, addr, vec![7; 100_000]));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
        assert!(early.is_err(), "{early:?}");
        serve(&socket, conformance::echo);
        assert_eq!(waiting.await.unwrap(), vec![7; 100_000]);
    });
}

#[test]
fn a_request_that_there_is_no_room_for_comes_again_and_runs_once() {
    with_module(|| async {
        let config = Config {
            rpcs_max: 2,
            ..Config::default()
        };
        let (socket, addr) = server(config);
        let open: Arc<Mutex<Vec<(Bytes, Responder)>>> = Arc::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let (sink_open, sink_runs) = (Arc::clone(&open), Arc::clone(&runs));
        serve(&socket, move |incoming| {
            sink_runs.fetch_add(1, Ordering::Relaxed);
            let held = (incoming.message, incoming.responder);
            sink_open.lock().unwrap().push(held);
        });
        let client = client();
        let mut calls = JoinSet::new();
        for i in 0..10u8 {
            let client = Arc::clone(&client);
            calls.spawn(async move { (i, ask(&client, addr, vec![i; 100]).await) });
        }
        eventually(|| socket.stats().requests_refused > 0).await;
        while !calls.is_empty() {
            let next = open.lock().unwrap().pop();
            if let Some((message, responder)) = next {
                responder.respond(message.into()).unwrap();
                let (i, response) = calls.join_next().await.unwrap().unwrap();
                assert_eq!(response.unwrap(), vec![i; 100]);
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(runs.load(Ordering::Relaxed), 10);
    });
}

#[test]
fn messages_that_the_module_has_no_memory_for_are_sent_when_it_has() {
    with_module(|| async {
        let limit = std::fs::read_to_string("/proc/sys/net/homa/wmem_max").unwrap_or_default();
        let limit = limit.trim().parse().unwrap_or(100_000_000usize);
        if limit > 200_000_000 {
            eprintln!("skipped: net.homa.wmem_max is {limit}, this would take too much memory");
            return;
        }
        let (socket, addr) = server(Config::default());
        let client = client();
        let message = Bytes::from(conformance::pattern(1_000_000, 3));
        let mut calls = JoinSet::new();
        for _ in 0..limit / message.len() * 3 / 2 {
            let (client, message) = (Arc::clone(&client), message.clone());
            calls.spawn(async move { ask(&client, addr, message).await.map(|r| r.len()) });
        }
        let all = u64::try_from(calls.len()).unwrap();
        // More attempts to send than messages: some had to wait.
        eventually(|| client.stats().send_system_calls > all).await;
        serve(&socket, |incoming| {
            let _ = incoming.responder.respond(vec![1].into());
        });
        while let Some(result) = calls.join_next().await {
            assert_eq!(result.unwrap(), Ok(1));
        }
    });
}

#[test]
fn a_call_to_a_port_without_a_server_fails_as_unreachable() {
    with_module(|| async {
        let (socket, addr) = server(Config::default());
        drop(socket);
        let error = ask(&client(), addr, vec![1; 10]).await.unwrap_err();
        assert_eq!(
            error,
            RpcError::Unreachable {
                peer: addr,
                reason: Unreachable::Port,
                delivery: Delivery::Unknown,
            }
        );
    });
}

#[test]
fn a_port_that_is_taken_or_not_a_servers_is_refused_by_name() {
    with_module(|| async {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let bind = |port| KernelSocket::bind(any(port), Config::default());
        let free = |port: &u16| bind(*port).ok();
        let first = (20_000..21_000).find_map(|port| free(&port)).unwrap();
        let port = first.local_addr().port();
        let error = bind(port).unwrap_err();
        assert!(matches!(error, BindError::AddressInUse { addr } if addr == any(port)));
        drop(first);
        assert_eq!(bind(port).unwrap().local_addr(), any(port));
        let error = bind(40_000).unwrap_err().to_string();
        assert!(error.contains("servers have 1 to 32767"), "{error}");
    });
}

#[test]
fn a_call_in_progress_fails_when_its_server_closes_and_when_its_own_socket_does() {
    with_module(|| async {
        for server_closes in [true, false] {
            let (socket, addr) = server(Config::default());
            let arrived = Arc::new(Notify::new());
            let held = Mutex::new(Vec::new());
            let notify = Arc::clone(&arrived);
            serve(&socket, move |incoming| {
                held.lock().unwrap().push(incoming);
                notify.notify_one();
            });
            let client = client();
            let in_progress = tokio::spawn({
                let client = Arc::clone(&client);
                async move { ask(&client, addr, vec![1; 10]).await }
            });
            arrived.notified().await;
            if server_closes {
                Transport::close(&socket);
            } else {
                client.close();
            }
            let error = in_progress.await.unwrap().unwrap_err();
            assert_eq!(error.delivery(), Delivery::Unknown, "{error}");
            let closed = matches!(error, RpcError::Closed { .. });
            assert_eq!(closed, !server_closes, "{error}");
            if !server_closes {
                let error = ask(&client, addr, vec![1]).await.unwrap_err();
                assert_eq!(error.delivery(), Delivery::NotSent);
                let reason = poll_fn(|cx| client.poll_closed(cx)).await;
                assert_eq!(reason, CloseReason::Closed);
            }
        }
    });
}

#[test]
fn what_is_held_is_given_up_when_calls_are_over() {
    with_module(|| async {
        let (socket, addr) = server(Config::default());
        serve(&socket, conformance::echo);
        let client = client();
        conformance::concurrent(&client, addr, 100).await.unwrap();
        conformance::given_up(&client, addr).await.unwrap();
        eventually(|| client.stats().rpcs_live == 0).await;
        eventually(|| socket.stats().rpcs_live == 0).await;
    });
}

#[test]
fn a_call_that_is_given_up_is_forgotten_by_the_module_too() {
    with_module(|| async {
        let (socket, addr) = server(Config::default());
        let arrived = Arc::new(Notify::new());
        let held = Mutex::new(Vec::new());
        let notify = Arc::clone(&arrived);
        serve(&socket, move |incoming| {
            held.lock().unwrap().push(incoming);
            notify.notify_one();
        });
        let client = client();
        let mut pending = Box::pin(ask(&client, addr, vec![1; 10]));
        tokio::select! {
            ended = &mut pending => panic!("{ended:?}"),
            () = arrived.notified() => {}
        }
        assert_eq!(client.stats().rpcs_live, 1);
        drop(pending);
        assert_eq!(client.stats().rpcs_live, 0);
        assert_eq!(client.stats().rpcs_cancelled, 1);
    });
}

#[test]
fn a_handler_learns_of_the_end_of_its_socket() {
    with_module(|| async {
        let (socket, addr) = server(Config::default());
        let gone = Arc::new(Notify::new());
        let notify = Arc::clone(&gone);
        serve(&socket, move |incoming| {
            let notify = Arc::clone(&notify);
            tokio::spawn(async move {
                let mut polled = false;
                poll_fn(|cx| {
                    let cancelled = incoming.responder.poll_cancelled(cx);
                    if !std::mem::replace(&mut polled, true) {
                        assert_eq!(cancelled, Poll::Pending);
                        notify.notify_one();
                    }
                    cancelled
                })
                .await;
                let late = incoming.responder.respond(vec![1].into());
                assert!(late.is_err());
                notify.notify_one();
            });
        });
        let client = client();
        let pending = call(Arc::clone(&client), addr, vec![1].into());
        let pending = tokio::spawn(pending);
        gone.notified().await;
        Transport::close(&socket);
        gone.notified().await;
        assert!(pending.await.unwrap().is_err());
    });
}

#[test]
fn a_socket_on_a_loopback_address_does_not_serve_the_network() {
    with_module(|| async {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let socket = KernelSocket::bind(addr, Config::default()).unwrap();
        serve(&socket, conformance::echo);
        let client = client();
        let served = ask(&client, socket.local_addr(), vec![5; 10]).await;
        assert_eq!(served.unwrap(), vec![5; 10]);
        let Some(own) = own_address() else {
            eprintln!("skipped in part: this machine has no other address");
            return;
        };
        // Requests to an address of this host come from it, too.
        let foreign = SocketAddr::new(own, socket.local_addr().port());
        let unserved = ask(&client, foreign, vec![5; 10]);
        let pause = Duration::from_millis(200);
        let result = tokio::time::timeout(pause, unserved).await;
        assert!(!matches!(result, Ok(Ok(_))), "{result:?}");
        assert_eq!(socket.stats().requests_received, 1);
    });
}

/// An address of this host that is not a loopback address.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Sends nothing: it chooses a route.
    let routes = ["10.99.0.1:9", "192.0.2.1:9"];
    routes.iter().find_map(|to| {
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
    })
}

#[test]
fn calls_on_a_socket_whose_runtime_is_gone_fail_with_a_typed_error() {
    let first = runtime();
    let socket = {
        let _inside = first.enter();
        match KernelSocket::probe() {
            Ok(()) => KernelSocket::client(Config::default()).unwrap(),
            Err(error) => {
                eprintln!("skipped, without the Linux Homa module: {error}");
                return;
            }
        }
    };
    drop(first);
    let client: Arc<dyn Transport> = Arc::new(socket);
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 4000));
    let error = runtime()
        .block_on(ask(&client, server, vec![1]))
        .unwrap_err();
    assert_eq!(
        error,
        RpcError::Closed {
            reason: CloseReason::RuntimeGone,
            delivery: Delivery::NotSent,
        }
    );
}

#[test]
fn without_the_module_a_socket_is_refused_by_name() {
    let Err(error) = KernelSocket::probe() else {
        eprintln!("skipped: the Linux Homa module is there");
        return;
    };
    assert!(error.to_string().contains("Linux Homa module"), "{error}");
    if Path::new("/proc/modules").exists() {
        eprintln!("skipped in part: opening a socket could load the module here");
        return;
    }
    runtime().block_on(async {
        let error = KernelSocket::client(Config::default()).unwrap_err();
        assert!(
            matches!(error, BindError::Kernel(KernelError::NotLoaded)),
            "{error}"
        );
    });
}
