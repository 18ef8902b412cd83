//! Dropping a call's future drops its handler, whether the transport carries that or not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use homa_rpc::{Channel, Response, Server};
use homa_transport::Transport;
use support::frames::{self, Raw};
use support::other_client::OtherClient;
use support::{
    EchoClient, EchoServer, Handle, Msg, Running, Wire, handler, net, other_handler, run,
};
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

/// A service beside it that answers.
fn other_echo() -> support::other_server::OtherServer<Handle> {
    other_handler(async |request| Ok(Response::new(request.into_inner())))
}

/// A client and a server, and a channel between them that takes their wire for that of the kernel module.
fn native(server_is_told: bool) -> (Running, EchoClient, mpsc::Receiver<Event>) {
    let (service, events) = never();
    let server = net::node();
    server
        .carries_cancel
        .store(server_is_told, Ordering::Relaxed);
    let builder = Server::builder()
        .add_service(service)
        .add_service(other_echo());
    let mut running = run(builder, (net::node(), server));
    let uri = running.uri.replace("homa+udp", "homa");
    let channel = Channel::builder().socket(Arc::clone(&running.client));
    running.channel = channel.build(uri).unwrap();
    let client = running.echo();
    (running, client, events)
}

/// What the server's answer to a call of the other service says of it.
async fn get_an_answer(running: &Running) {
    let other = OtherClient::new(running.channel.clone());
    other.say(Msg::default()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_homa_does_not_tell_is_told_by_a_frame() {
    let (running, client, mut events) = native(false);
    for before in [0, 3, 6] {
        let call = tokio::spawn(client.say(Msg::default()));
        assert_eq!(events.recv().await, Some(Event::Begun));
        call.abort();
        assert_eq!(events.recv().await, Some(Event::Dropped));
        let sent = running.client.stats().requests_sent;
        assert_eq!(sent, before + 2, "CALL and CANCEL");
        get_an_answer(&running).await;
        let sent = running.client.stats().requests_sent;
        assert_eq!(sent, before + 3, "a call that ends is not cancelled");
    }
}

#[tokio::test]
async fn a_server_that_homa_tells_gets_no_frame_once_it_has_said_so() {
    let (running, client, mut events) = native(true);
    let call = tokio::spawn(client.say(Msg::default()));
    assert_eq!(events.recv().await, Some(Event::Begun));
    call.abort();
    assert_eq!(events.recv().await, Some(Event::Dropped));
    let sent = running.client.stats().requests_sent;
    assert_eq!(sent, 2, "nothing is known of the server yet");
    get_an_answer(&running).await;
    let call = tokio::spawn(client.say(Msg::default()));
    assert_eq!(events.recv().await, Some(Event::Begun));
    call.abort();
    assert_eq!(events.recv().await, Some(Event::Dropped));
    tokio::task::yield_now().await;
    let sent = running.client.stats().requests_sent;
    assert_eq!(sent, 4, "no CANCEL frame");
}

/// A server that was started again may speak by the kernel module now, and old ones say nothing.
#[tokio::test]
async fn what_was_last_said_of_a_server_counts() {
    let (client, server) = net::pair();
    let (hints, flags) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU16::new(0)));
    let sink = {
        let (hints, flags) = (Arc::clone(&hints), Arc::clone(&flags));
        move |incoming: homa_transport::Incoming| {
            let frame = &incoming.message;
            let call_id = u64::from_be_bytes(frame[8..16].try_into().unwrap());
            flags.store(u16::from_be_bytes([frame[2], frame[3]]), Ordering::Relaxed);
            let reply = Raw::reply(call_id);
            let hints = hints.load(Ordering::Relaxed);
            let flags = reply.flags | hints;
            let reply = Raw { flags, ..reply };
            incoming.responder.respond(reply.bytes().into()).unwrap();
        }
    };
    server.serve(Arc::new(sink)).unwrap();
    let channel = Channel::builder().socket(client);
    let uri = format!("homa://{}", server.local_addr());
    let client = EchoClient::new(channel.build(uri).unwrap());
    let mut told = 0;
    for hint in [
        0,
        0,
        frames::CANCEL_TOLD,
        frames::HINTS & !frames::CHECKSUM,
        0,
        frames::CANCEL_TOLD,
    ] {
        hints.store(hint, Ordering::Relaxed);
        client.say(Msg::default()).await.unwrap();
        let has_frame = flags.load(Ordering::Relaxed) & frames::CANCEL_FRAME != 0;
        assert_eq!(
            has_frame,
            told & frames::CANCEL_TOLD == 0,
            "{told:#06x} was said last"
        );
        told = hint;
    }
}

#[tokio::test]
async fn a_damaged_cancel_cancels_nothing() {
    let (service, mut events) = never();
    let running = run(Server::builder().add_service(service), net::pair());
    let server = running.server.local_addr();
    let call = Raw {
        flags: frames::MESSAGE | frames::END | frames::SINGLE | frames::CANCEL_FRAME,
        ..Raw::call()
    };
    let client = running.client.clone();
    let frame = call.checked();
    let waiting = tokio::spawn(async move { frames::send(&client, server, frame).await });
    assert_eq!(events.recv().await, Some(Event::Begun));
    let cancel = Raw {
        kind: frames::CANCEL,
        flags: frames::END,
        path: b"",
        message: vec![],
        // What the call id was before it was damaged.
        call_id: call.call_id ^ 1,
        ..call
    };
    let mut damaged = cancel.checked();
    damaged[15] ^= 1;
    let reply = frames::send(&running.client, server, damaged).await;
    assert_eq!(reply.unwrap().code, 13, "INTERNAL");
    assert!(events.try_recv().is_err());
    let cancel = Raw {
        call_id: cancel.call_id ^ 1,
        ..cancel
    };
    let reply = frames::send(&running.client, server, cancel.checked()).await;
    assert_eq!(reply.unwrap().code, 0);
    assert_eq!(events.recv().await, Some(Event::Dropped));
    waiting.abort();
}

on_every_wire!(dropping_the_call_drops_the_handler,);
