//! How a server ends, and what that means for calls.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use homa_rpc::{BoundServer, Channel, Code, Delivery, Response, Server, Status};
use support::{EchoClient, Msg, Wire, gated, handler, net, run};
use tokio::sync::Notify;
use tokio::time::Instant;

async fn a_graceful_shutdown_finishes_what_runs_and_refuses_what_is_new(wire: Wire) {
    let (go, come) = (Arc::default(), Arc::default());
    let server = Server::builder().add_service(gated(&go, &come));
    let mut running = run(server, wire.pair());
    let first = tokio::spawn(running.echo().say(Msg::of("first")));
    come.notified().await;
    running.stop();
    // The server has to see the signal first.
    let status = loop {
        let second = tokio::spawn(running.echo().say(Msg::of("second")));
        tokio::select! {
            result = second => break result.unwrap().unwrap_err(),
            () = come.notified() => go.notify_one(),
        }
    };
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert!(status.is_refused());
    assert!(!running.task.is_finished());
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap().get_ref().text(), "first");
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_drains_all_listeners_of_a_server_whatever_their_wire() {
    let (go, come) = (Arc::default(), Arc::default());
    let pairs = [Wire::Udp, Wire::Mem, Wire::Net].map(Wire::pair);
    let mut bound: Option<BoundServer> = None;
    for (_, server) in &pairs {
        let server = Arc::clone(server);
        bound = Some(match bound {
            Some(bound) => bound.bind_socket(server),
            None => {
                let builder = Server::builder().add_service(gated(&go, &come));
                builder.bind_socket(server).unwrap()
            }
        });
    }
    let bound = bound.unwrap();
    let monitor = bound.monitor();
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let serving = tokio::spawn(bound.serve_with_shutdown(async move { stopped.notified().await }));
    let channels = pairs.each_ref().map(|(client, server)| {
        let builder = Channel::builder().socket(Arc::clone(client));
        let uri = format!("homa+udp://{}", server.local_addr());
        EchoClient::new(builder.build(uri).unwrap())
    });
    let mut running = Vec::new();
    for echo in &channels {
        running.push(tokio::spawn(echo.say(Msg::of("runs"))));
        come.notified().await;
    }
    stop.notify_one();
    for echo in &channels {
        // The server has to see the signal first.
        let status = loop {
            let call = tokio::spawn(echo.say(Msg::of("new")));
            tokio::select! {
                result = call => break result.unwrap().unwrap_err(),
                () = come.notified() => go.notify_one(),
            }
        };
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.is_refused(), "{status:?}");
    }
    assert!(!serving.is_finished());
    assert!(monitor.stats().calls_in_progress >= 3);
    go.notify_waiters();
    for call in running {
        assert_eq!(call.await.unwrap().unwrap().get_ref().text(), "runs");
    }
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_drain_timeout_ends_what_does_not_finish() {
    let come: Arc<Notify> = Arc::default();
    let service = handler({
        let come = Arc::clone(&come);
        move |_| {
            come.notify_one();
            pending::<Result<Response<Msg>, Status>>()
        }
    });
    let server = Server::builder()
        .drain_timeout(Duration::from_millis(500))
        .add_service(service);
    let mut running = run(server, net::pair());
    let call = tokio::spawn(running.echo().say(Msg::default()));
    come.notified().await;
    let begun = Instant::now();
    running.stop();
    let status = call.await.unwrap().unwrap_err();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.delivery(), Delivery::Unknown);
    running.task.await.unwrap().unwrap();
}

async fn calls_that_outlast_the_drain_timeout_end_with_unavailable(wire: Wire) {
    let (go, come) = (Arc::default(), Arc::default());
    let server = Server::builder()
        .drain_timeout(Duration::from_millis(20))
        .add_service(gated(&go, &come));
    let mut running = run(server, wire.pair());
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(tokio::spawn(running.echo().say(Msg::default())));
        come.notified().await;
    }
    running.stop();
    for call in calls {
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("shut down"), "{status}");
        assert!(!status.is_refused(), "its handler ran");
    }
    running.task.await.unwrap().unwrap();
    assert_eq!(running.monitor.stats().calls_stopped, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_does_not_hold_up_the_end_of_a_server() {
    let (begun, mut begins) = tokio::sync::mpsc::channel(1);
    let (ends, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let service = handler(move |_| {
        let (begun, blocked) = (begun.clone(), Arc::clone(&blocked));
        async move {
            begun.try_send(()).unwrap();
            // Until the test drops the sender.
            let _ended = blocked.lock().unwrap().recv();
            Ok(Response::new(Msg::default()))
        }
    });
    let server = Server::builder()
        .drain_timeout(Duration::ZERO)
        .add_service(service);
    let mut running = run(server, Wire::Mem.pair());
    let call = tokio::spawn(running.echo().say(Msg::default()));
    begins.recv().await.unwrap();
    running.stop();
    (&mut running.task).await.unwrap().unwrap();
    assert_eq!(running.monitor.stats().calls_in_progress, 1, "it blocks");
    drop(ends);
    call.abort();
}

async fn a_server_that_is_dropped_answers_what_it_had_begun(wire: Wire) {
    let come: Arc<Notify> = Arc::default();
    let service = handler({
        let come = Arc::clone(&come);
        move |_| {
            come.notify_one();
            pending::<Result<Response<Msg>, Status>>()
        }
    });
    let running = run(Server::builder().add_service(service), wire.pair());
    let call = tokio::spawn(running.echo().say(Msg::default()));
    come.notified().await;
    running.task.abort();
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("the server shut down"),
        "{status}"
    );
}

async fn a_server_without_calls_ends_at_once(wire: Wire) {
    let mut running = run(Server::builder().add_service(support::echo()), wire.pair());
    running.echo().say(Msg::default()).await.unwrap();
    running.stop();
    (&mut running.task).await.unwrap().unwrap();
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[test]
fn a_call_whose_task_dies_with_the_servers_runtime_is_answered() {
    let servers = tokio::runtime::Runtime::new().unwrap();
    let clients = tokio::runtime::Runtime::new().unwrap();
    let come: Arc<Notify> = Arc::default();
    let service = handler({
        let come = Arc::clone(&come);
        move |_| {
            come.notify_one();
            pending::<Result<Response<Msg>, Status>>()
        }
    });
    let inside = servers.enter();
    let running = run(Server::builder().add_service(service), net::pair());
    drop(inside);
    let call = clients.spawn(running.echo().say(Msg::default()));
    clients.block_on(come.notified());
    drop(servers);
    let status = clients.block_on(call).unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

on_every_wire!(
    calls_that_outlast_the_drain_timeout_end_with_unavailable,
    a_graceful_shutdown_finishes_what_runs_and_refuses_what_is_new,
    a_server_that_is_dropped_answers_what_it_had_begun,
    a_server_without_calls_ends_at_once,
);
