//! Dropping a call's future drops its handler, whether the transport carries that or not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use homa_rpc::Server;
use homa_transport::Transport;
use support::frames::{self, Raw};
use support::{EchoServer, Handle, Msg, Wire, handler, net, run};
use tokio::sync::mpsc;

/// What a handler reports.
#[derive(Debug, PartialEq)]
enum Event {
    Begun,
    Dropped,
}

struct Report(mpsc::Sender<Event>);

impl Drop for Report {
    fn drop(&mut self) {
        self.0.try_send(Event::Dropped).unwrap();
    }
}

/// A service that never answers, and reports when a handler begins and is dropped.
fn never() -> (EchoServer<Handle>, mpsc::Receiver<Event>) {
    let (sender, events) = mpsc::channel(100);
    let service = handler(move |_| {
        let report = Report(sender.clone());
        async move {
            report.0.try_send(Event::Begun).unwrap();
            pending().await
        }
    });
    (service, events)
}

async fn dropping_the_call_drops_the_handler(wire: Wire) {
    let (service, mut events) = never();
    let running = run(Server::builder().add_service(service), wire.pair());
    let call = tokio::spawn(running.echo().say(Msg::default()));
    assert_eq!(events.recv().await, Some(Event::Begun));
    call.abort();
    assert_eq!(events.recv().await, Some(Event::Dropped));
    assert_eq!(running.client.stats().requests_sent, 1, "no CANCEL frame");
}

#[tokio::test]
async fn where_the_transport_cannot_carry_it_a_frame_does() {
    let (service, mut events) = never();
    let client = net::node();
    client.carries_cancel.store(false, Ordering::Relaxed);
    let server = Server::builder().add_service(service);
    let running = run(server, (client, net::node()));
    let call = tokio::spawn(running.echo().say(Msg::default()));
    assert_eq!(events.recv().await, Some(Event::Begun));
    call.abort();
    assert_eq!(events.recv().await, Some(Event::Dropped));
    assert_eq!(running.client.stats().requests_sent, 2, "CALL and CANCEL");
}

#[tokio::test]
async fn a_call_that_was_never_polled_sends_nothing() {
    let (service, _events) = never();
    let client = net::node();
    client.carries_cancel.store(false, Ordering::Relaxed);
    let server = Server::builder().add_service(service);
    let running = run(server, (client, net::node()));
    drop(running.echo().say(Msg::default()));
    tokio::task::yield_now().await;
    assert_eq!(running.client.stats().requests_sent, 0);
}

#[tokio::test]
async fn a_finished_call_sends_no_cancel() {
    let client = net::node();
    client.carries_cancel.store(false, Ordering::Relaxed);
    let server = Server::builder().add_service(support::echo());
    let running = run(server, (client, net::node()));
    running.echo().say(Msg::default()).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(running.client.stats().requests_sent, 1);
}

#[tokio::test]
async fn a_cancel_that_overtakes_its_call_keeps_the_handler_from_running() {
    let (service, mut events) = never();
    let running = run(Server::builder().add_service(service), net::pair());
    let server = running.server.local_addr();
    let cancel = Raw {
        kind: frames::CANCEL,
        flags: frames::END,
        path: b"",
        message: vec![],
        ..Raw::call()
    };
    let reply = frames::send(&running.client, server, cancel.bytes()).await;
    let reply = reply.unwrap();
    assert_eq!((reply.kind, reply.code), (frames::CANCEL | 0x80, 0));
    assert_eq!(reply.call_id, cancel.call_id);
    let call = Raw {
        flags: frames::MESSAGE | frames::END | frames::SINGLE | frames::CANCEL_FRAME,
        ..Raw::call()
    };
    let reply = frames::send(&running.client, server, call.bytes()).await;
    let reply = reply.unwrap();
    assert_eq!(reply.code, 1, "CANCELLED");
    assert_ne!(reply.flags & frames::REFUSED, 0);
    assert!(events.try_recv().is_err(), "the handler did not run");
}

#[tokio::test]
async fn a_cancel_of_another_client_does_nothing() {
    let (service, mut events) = never();
    let running = run(Server::builder().add_service(service), net::pair());
    let server = running.server.local_addr();
    let call = Raw {
        flags: frames::MESSAGE | frames::END | frames::SINGLE | frames::CANCEL_FRAME,
        ..Raw::call()
    };
    let client = running.client.clone();
    let waiting = tokio::spawn(async move { frames::send(&client, server, call.bytes()).await });
    assert_eq!(events.recv().await, Some(Event::Begun));
    let cancel = Raw {
        kind: frames::CANCEL,
        flags: frames::END,
        path: b"",
        message: vec![],
        ..Raw::call()
    };
    let stranger: Arc<dyn Transport> = net::node();
    let reply = frames::send(&stranger, server, cancel.bytes()).await;
    assert_eq!(reply.unwrap().code, 0);
    assert!(events.try_recv().is_err());
    let reply = frames::send(&running.client, server, cancel.bytes()).await;
    assert_eq!(reply.unwrap().code, 0);
    assert_eq!(events.recv().await, Some(Event::Dropped));
    waiting.abort();
}

on_every_wire!(dropping_the_call_drops_the_handler,);
