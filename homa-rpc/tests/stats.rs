//! What one call costs in wake-ups and tasks, by the counters of channel and server.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use homa_rpc::{Code, Request, Response, Server, Status};
use support::{Msg, Wire, echo, handler, run};
use tokio::sync::Notify;

/// Those that count wake-ups: the switch of the tests doesn't.
const HOMA: [Wire; 2] = [Wire::Udp, Wire::Mem];

#[tokio::test]
async fn a_call_wakes_one_waiter_and_spawns_one_handler() {
    for wire in HOMA {
        let running = wire.run_echo(echo());
        for calls in 1..=50 {
            running.echo().say(Msg::of("x")).await.unwrap();
            assert_eq!(running.channel.stats().waiters_woken, calls);
            let server = running.monitor.stats();
            assert_eq!(server.handlers_spawned, calls);
            assert_eq!(server.handlers_inline, 0);
            assert_eq!(running.server.stats().requests_handed_over, calls);
            assert_eq!(running.server.stats().waiters_woken, 0);
        }
    }
}

#[tokio::test]
async fn a_handler_of_an_inline_service_that_does_not_wait_takes_no_task() {
    for wire in HOMA {
        let server = Server::builder().add_inline_service(echo());
        let running = run(server, wire.pair());
        for calls in 1..=50 {
            let reply = running.echo().say(Msg::of("x")).await.unwrap();
            assert_eq!(reply.get_ref().text(), "x");
            assert_eq!(running.monitor.stats().handlers_inline, calls);
        }
        assert_eq!(running.monitor.stats().handlers_spawned, 0);
    }
}

#[tokio::test]
async fn a_handler_of_an_inline_service_that_waits_goes_on_in_a_task() {
    let go: Arc<Notify> = Arc::default();
    let service = handler({
        let go = Arc::clone(&go);
        move |request: Request<Msg>| {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(Response::new(request.into_inner()))
            }
        }
    });
    let server = Server::builder().add_inline_service(service);
    let running = run(server, Wire::Udp.pair());
    let call = tokio::spawn(running.echo().say(Msg::of("waits")));
    go.notify_one();
    assert_eq!(call.await.unwrap().unwrap().get_ref().text(), "waits");
    let stats = running.monitor.stats();
    assert_eq!((stats.handlers_spawned, stats.handlers_inline), (1, 0));
}

#[tokio::test]
async fn a_panic_in_the_first_inline_poll_is_unknown_and_the_socket_lives_on() {
    let service = handler(async |request: Request<Msg>| {
        assert_ne!(request.get_ref().text(), "panic", "on purpose");
        Ok(Response::new(request.into_inner()))
    });
    let server = Server::builder().add_inline_service(service);
    let running = run(server, Wire::Udp.pair());
    let status = running.echo().say(Msg::of("panic")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert!(running.echo().say(Msg::of("fine")).await.is_ok());
    assert_eq!(running.monitor.stats().handlers_panicked, 1);
}

#[tokio::test]
async fn other_services_of_the_server_are_spawned_as_usual() {
    let server = Server::builder()
        .add_inline_service(support::other_handler(async |_| Err(Status::aborted(""))))
        .add_service(echo());
    let running = run(server, Wire::Mem.pair());
    running.echo().say(Msg::default()).await.unwrap();
    let other = support::other_client::OtherClient::new(running.channel.clone());
    assert_eq!(
        other.say(Msg::default()).await.unwrap_err().code(),
        Code::Aborted
    );
    let stats = running.monitor.stats();
    assert_eq!((stats.handlers_spawned, stats.handlers_inline), (1, 1));
}

#[tokio::test]
async fn a_channel_that_has_not_called_yet_counts_nothing() {
    let channel = homa_rpc::Channel::new("homa+udp://127.0.0.1:1").unwrap();
    assert_eq!(channel.stats(), homa_rpc::Stats::default());
}
