//! Checksums of frames: what is damaged on its way fails that call, in either direction, and peers that
//! know no checksums are understood.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use homa_rpc::{Channel, ChannelBuilder, Code, Delivery, Response, Server, Status};
use support::frames::{self, Raw, RawReply};
use support::net::{self, NO_BIT, Node};
use support::{EchoClient, Msg, Running, Wire, echo, handler, run};

const INTERNAL: u8 = 13;

/// A client with checksums whose messages can be damaged, its server, and the calls that this has executed.
fn damaging() -> (Arc<Node>, Running, EchoClient, Arc<AtomicUsize>) {
    let executed = Arc::new(AtomicUsize::new(0));
    let service = handler({
        let executed = Arc::clone(&executed);
        move |request| {
            executed.fetch_add(1, Ordering::Relaxed);
            async move { Ok(Response::new(request.into_inner())) }
        }
    });
    let node = net::node();
    let server = Server::builder().add_service(service);
    let running = run(server, (node.clone(), net::node()));
    let client = channel(&running, Channel::builder().checksums(true));
    (node, running, client, executed)
}

fn channel(running: &Running, builder: ChannelBuilder) -> EchoClient {
    let builder = builder.socket(Arc::clone(&running.client));
    EchoClient::new(builder.build(&running.uri).unwrap())
}

/// The bits of a frame with this message, which is its end.
fn bits(head: usize, message: &Msg) -> usize {
    (head + prost::Message::encoded_len(message)) * 8
}

fn assert_damaged(status: &Status) {
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert!(status.message().contains("damaged"), "{status}");
}

#[tokio::test]
async fn a_request_with_any_bit_flipped_is_not_executed() {
    let (node, _running, client, executed) = damaging();
    let message = Msg::of("a payload");
    let head = 64 + "/test.Echo/Say".len() + 8;
    for bit in 0..bits(head, &message) {
        node.flips_sent.store(bit, Ordering::Relaxed);
        let status = client.say(message.clone()).await.unwrap_err();
        if bit >= head * 8 {
            assert_damaged(&status);
            assert!(status.is_refused());
            assert_eq!(status.delivery(), Delivery::NotSent);
        }
    }
    assert_eq!(executed.load(Ordering::Relaxed), 0);
    node.flips_sent.store(NO_BIT, Ordering::Relaxed);
    let reply = client.say(message.clone()).await.unwrap();
    assert_eq!(reply.into_inner(), message);
}

#[tokio::test]
async fn a_reply_with_any_bit_flipped_is_no_answer() {
    let (node, _running, client, executed) = damaging();
    let message = Msg::of("a payload");
    let head = 64 + 8;
    for bit in 0..bits(head, &message) {
        node.flips_received.store(bit, Ordering::Relaxed);
        let status = client.say(message.clone()).await.unwrap_err();
        if bit >= head * 8 {
            assert_damaged(&status);
            assert!(!status.is_refused());
            assert_eq!(status.delivery(), Delivery::Unknown, "it was executed");
        }
    }
    assert_eq!(executed.load(Ordering::Relaxed), bits(head, &message));
    node.flips_received.store(NO_BIT, Ordering::Relaxed);
    assert!(client.say(message).await.is_ok());
}

/// What the tests above would find without checksums.
#[tokio::test]
async fn without_checksums_damage_is_not_noticed() {
    let (node, running, _, _) = damaging();
    let client = channel(&running, Channel::builder().checksums(false));
    let message = Msg::of("a payload");
    let last = bits(64 + "/test.Echo/Say".len(), &message) - 8;
    node.flips_sent.store(last, Ordering::Relaxed);
    let reply = client.say(message).await.unwrap();
    assert_eq!(reply.get_ref().text(), "a payloae");
}

#[tokio::test]
async fn long_messages_are_covered_too() {
    let (node, _running, client, executed) = damaging();
    let message = Msg::of(&"long ".repeat(100_000));
    for flips in [&node.flips_sent, &node.flips_received] {
        flips.store(250_000 * 8, Ordering::Relaxed);
        assert_damaged(&client.say(message.clone()).await.unwrap_err());
        flips.store(NO_BIT, Ordering::Relaxed);
    }
    let reply = client.say(message.clone()).await.unwrap();
    assert_eq!(reply.into_inner(), message);
    assert_eq!(executed.load(Ordering::Relaxed), 2);
}

/// The flags and the extensions of the requests that a client sends.
async fn requests_of(uri: &str, builder: ChannelBuilder) -> (u16, Vec<u8>) {
    let (client, server) = net::pair();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let seen = Arc::clone(&seen);
        move |incoming: homa_transport::Incoming| {
            *seen.lock().unwrap() = incoming.message.to_vec();
            let call_id = u64::from_be_bytes(incoming.message[8..16].try_into().unwrap());
            let reply = Raw::reply(call_id).bytes();
            incoming.responder.respond(reply.into()).unwrap();
        }
    };
    server.serve(Arc::new(sink)).unwrap();
    let uri = format!("{uri}://{}", server.local_addr());
    let channel = builder.socket(client).build(uri).unwrap();
    let reply = EchoClient::new(channel).say(Msg::of("x")).await;
    reply.expect("a reply without a checksum, of a server that knows none");
    let frame = seen.lock().unwrap().clone();
    let len = usize::from(u16::from_be_bytes([frame[42], frame[43]]));
    let extensions = 64 + "/test.Echo/Say".len();
    (
        u16::from_be_bytes([frame[2], frame[3]]),
        frame[extensions..extensions + len].to_vec(),
    )
}

#[tokio::test]
async fn checksums_are_on_for_raw_packets_and_off_elsewhere_unless_told_otherwise() {
    let builder = Channel::builder;
    for (uri, builder, on) in [
        ("homa", builder(), true),
        ("homa+udp", builder(), false),
        ("homa", builder().checksums(false), false),
        ("homa+udp", builder().checksums(true), true),
    ] {
        let (flags, extensions) = requests_of(uri, builder).await;
        assert_eq!(flags & frames::CHECKSUM != 0, on, "{uri}");
        assert_eq!(extensions.len(), if on { 8 } else { 0 }, "{uri}");
        assert!(!on || extensions.starts_with(&[0, 1, 0, 4]));
    }
}

async fn ask(running: &Running, frame: Vec<u8>) -> (RawReply, Vec<u8>) {
    let server = running.server.local_addr();
    let frame = homa_transport::Message::from(bytes::Bytes::from(frame));
    let call = homa_transport::transport::call(Arc::clone(&running.client), server, frame);
    let reply = call.await.unwrap();
    (RawReply::read(&reply), reply.to_vec())
}

async fn a_reply_has_a_checksum_if_its_request_has_one(wire: Wire) {
    let running = wire.run_echo(echo());
    let (reply, _) = ask(&running, Raw::call().bytes()).await;
    assert_eq!((reply.code, reply.extensions.len()), (0, 0));
    assert_eq!(reply.flags & frames::CHECKSUM, 0);
    // As it is, behind an extension that nobody knows, and of a call that fails.
    let unknown = Raw {
        extensions: vec![0x7f, 1, 0, 2, 1, 2],
        ..Raw::call()
    };
    let fails = Raw {
        path: b"/test.Echo/None",
        ..Raw::call()
    };
    for (request, code) in [(Raw::call(), 0), (unknown, 0), (fails, 12)] {
        let (reply, mut bytes) = ask(&running, request.checked()).await;
        assert_eq!(reply.code, code);
        assert_ne!(reply.flags & frames::CHECKSUM, 0);
        assert_eq!(reply.extensions[..4], [0, 1, 0, 4]);
        bytes.drain(68..72);
        assert_eq!(reply.extensions[4..], frames::crc32c(&bytes).to_be_bytes());
    }
}

async fn malformed_checksums_are_internal_and_the_call_is_refused(wire: Wire) {
    let running = wire.run_echo(echo());
    let good = Raw::call().checked();
    let value_at = 64 + Raw::call().path.len() + 4;
    let mut wrong = good.clone();
    wrong[value_at] ^= 0x10;
    let (reply, _) = ask(&running, wrong).await;
    assert_eq!(reply.code, INTERNAL);
    assert_ne!(reply.flags & frames::REFUSED, 0);
    assert_eq!(reply.call_id, 0, "it may be what was damaged");
    assert!(reply.status_message.contains("damaged"), "{reply:?}");

    let value = good[value_at..value_at + 4].to_vec();
    let two = [&[0, 1, 0, 4][..], &value, &[0, 1, 0, 4], &value].concat();
    let cases = [vec![], vec![0, 1, 0, 3, 1, 2, 3], vec![0, 1, 0, 0], two];
    for extensions in cases {
        let frame = Raw {
            flags: Raw::call().flags | frames::CHECKSUM,
            extensions,
            ..Raw::call()
        };
        let (reply, _) = ask(&running, frame.bytes()).await;
        assert_eq!(reply.code, INTERNAL, "{frame:?}");
        assert_ne!(reply.flags & frames::REFUSED, 0);
        assert!(reply.status_message.contains("checksum"), "{reply:?}");
    }
    let (reply, _) = ask(&running, good).await;
    assert_eq!(reply.code, 0);
}

#[tokio::test]
async fn a_frame_with_a_checksum_may_be_as_long_as_any() {
    let (_, running, client, _) = damaging();
    let max = running.client.message_bytes_max();
    // Tag and length of the field take four bytes.
    let room = max - 64 - "/test.Echo/Say".len() - 8 - 4;
    let text = |len: usize| Msg::of(&"x".repeat(len));
    let sent = || running.client.stats().requests_sent;
    assert!(client.say(text(room)).await.is_ok());
    assert_eq!(sent(), 1);
    // One byte more needs several frames, each with a checksum.
    let reply = client.say(text(room + 1)).await.unwrap();
    assert!(reply.into_inner() == text(room + 1));
    assert!(sent() > 2, "{}", sent());
}

/// A bit of each frame in turn is flipped, of a call that takes several.
#[tokio::test]
async fn damage_to_any_frame_of_a_long_message_fails_its_call_at_once() {
    let (node, running, client, executed) = damaging();
    let message = Msg {
        data: vec![7; 3_900_000].into(),
    };
    assert!(client.say(message.clone()).await.is_ok());
    // The last ones only say that there is nothing more to say.
    let frames = usize::try_from(running.client.stats().requests_sent).unwrap() - 8;
    assert!(frames > 10, "{frames}");
    for (flips, skips) in [
        (&node.flips_sent, &node.flips_sent_skip),
        (&node.flips_received, &node.flips_received_skip),
    ] {
        for frame in 0..frames {
            let begun = tokio::time::Instant::now();
            // Of the flags, of the sequence number, and behind the header.
            for bit in [2 * 8 + 1, 17 * 8, 66 * 8] {
                skips.store(frame, Ordering::Relaxed);
                flips.store(bit, Ordering::Relaxed);
                let status = client.say(message.clone()).await;
                flips.store(NO_BIT, Ordering::Relaxed);
                let status = status.map(|_| format!("frame {frame}, bit {bit}"));
                let status = status.unwrap_err();
                assert_eq!(status.code(), Code::Internal, "{status}");
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "frame {frame}");
        }
    }
    let before = executed.load(Ordering::Relaxed);
    assert!(client.say(message).await.is_ok());
    assert_eq!(executed.load(Ordering::Relaxed), before + 1);
}

on_every_wire!(
    a_reply_has_a_checksum_if_its_request_has_one,
    malformed_checksums_are_internal_and_the_call_is_refused,
);
