//! What message transports have got wrong before, each by name. Sizes at the edge of a frame are in
//! `limits.rs`, a peer restarted on the same port in `killed.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use homa_rpc::{Code, Delivery, Metadata, Request, Response, Server, Status};
use homa_transport::sim::{PacketFaults, SimNetwork, Topology};
use homa_transport::{Config, Socket, Transport};
use support::frames::{self, Raw};
use support::{EchoClient, Msg, Running, Wire, echo, handler, run};
use tokio::task::{JoinSet, yield_now};

/// Waits until no handler runs any more.
async fn all_done(running: &Running) {
    while running.monitor.stats().calls_in_progress > 0 {
        yield_now().await;
    }
}

/// Twice as long as a frame, in as many pairs as are allowed.
fn more_than_a_frame() -> Metadata {
    let mut metadata = Metadata::new();
    for _ in 0..homa_rpc::metadata::PAIRS_MAX {
        metadata.append("key", &"v".repeat(4_000)).unwrap();
    }
    metadata
}

async fn metadata_larger_than_a_frame_is_refused_in_either_direction(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        if request.get_ref().text() == "status" {
            return Err(Status::aborted("").with_metadata(more_than_a_frame()));
        }
        let mut response = Response::new(Msg::default());
        *response.metadata_mut() = more_than_a_frame();
        Ok(response)
    }));
    let mut request = Request::new(Msg::default());
    *request.metadata_mut() = more_than_a_frame();
    let status = running.echo().say(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert!(status.message().contains("65536 bytes"), "{status}");
    assert_eq!(running.client.stats().requests_sent, 0);
    for which in ["response", "status"] {
        let status = running.echo().say(Msg::of(which)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.delivery(), Delivery::Unknown, "it was executed");
        assert!(status.message().contains("65536 bytes"), "{status}");
    }
}

async fn cancel_at_any_moment_before_with_or_after_the_reply_leaves_nothing_behind(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        yield_now().await;
        Ok(Response::new(request.into_inner()))
    }));
    let mut answered = 0;
    for yields in 0..40 {
        for _ in 0..3 {
            let call = tokio::spawn(running.echo().say(Msg::of("x")));
            for _ in 0..yields {
                yield_now().await;
            }
            call.abort();
            match call.await {
                Ok(reply) => {
                    assert_eq!(reply.unwrap().get_ref().text(), "x");
                    answered += 1;
                }
                Err(error) => assert!(error.is_cancelled()),
            }
        }
    }
    assert!(answered < 120, "none was cancelled");
    all_done(&running).await;
    assert!(running.echo().say(Msg::of("after")).await.is_ok());
    let stats = running.monitor.stats();
    assert!(stats.handlers_spawned <= 121, "{stats:?}");
}

async fn a_reply_after_the_deadline_reaches_nobody(wire: Wire) {
    let (client, server) = wire.pair();
    let mut requests = frames::silent(&server);
    let uri = format!("homa+udp://{}", server.local_addr());
    let channel = homa_rpc::Channel::builder().socket(Arc::clone(&client));
    let echo = EchoClient::new(channel.build(&uri).unwrap());
    let mut timeout = Duration::from_millis(5);
    let late = loop {
        let mut request = Request::new(Msg::of("late"));
        request.set_timeout(timeout);
        let status = echo.say(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        if let Ok(late) = requests.try_recv() {
            break late;
        }
        // The machine was too busy for the call to get there, or to be sent at all.
        timeout *= 2;
    };
    let reply_to = |incoming: &homa_transport::Incoming, text: &[u8]| {
        let id = u64::from_be_bytes(incoming.message[8..16].try_into().unwrap());
        let message = [&[0x0a, u8::try_from(text.len()).unwrap()], text].concat();
        Raw {
            message,
            ..Raw::reply(id)
        }
        .bytes()
    };
    let next = tokio::spawn(echo.say(Msg::of("next")));
    let other = loop {
        let request = requests.recv().await.unwrap();
        if request.message.ends_with(b"next") {
            break request;
        }
    };
    let reply = reply_to(&late, b"late");
    // The transport may know already that nobody waits.
    let _stale = late.responder.respond(reply.into());
    let reply = reply_to(&other, b"next");
    other.responder.respond(reply.into()).unwrap();
    let reply = next.await.unwrap().unwrap();
    assert_eq!(reply.get_ref().text(), "next");
}

#[tokio::test(start_paused = true)]
async fn duplicate_delivery_executes_no_call_twice() {
    let faults = PacketFaults {
        duplication: 400_000,
        reordering: 100_000,
        loss: 50_000,
        hold_up_max: Duration::from_millis(20),
        ..PacketFaults::default()
    };
    let network = SimNetwork::new(Topology::single_switch(2, 1_000), faults, 9).unwrap();
    let open = |host| -> Arc<dyn Transport> {
        let link = network.host(host, 4_000).unwrap();
        Arc::new(
            Socket::over(
                Arc::new(link),
                homa_transport::Wire::Encapsulated,
                Config::default(),
            )
            .unwrap(),
        )
    };
    let running = run(Server::builder().add_service(echo()), (open(0), open(1)));
    let mut calls = JoinSet::new();
    for number in 0..300 {
        let call = running.echo().say(Msg::of(&number.to_string()));
        calls.spawn(async move {
            let reply = call.await.unwrap();
            assert_eq!(reply.get_ref().text(), number.to_string());
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    // What is still on its way comes.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running.monitor.stats().handlers_spawned, 300);
    assert!(network.counts().duplicated > 100, "{:?}", network.counts());
}

async fn hostile_lengths_are_refused_before_dispatch_and_the_server_lives_on(wire: Wire) {
    let running = wire.run_echo(echo());
    let server = running.server.local_addr();
    // Offset and width of each length in the header, by WIRE.md.
    let lengths = [
        (40, 2),
        (42, 2),
        (44, 4),
        (48, 4),
        (52, 4),
        (56, 4),
        (60, 4),
    ];
    for (at, width) in lengths {
        let honest = Raw::call().bytes();
        let field = &honest[at..at + width];
        let value = field
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        let greatest = u64::MAX >> (64 - 8 * width);
        let hostile = [greatest, greatest / 2 + 1, value + 1, 1_000_000 & greatest];
        for hostile in hostile.into_iter().chain(value.checked_sub(1)) {
            let mut frame = honest.clone();
            frame[at..at + width].copy_from_slice(&hostile.to_be_bytes()[8 - width..]);
            let reply = frames::send(&running.client, server, frame).await.unwrap();
            assert_eq!(reply.code, Code::Internal.number(), "{hostile} at {at}");
            assert_ne!(reply.flags & frames::REFUSED, 0, "{hostile} at {at}");
        }
    }
    assert!(running.echo().say(Msg::of("x")).await.is_ok());
    let stats = running.monitor.stats();
    assert_eq!(stats.calls_refused, stats.handlers_spawned - 1);
}

async fn a_late_message_for_a_finished_call_creates_none(wire: Wire) {
    let running = wire.run_echo(echo());
    let server = running.server.local_addr();
    let call = Raw::call();
    let reply = frames::send(&running.client, server, call.bytes()).await;
    assert_eq!(reply.unwrap().code, 0);
    let id = call.call_id;
    let part = Raw::items(id, 1, &[b"late"]);
    let cancel = Raw {
        kind: frames::CANCEL,
        ..Raw::open(id, b"", 0)
    };
    let end = Raw {
        kind: frames::PART,
        ..Raw::open(id, b"", 0)
    };
    for late in [
        part.clone(),
        part.end(),
        end.end(),
        Raw::pull(id, 0),
        Raw::pull(id, 65_536),
    ] {
        let reply = frames::send(&running.client, server, late.bytes());
        let reply = reply.await.unwrap();
        assert_eq!((reply.kind, reply.call_id), (late.kind | 0x80, id));
        assert_eq!(reply.code, Code::Unavailable.number(), "{late:?}");
        assert!(reply.has(frames::UNKNOWN_CALL | frames::END), "{reply:?}");
        assert!(reply.message.is_empty());
    }
    let reply = frames::send(&running.client, server, cancel.bytes()).await;
    assert_eq!(reply.unwrap().code, 0);
    all_done(&running).await;
    assert_eq!(running.monitor.stats().handlers_spawned, 1);
    assert!(running.echo().say(Msg::of("x")).await.is_ok());
}

on_every_wire!(
    metadata_larger_than_a_frame_is_refused_in_either_direction,
    cancel_at_any_moment_before_with_or_after_the_reply_leaves_nothing_behind,
    a_reply_after_the_deadline_reaches_nobody,
    hostile_lengths_are_refused_before_dispatch_and_the_server_lives_on,
    a_late_message_for_a_finished_call_creates_none,
);
