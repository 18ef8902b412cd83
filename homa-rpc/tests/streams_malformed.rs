//! Clients that break the rules of streams, by frames made by hand: each ends its own call with a status that
//! says why, calls beside it go on, and nothing of it is left. What they do by doing nothing is in
//! `streams_abandoned.rs`, what servers do in `streams_replies.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/peer.rs"]
mod peer;
#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use homa_rpc::{Request, Streaming};
use peer::{Beside, CHAT, EMPTY, INTERNAL, LIST, OK, Peer, RECORD, UNAVAILABLE};
use streaming::{Closures, Item};
use support::Wire;
use support::frames::{self, Raw};
use tokio::task::yield_now;

fn raw(call_id: u64, sequence: u32, message: &[u8]) -> Raw {
    Raw {
        message: message.to_vec(),
        ..Raw::items(call_id, sequence, &[])
    }
}

/// A PART with nothing but END.
fn end(call_id: u64, sequence: u32) -> Raw {
    let end = Raw {
        kind: frames::PART,
        sequence,
        ..Raw::open(call_id, b"", 0)
    };
    end.end()
}

/// A rule, and the PARTs of call `id` by which it is broken.
type Break = (&'static str, fn(u64) -> Vec<Raw>);

/// The words are of the status.
const BREAKS: [Break; 12] = [
    ("too far ahead", |id| vec![Raw::items(id, 200, &[EMPTY])]),
    ("expected byte 10 of a message of 100", |id| {
        vec![
            Raw::fragment(id, 1, &[0; 10], 0, 100),
            Raw::fragment(id, 2, &[0; 10], 5, 100),
        ]
    }),
    ("a fragment from byte 11", |id| {
        vec![
            Raw::fragment(id, 1, &[0; 10], 0, 100),
            Raw::fragment(id, 2, &[0; 10], 11, 100),
        ]
    }),
    ("a fragment from byte 0", |id| {
        vec![
            Raw::fragment(id, 1, &[0; 10], 0, 100),
            Raw::fragment(id, 2, &[0; 10], 0, 100),
        ]
    }),
    ("from byte 10 of 99", |id| {
        vec![
            Raw::fragment(id, 1, &[0; 10], 0, 100),
            Raw::fragment(id, 2, &[0; 10], 10, 99),
        ]
    }),
    ("expected byte 0", |id| {
        vec![Raw::fragment(id, 1, &[0; 10], 10, 100)]
    }),
    ("other items came", |id| {
        vec![
            Raw::fragment(id, 1, &[0; 10], 0, 100),
            Raw::items(id, 2, &[EMPTY]),
        ]
    }),
    ("END came 10 bytes into a message of 100", |id| {
        vec![Raw::fragment(id, 1, &[0; 10], 0, 100), end(id, 2)]
    }),
    ("over the credit", |id| {
        vec![Raw::items(id, 1, &[&[0; 70_000]])]
    }),
    ("behind the one with END", |id| {
        vec![
            Raw::items(id, 3, &[EMPTY]),
            Raw::items(id, 1, &[EMPTY]),
            end(id, 2),
        ]
    }),
    ("does not end with an item", |id| {
        vec![raw(id, 1, b"\0\0\0\0\x05abc")]
    }),
    ("does not end with an item", |id| {
        vec![raw(id, 1, b"\0\0\0")]
    }),
];

/// A handler that reads nothing, so that what comes is kept.
fn reads_nothing() -> Closures {
    Closures::default().record(async |request: Request<Streaming<Item>>| {
        let _requests = request.into_inner();
        std::future::pending().await
    })
}

async fn a_broken_rule_ends_the_call_and_the_status_names_it(wire: Wire) {
    for closures in [Closures::default, reads_nothing] {
        let peer = Peer::new(wire, closures());
        let mut beside = Beside::open(&peer).await;
        for (id, (words, parts)) in (1..).zip(BREAKS) {
            let call = peer.send(Raw::open(id, RECORD, 1_000)).await;
            for part in parts(id) {
                let ack = peer.ask(part).await;
                assert_eq!(ack.kind, frames::PART | 0x80);
                assert!(ack.message.is_empty(), "{words}: {ack:?}");
            }
            let reply = call.await.unwrap().unwrap();
            assert_eq!(reply.code, INTERNAL, "{words}: {reply:?}");
            assert!(reply.status_message.contains(words), "{words}: {reply:?}");
            assert!(reply.has(frames::END));
            assert_eq!(reply.flags & frames::REFUSED, 0, "it was dispatched");
            peer.assert_forgotten(id).await;
            beside.goes_on().await;
        }
        beside.end().await;
        peer.all_done().await;
        let stats = peer.stats();
        assert_eq!(stats.calls_broken, BREAKS.len() as u64, "{stats:?}");
        assert_eq!(stats.calls_cancelled, 0);
    }
}

/// Without a frame that waits the status waits for one.
async fn a_broken_rule_is_told_to_the_next_frame_if_none_is_parked(wire: Wire) {
    let peer = Peer::new(wire, Closures::default());
    let beside = Beside::open(&peer).await;
    for (id, (words, parts)) in (1..).zip(BREAKS) {
        let headers = peer.ask(Raw::open(id, CHAT, 0)).await;
        assert!(headers.has(frames::HEADERS), "{headers:?}");
        assert_eq!(headers.code, OK);
        for part in parts(id) {
            peer.ask(part).await;
        }
        for _ in 0..10 {
            yield_now().await;
        }
        // Items that came before may be told first.
        let reply = loop {
            let reply = peer.ask(Raw::pull(id, 0)).await;
            if reply.has(frames::END) {
                break reply;
            }
        };
        assert_eq!(reply.code, INTERNAL, "{words}: {reply:?}");
        assert!(reply.status_message.contains(words), "{words}: {reply:?}");
    }
    beside.end().await;
    peer.all_done().await;
}

/// What is no frame is answered as such. It has done nothing, so the call can go on.
async fn a_frame_that_cannot_be_read_is_answered_and_its_call_goes_on(wire: Wire) {
    let peer = Peer::new(wire, Closures::default());
    let beside = Beside::open(&peer).await;
    let id = 1;
    let call = peer.send(Raw::open(id, RECORD, 1_000)).await;
    let unreadable = [
        // A PART that carries nothing, and a PULL that does.
        Raw {
            kind: frames::PART,
            ..Raw::pull(id, 10)
        },
        Raw::pull(id, 10).end(),
        Raw {
            kind: frames::PULL,
            ..Raw::items(id, 1, &[EMPTY])
        },
        // Beyond its own end, of no bytes, and of both kinds at once.
        Raw::fragment(id, 1, &[0; 11], 90, 100),
        Raw::fragment(id, 1, &[0; 2], u32::MAX, u32::MAX),
        Raw::fragment(id, 1, &[], 0, 100),
        raw(id, 1, b""),
        Raw {
            flags: frames::MESSAGE | frames::ITEMS | frames::FRAGMENT,
            ..Raw::fragment(id, 1, &[0; 10], 0, 100)
        },
        Raw {
            total_len: 5,
            ..Raw::items(id, 1, &[EMPTY])
        },
        Raw {
            path: RECORD,
            ..Raw::items(id, 1, &[EMPTY])
        },
        Raw {
            status_message: b"x".to_vec(),
            ..Raw::items(id, 1, &[EMPTY])
        },
    ];
    let count = unreadable.len();
    for frame in unreadable {
        let kind = frame.kind;
        let reply = peer.ask(frame).await;
        assert_eq!((reply.kind, reply.call_id), (kind | 0x80, id));
        assert_eq!(reply.code, INTERNAL, "{reply:?}");
        assert!(reply.has(frames::END));
    }
    assert_eq!(peer.stats().frames_refused, count as u64);
    peer.ask(Raw::items(id, 1, &[EMPTY]).end()).await;
    let reply = call.await.unwrap().unwrap();
    assert_eq!((reply.code, reply.message.last()), (OK, Some(&1)));
    peer.assert_forgotten(id).await;
    beside.end().await;
}

async fn frames_in_any_order_and_twice_arrive_once_each_in_theirs(wire: Wire) {
    let peer = Peer::new(wire, Closures::default());
    let id = 7;
    let headers = peer.ask(Raw::open(id, CHAT, 0)).await;
    assert!(headers.has(frames::HEADERS));
    let item = |number: u8| Raw::items(id, number.into(), &[&[0x10, number]]);
    for number in [3, 1, 3, 5, 2, 1, 4, 3] {
        let ack = peer.ask(item(number)).await;
        assert_eq!(ack.code, OK);
    }
    let mut echoed = Vec::new();
    while echoed.len() < 5 * 7 {
        echoed.extend(peer.ask(Raw::pull(id, 1_000)).await.message);
    }
    let expected: Vec<u8> = (1..=5)
        .flat_map(|number| [0, 0, 0, 0, 2, 0x10, number])
        .collect();
    assert_eq!(echoed, expected);
    for sequence in [6, 6, 1] {
        assert_eq!(peer.ask(end(id, sequence)).await.code, OK);
        if sequence == 6 {
            continue;
        }
    }
    let reply = peer.ask(Raw::pull(id, 0)).await;
    assert!(reply.has(frames::END));
    assert_eq!(reply.code, OK);
    peer.assert_forgotten(id).await;
}

async fn a_second_call_of_the_same_id_is_refused_and_the_first_goes_on(wire: Wire) {
    let peer = Peer::new(wire, Closures::default());
    let call = peer.send(Raw::open(1, RECORD, 1_000)).await;
    for path in [RECORD, CHAT, LIST] {
        let reply = peer.ask(Raw::open(1, path, 1_000)).await;
        assert_eq!(reply.code, 1, "CANCELLED: {reply:?}");
        assert!(reply.has(frames::END | frames::REFUSED));
    }
    peer.ask(Raw::items(1, 1, &[EMPTY, EMPTY]).end()).await;
    let reply = call.await.unwrap().unwrap();
    assert_eq!((reply.code, reply.message.last()), (OK, Some(&2)));
    peer.assert_forgotten(1).await;
}

async fn a_flood_of_pulls_is_answered_but_for_sixteen(wire: Wire) {
    const PULLS: usize = 3_000;
    let peer = Peer::new(wire, Closures::default());
    let beside = Beside::open(&peer).await;
    let call = peer.send(Raw::open(1, RECORD, 0)).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut pulls = Vec::new();
    for number in 0..PULLS {
        let (client, server) = (
            Arc::clone(&peer.running.client),
            peer.running.server.local_addr(),
        );
        let answered = Arc::clone(&answered);
        let pull = Raw::pull(1, u32::try_from(number).unwrap() % 2 * 10_000);
        pulls.push(tokio::spawn(async move {
            let reply = frames::send(&client, server, pull.bytes()).await.unwrap();
            answered.fetch_add(1, Ordering::SeqCst);
            reply
        }));
    }
    while answered.load(Ordering::SeqCst) < PULLS - 16 {
        yield_now().await;
    }
    beside.end().await;
    // The rest waits for the end.
    assert!(answered.load(Ordering::SeqCst) <= PULLS - 15);
    peer.ask(end(1, 1)).await;
    let mut ends = 0;
    for pull in pulls
        .into_iter()
        .chain([tokio::spawn(async { call.await.unwrap().unwrap() })])
    {
        let reply = pull.await.unwrap();
        assert_eq!(reply.code, OK, "{reply:?}");
        ends += usize::from(reply.has(frames::END));
    }
    assert_eq!(ends, 1);
    peer.all_done().await;
    peer.assert_forgotten(1).await;
}

async fn what_comes_for_a_call_that_is_over_says_that_it_is_unknown(wire: Wire) {
    let peer = Peer::new(wire, Closures::default());
    let call = peer.send(Raw::open(1, RECORD, 1_000)).await;
    peer.ask(end(1, 1)).await;
    assert!(call.await.unwrap().unwrap().has(frames::END));
    for late in [Raw::items(1, 2, &[EMPTY]), end(1, 1), Raw::pull(1, 9)] {
        let kind = late.kind | 0x80;
        let reply = peer.ask(late).await;
        assert!(reply.has(frames::UNKNOWN_CALL), "{reply:?}");
        assert_eq!((reply.kind, reply.code), (kind, UNAVAILABLE));
    }
    // A call is its client's: another one with the same id goes on with nothing.
    let call = peer.send(Raw::open(2, RECORD, 1_000)).await;
    let (stranger, _) = wire.pair();
    let server = peer.running.server.local_addr();
    let frame = Raw::items(2, 1, &[EMPTY]).bytes();
    let reply = frames::send(&stranger, server, frame).await.unwrap();
    assert!(reply.has(frames::UNKNOWN_CALL), "{reply:?}");
    peer.ask(end(2, 1)).await;
    let reply = call.await.unwrap().unwrap();
    assert_eq!(reply.code, OK);
    assert_eq!(reply.message, [0; 5], "no item came");
}

on_every_wire! {
    a_broken_rule_ends_the_call_and_the_status_names_it,
    a_broken_rule_is_told_to_the_next_frame_if_none_is_parked,
    a_frame_that_cannot_be_read_is_answered_and_its_call_goes_on,
    frames_in_any_order_and_twice_arrive_once_each_in_theirs,
    a_second_call_of_the_same_id_is_refused_and_the_first_goes_on,
    a_flood_of_pulls_is_answered_but_for_sixteen,
    what_comes_for_a_call_that_is_over_says_that_it_is_unknown,
}
