//! Servers that break the rules of streams, by replies made by hand, or give up: the call fails with a status that
//! says why.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use homa_rpc::{Code, Response, Server};
use streaming::{Closures, Item, StreamsClient, items, numbers};
use support::frames::{self, Raw};
use support::{Wire, run};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::timeout;

const UNAVAILABLE: u8 = 14;

/// An empty item.
const EMPTY: &[u8] = b"";

/// What a hostile server replies to the pulls of a stream, and the words of the status.
type Reply = (&'static str, fn(u64, u32) -> Raw);

fn reply_items(id: u64, kind: u8, sequence: u32, items: &[&[u8]]) -> Raw {
    Raw {
        kind: kind | 0x80,
        ..Raw::items(id, sequence, items)
    }
}

const REPLIES: [Reply; 9] = [
    ("over the credit", |id, credit| {
        let long = vec![0; credit as usize];
        reply_items(id, frames::PULL, 1, &[&long])
    }),
    ("too far ahead", |id, _| {
        reply_items(id, frames::PULL, 100, &[EMPTY])
    }),
    ("expected byte 0", |id, _| Raw {
        kind: frames::PULL | 0x80,
        ..Raw::fragment(id, 1, &[0; 10], 1, 100)
    }),
    ("END came 10 bytes into", |id, _| {
        let cut = Raw {
            kind: frames::PULL | 0x80,
            ..Raw::fragment(id, 1, &[0; 10], 0, 100)
        };
        cut.end()
    }),
    ("does not end with an item", |id, _| Raw {
        message: b"\0\0\0\0\x05abc".to_vec(),
        ..reply_items(id, frames::PULL, 1, &[])
    }),
    ("a frame that came before", |id, _| Raw {
        flags: frames::END,
        message: vec![],
        ..reply_items(id, frames::PULL, 0, &[])
    }),
    ("does not know this call", |id, _| Raw {
        code: UNAVAILABLE,
        flags: frames::END | frames::UNKNOWN_CALL,
        status_message: b"does not know this call".to_vec(),
        message: vec![],
        ..reply_items(id, frames::PULL, 0, &[])
    }),
    ("kind 0x82", |id, _| {
        reply_items(id, frames::PART, 1, &[EMPTY])
    }),
    ("a status and no END", |id, _| Raw {
        code: 5,
        flags: 0,
        message: vec![],
        ..reply_items(id, frames::PULL, 1, &[])
    }),
];

/// Answers a CALL with headers and each PULL by `reply`, and tells of the frames that came.
fn hostile(
    server: &Arc<dyn homa_transport::Transport>,
    reply: fn(u64, u32) -> Raw,
) -> mpsc::Receiver<u8> {
    let (seen, kinds) = mpsc::channel(1_000);
    let sink = move |incoming: homa_transport::Incoming| {
        let frame = &incoming.message;
        let id = u64::from_be_bytes(frame[8..16].try_into().unwrap());
        let credit = u32::from_be_bytes(frame[20..24].try_into().unwrap());
        let _gone = seen.try_send(frame[1]);
        let reply = match frame[1] {
            frames::CALL => Raw {
                kind: frames::CALL | 0x80,
                flags: frames::HEADERS,
                credit: 65_536,
                ..Raw::open(id, b"", 0)
            },
            frames::CANCEL => Raw {
                kind: frames::CANCEL | 0x80,
                ..Raw::open(id, b"", 0)
            }
            .end(),
            _ => reply(id, credit),
        };
        let _stale = incoming.responder.respond(reply.bytes().into());
    };
    server.serve(Arc::new(sink)).unwrap();
    kinds
}

async fn a_server_that_breaks_the_rules_ends_the_call_and_the_status_names_it(wire: Wire) {
    for (words, reply) in REPLIES {
        let (client, server) = wire.pair();
        let mut kinds = hostile(&server, reply);
        let uri = format!("homa+udp://{}", server.local_addr());
        let channel = homa_rpc::Channel::builder().socket(client).build(&uri);
        let client = StreamsClient::new(channel.unwrap());
        // The headers may have been seen before.
        let status = match client.chat(stream::pending()).await {
            Ok(response) => response.into_inner().message().await.unwrap_err(),
            Err(status) => status,
        };
        let code = match words {
            "does not know this call" => Code::Unavailable,
            _ => Code::Internal,
        };
        assert_eq!(status.code(), code, "{words}: {status}");
        assert!(status.message().contains(words), "{words}: {status}");
        // The server is told, and nothing follows.
        while kinds.recv().await.unwrap() != frames::CANCEL {}
        for _ in 0..100 {
            yield_now().await;
        }
        assert!(kinds.is_empty(), "{words}");
    }
}

/// A server that is stopped while a long message is on its way to a client that does not read.
async fn a_failure_within_a_message_is_what_the_call_tells(wire: Wire) {
    let closures = Closures::default().list(async |_| {
        let long = stream::iter([Ok(Item::long(4_000_000))]);
        Ok(Response::new(long.boxed()))
    });
    let server = Server::builder()
        .drain_timeout(Duration::from_millis(50))
        .add_service(closures.server());
    let mut running = run(server, wire.pair());
    let client = StreamsClient::new(running.channel.clone());
    let mut list = client.list(Item::number(1)).await.unwrap().into_inner();
    running.stop();
    let _stopped = (&mut running.task).await.unwrap();
    let status = list.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(!status.message().contains("within a message"), "{status}");
}

/// Metadata over the limit, before the items and behind them: the server says so, and is done with the call.
async fn a_reply_that_cannot_be_made_ends_the_call_at_both_ends(wire: Wire) {
    for is_initial in [true, false] {
        let closures = Closures::default().list(move |_| async move {
            let value = "v".repeat(homa_rpc::metadata::BYTES_MAX);
            let mut response = Response::new(items(0..3).boxed());
            if is_initial {
                let for_ever = response.into_inner().chain(stream::pending());
                response = Response::new(for_ever.boxed());
                response.metadata_mut().insert("k", &value).unwrap();
            } else {
                let trailing = response.trailing_metadata_mut();
                trailing.insert("k", &value).unwrap();
            }
            Ok(response)
        });
        let server = Server::builder().add_service(closures.server());
        let running = run(server, wire.pair());
        let client = StreamsClient::new(running.channel.clone());
        let status = match client.list(Item::number(1)).await {
            Ok(list) => numbers(&mut list.into_inner()).await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("65536 bytes"), "{status}");
        let done = async {
            while running.monitor.stats().calls_in_progress > 0 {
                yield_now().await;
            }
        };
        let in_time = timeout(Duration::from_secs(5), done).await;
        assert!(in_time.is_ok(), "the call is still in progress");
    }
}

on_every_wire! {
    a_reply_that_cannot_be_made_ends_the_call_at_both_ends,
    a_failure_within_a_message_is_what_the_call_tells,
    a_server_that_breaks_the_rules_ends_the_call_and_the_status_names_it,
}
