//! Servers and channels by URI: real sockets, opened by the crate.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use homa_rpc::{Channel, ChannelError, Code, Delivery, Request, Response};
use homa_rpc::{Server, ServerError, UriError};
use support::{EchoClient, EchoServer, Handle, Msg, echo, handler};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Serves at these URIs and returns those it listens on.
fn serve(
    service: EchoServer<Handle>,
    uris: &[&str],
) -> (Vec<String>, JoinHandle<Result<(), ServerError>>) {
    let (first, more) = uris.split_first().unwrap();
    let mut bound = Server::builder().add_service(service).bind(first).unwrap();
    for uri in more {
        bound = bound.bind(uri).unwrap();
    }
    (bound.local_uris(), tokio::spawn(bound.serve()))
}

fn client(uri: &str) -> EchoClient {
    EchoClient::new(Channel::new(uri).unwrap())
}

fn mem_name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!(
        "homa+mem://sockets-{}",
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Answers with the client's address.
fn who() -> EchoServer<Handle> {
    handler(async |request: Request<Msg>| {
        let peer = request.remote_addr().unwrap();
        Ok(Response::new(Msg::of(&peer.to_string())))
    })
}

#[tokio::test]
async fn a_server_listens_on_several_wires_at_once() {
    let name = mem_name();
    let mut wanted = vec!["homa+udp://127.0.0.1:0", "homa+udp://[::1]:0", &name];
    match Server::builder().bind("homa://127.0.0.1:0") {
        Ok(_closed) => wanted.push("homa://127.0.0.1:0"),
        Err(error) => eprintln!("SKIPPED for homa://: {error}"),
    }
    let (uris, _task) = serve(echo(), &wanted);
    assert_eq!(uris.len(), wanted.len());
    assert_eq!(uris[2], name);
    for uri in &uris {
        assert!(!uri.ends_with(":0"), "{uri}");
        let reply = client(uri).say(Msg::of(uri)).await.unwrap();
        assert_eq!(reply.get_ref().text(), uri);
    }
}

#[tokio::test]
async fn a_server_whose_socket_fails_ends_with_an_error_that_says_so() {
    let config = homa_transport::Config::default();
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = homa_transport::Socket::udp(addr, config).unwrap();
    let bound = Server::builder().add_service(echo());
    let bound = bound.bind("homa+udp://127.0.0.1:0").unwrap();
    let task = tokio::spawn(
        bound
            .bind_socket(std::sync::Arc::new(socket.clone()))
            .serve(),
    );
    tokio::task::yield_now().await;
    homa_transport::Transport::close(&socket);
    let error = task.await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot take requests: the socket is closed"
    );
}

#[tokio::test]
async fn a_reply_for_which_there_is_no_room_becomes_a_status_that_says_so() {
    let config = homa_transport::Config {
        outbound_bytes_max: 2_000_000,
        ..homa_transport::Config::default()
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = homa_transport::Socket::udp(addr, config).unwrap();
    let uri = format!(
        "homa+udp://{}",
        homa_transport::Transport::local_addr(&socket)
    );
    // Replies of 900,000 bytes: two fit, and more only once those are acknowledged.
    let big = handler(async |_| Ok(Response::new(Msg::of(&"x".repeat(900_000)))));
    let bound = Server::builder().add_service(big).bind(mem_name()).unwrap();
    let _task = tokio::spawn(bound.bind_socket(std::sync::Arc::new(socket)).serve());
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(client(&uri).say(Msg::of("?"))))
        .collect();
    let (mut answered, mut refused) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(reply) => answered += usize::from(reply.get_ref().text().len() == 900_000),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(status.message().contains("outbound_bytes_max"), "{status}");
                refused += 1;
            }
        }
    }
    assert_eq!(answered + refused, 20);
    assert!(
        answered >= 2 && refused > 0,
        "{answered} answered, {refused} refused"
    );
}

#[tokio::test]
async fn requests_sent_before_the_server_serves_are_answered() {
    let bound = Server::builder().add_service(echo());
    let bound = bound.bind("homa+udp://127.0.0.1:0").unwrap();
    let uri = bound.local_uris().remove(0);
    let call = tokio::spawn(client(&uri).say(Msg::of("early")));
    tokio::task::yield_now().await;
    let _task = tokio::spawn(bound.serve());
    assert_eq!(call.await.unwrap().unwrap().get_ref().text(), "early");
}

#[tokio::test]
async fn all_channels_of_a_runtime_share_one_socket() {
    let wanted = ["homa+udp://127.0.0.1:0", "homa+udp://127.0.0.1:0"];
    let (uris, _task) = serve(who(), &wanted);
    let mut ports = Vec::new();
    for uri in [&uris[0], &uris[1], &uris[0]] {
        let reply = client(uri).say(Msg::default()).await.unwrap();
        let peer: SocketAddr = reply.get_ref().text().parse().unwrap();
        ports.push(peer.port());
    }
    assert_eq!(ports, [ports[0]; 3]);
}

#[tokio::test]
async fn a_second_server_on_a_port_is_an_error_that_names_it() {
    let (uris, _task) = serve(echo(), &["homa+udp://127.0.0.1:0"]);
    let port = uris[0].rsplit(':').next().unwrap();
    let error = Server::builder().add_service(echo()).bind(&uris[0]);
    let error = error.unwrap_err();
    assert!(matches!(error, ServerError::Bind { .. }), "{error:?}");
    assert!(error.to_string().contains(port), "{error}");
}

#[tokio::test]
async fn a_second_server_of_a_name_is_an_error_that_names_it() {
    let name = mem_name();
    let (_uris, _task) = serve(echo(), &[&name]);
    let error = Server::builder().add_service(echo()).bind(&name);
    let error = error.unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
}

#[tokio::test]
async fn bad_uris_are_typed_errors_on_both_sides() {
    let error = Channel::new("homas://127.0.0.1:1").unwrap_err();
    assert!(matches!(
        error,
        ChannelError::Uri(UriError::UnknownScheme { .. })
    ));
    assert!(error.to_string().contains("homa://host:port"), "{error}");
    let error = Channel::new("homa+udp://127.0.0.1:0").unwrap_err();
    assert!(matches!(error, ChannelError::Uri(UriError::PortZero(_))));
    let server = Server::builder().add_service(echo());
    let error = server.bind("homa+udp://127.0.0.1").unwrap_err();
    assert!(matches!(error, ServerError::Uri(UriError::NoPort(_))));
}

#[tokio::test]
async fn a_host_name_is_looked_up_and_its_addresses_tried_in_turn() {
    // `localhost` may be ::1, 127.0.0.1 or both; the server listens on one of them.
    let (uris, _task) = serve(echo(), &["homa+udp://127.0.0.1:0"]);
    let port = uris[0].rsplit(':').next().unwrap();
    let echo = client(&format!("homa+udp://localhost:{port}"));
    for text in ["first", "second"] {
        let reply = echo.say(Msg::of(text)).await.unwrap();
        assert_eq!(reply.get_ref().text(), text);
    }
    let calls: Vec<_> = (0..50)
        .map(|_| tokio::spawn(echo.say(Msg::default())))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn many_first_calls_to_a_host_name_at_once_all_answer() {
    let (uris, _task) = serve(echo(), &["homa+udp://127.0.0.1:0"]);
    let port = uris[0].rsplit(':').next().unwrap();
    let echo = client(&format!("homa+udp://localhost:{port}"));
    let calls: Vec<_> = (0..50)
        .map(|_| tokio::spawn(echo.say(Msg::default())))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_unavailable_and_named() {
    let echo = client("homa+udp://no-such-host.invalid:4000");
    for _ in 0..2 {
        let status = echo.say(Msg::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.delivery(), Delivery::NotSent);
        assert!(
            status.message().contains("no-such-host.invalid"),
            "{status}"
        );
    }
}

#[tokio::test]
async fn an_in_process_name_is_found_again_when_its_server_comes_back() {
    let name = mem_name();
    let echo_client = client(&name);
    let status = echo_client.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(&name), "{status}");
    let (stop, stopped) = oneshot::channel::<()>();
    let bound = Server::builder().add_service(echo()).bind(&name).unwrap();
    let task = tokio::spawn(bound.serve_with_shutdown(stopped));
    assert!(echo_client.say(Msg::default()).await.is_ok());
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert!(echo_client.say(Msg::default()).await.is_err());
}

#[test]
fn a_channel_is_made_outside_a_runtime_and_used_inside() {
    let runtime = Runtime::new().unwrap();
    let (uris, _task) = {
        let _inside = runtime.enter();
        serve(echo(), &["homa+udp://127.0.0.1:0"])
    };
    let echo = client(&uris[0]);
    let call = echo.say(Msg::of("made outside"));
    let reply = runtime.block_on(call).unwrap();
    assert_eq!(reply.get_ref().text(), "made outside");
}

#[test]
fn a_call_outside_any_runtime_is_a_typed_error() {
    let echo = client("homa+udp://127.0.0.1:9");
    let timed = {
        let mut request = Request::new(Msg::default());
        request.set_timeout(std::time::Duration::from_secs(1));
        request
    };
    for call in [echo.say(Request::new(Msg::default())), echo.say(timed)] {
        let status = futures_block_on(call).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.delivery(), Delivery::NotSent);
        let source = status.source().unwrap().downcast_ref::<ChannelError>();
        assert!(matches!(source, Some(ChannelError::NoRuntime)), "{status}");
    }
    let bound = Server::builder().add_service(support::echo());
    let error = bound.bind("homa+udp://127.0.0.1:0").unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
}

/// Polls a future that needs no wake-up to its end, without any runtime.
fn futures_block_on<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the future waits"),
    }
}

#[test]
fn a_channel_whose_runtime_is_gone_fails_with_a_typed_error() {
    let servers = Runtime::new().unwrap();
    let (uris, _task) = {
        let _inside = servers.enter();
        serve(echo(), &["homa+udp://127.0.0.1:0"])
    };
    let first = Runtime::new().unwrap();
    let echo = client(&uris[0]);
    first.block_on(echo.say(Msg::default())).unwrap();
    drop(first);
    let second = Runtime::new().unwrap();
    for _ in 0..2 {
        let status = second.block_on(echo.say(Msg::default())).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(&uris[0]), "{status}");
        let source = status.source().unwrap();
        let source = source.downcast_ref::<homa_transport::RpcError>().unwrap();
        assert!(
            matches!(
                source,
                homa_transport::RpcError::Closed {
                    reason: homa_transport::CloseReason::RuntimeGone,
                    ..
                }
            ),
            "{source:?}"
        );
    }
    // A new channel on the new runtime works.
    let again = client(&uris[0]);
    second.block_on(again.say(Msg::default())).unwrap();
}

#[test]
fn a_call_in_progress_fails_when_the_runtime_of_its_channel_goes() {
    let servers = Runtime::new().unwrap();
    let (sender, begun) = oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let (uris, _task) = {
        let _inside = servers.enter();
        let service = handler(move |request: Request<Msg>| {
            if request.get_ref().text() == "wait" {
                let sender = sender.lock().unwrap().take();
                sender.unwrap().send(()).unwrap();
            }
            async move {
                if request.get_ref().text() == "wait" {
                    std::future::pending::<()>().await;
                }
                Ok(Response::new(Msg::default()))
            }
        });
        serve(service, &["homa+udp://127.0.0.1:0"])
    };
    let first = Runtime::new().unwrap();
    let echo = client(&uris[0]);
    first.block_on(echo.say(Msg::default())).unwrap();
    let second = Runtime::new().unwrap();
    let waiting = second.spawn(echo.say(Msg::of("wait")));
    second.block_on(begun).unwrap();
    drop(first);
    let status = second.block_on(waiting).unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.delivery(), Delivery::Unknown);
}

#[test]
fn each_runtime_has_its_own_socket() {
    let servers = Runtime::new().unwrap();
    let (uris, _task) = {
        let _inside = servers.enter();
        serve(who(), &["homa+udp://127.0.0.1:0"])
    };
    let ask = |runtime: &Runtime| {
        let reply = runtime.block_on(client(&uris[0]).say(Msg::default()));
        reply.unwrap().get_ref().text().to_owned()
    };
    let (first, second) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    assert_ne!(ask(&first), ask(&second));
    assert_eq!(ask(&first), ask(&first));
}

#[test]
fn a_handler_that_blocks_its_thread_fails_no_concurrent_call() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let service = handler(async |request: Request<Msg>| {
            if request.get_ref().text() == "block" {
                let (_never, blocked) = std::sync::mpsc::channel::<()>();
                // Nothing is ever sent: blocks the thread for this long.
                let _ = blocked.recv_timeout(std::time::Duration::from_millis(300));
            }
            Ok(Response::new(Msg::default()))
        });
        let (uris, _task) = serve(service, &["homa+udp://127.0.0.1:0"]);
        let echo = client(&uris[0]);
        echo.say(Msg::default()).await.unwrap();
        let blocked = tokio::spawn(echo.say(Msg::of("block")));
        let calls: Vec<_> = (0..100)
            .map(|_| tokio::spawn(echo.say(Msg::default())))
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        blocked.await.unwrap().unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_shards_serve_and_call_as_one() {
    let bound = Server::builder().shards(2).add_service(who());
    let bound = bound.bind("homa+udp://127.0.0.1:0").unwrap();
    let uri = bound.local_uris().remove(0);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(bound.serve_with_shutdown(stopped));
    let client = || {
        let channel = Channel::builder().shards(2).build(&uri).unwrap();
        EchoClient::new(channel)
    };
    let mut ports = std::collections::HashSet::new();
    // Each thread uses one of the client's shards, whose ports the server sees.
    while ports.len() < 2 {
        let (client, runtime) = (client(), tokio::runtime::Handle::current());
        let thread = std::thread::spawn(move || runtime.block_on(client.say(Msg::of("?"))));
        ports.insert(thread.join().unwrap().unwrap().get_ref().text().to_owned());
    }
    let calls: Vec<_> = (0..200)
        .map(|_| tokio::spawn(client().say(Msg::of("?"))))
        .collect();
    for call in calls {
        let reply = call.await.unwrap().unwrap();
        assert!(
            ports.contains(reply.get_ref().text()),
            "all share one socket"
        );
    }
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    let status = client().say(Msg::of("?")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_number_of_shards_out_of_range_is_refused_by_name() {
    let builder = Server::builder().shards(0).add_service(echo());
    let error = builder.bind("homa+udp://127.0.0.1:0").unwrap_err();
    assert!(error.to_string().contains("`shards` is 0"), "{error}");
    let channel = Channel::builder().shards(65);
    let channel = channel.build("homa+udp://127.0.0.1:9").unwrap();
    let status = EchoClient::new(channel)
        .say(Msg::of("?"))
        .await
        .unwrap_err();
    assert!(status.message().contains("`shards` is 65"), "{status}");
    assert_eq!(status.delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn where_nobody_listens_and_nothing_was_ever_sent_the_call_was_not_delivered() {
    // Bound and closed: nobody else gets a port of this address by chance.
    for host in ["127.88.0.1", "localhost", "[::1]"] {
        let uri = format!("homa+udp://{host}:20088");
        for bytes in [0, 100, 3_000, 900_000] {
            let request = || Msg::of(&"x".repeat(bytes));
            let status = client(&uri).say(request()).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{uri}, {bytes}: {status}");
            assert_eq!(
                status.delivery(),
                Delivery::NotSent,
                "{uri}, {bytes}: {status}"
            );
            let echo = client(&uri);
            let many: Vec<_> = (0..20).map(|_| tokio::spawn(echo.say(request()))).collect();
            // Which of these is the one that the network reports decides which of them knows it.
            for call in many {
                let status = call.await.unwrap().unwrap_err();
                assert_eq!(status.code(), Code::Unavailable, "{status}");
            }
        }
    }
}
