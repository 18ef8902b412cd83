//! What happens when nothing happens. `overdue` and `next_timeout` must agree, or a driver turns in circles.

use std::time::Duration;

use super::*;
use crate::stream::server::{Ending, Overdue};

/// Just before.
fn before(time: Duration) -> Duration {
    time - millis(1)
}

#[test]
fn a_parked_frame_is_answered_empty_after_15_seconds_and_the_client_is_not_gone() {
    let mut server = opened(1_000);
    for renewal in 0..100 {
        let begun = 15 * renewal;
        let due = secs(begun + 15);
        assert_eq!(server.next_timeout(), due);
        assert!(replies(&mut server, before(due)).is_empty());
        assert_eq!(server.overdue(due), None);
        let reply = replies(&mut server, due);
        assert_eq!(reply.len(), 1);
        assert!(!reply[0].part.end && !reply[0].part.headers);
        assert_eq!(server.overdue(due), None, "it has just been answered");
        assert_eq!(server.next_timeout(), due + secs(10));
        server.handle(due, pull(1_000), 1).unwrap();
    }
}

#[test]
fn an_item_after_a_long_silence_does_not_make_the_client_gone() {
    let mut server = opened(1_000);
    server.respond(HeaderMap::new());
    replies(&mut server, Duration::ZERO);
    server.handle(Duration::ZERO, pull(1_000), 1).unwrap();
    let later = secs(14);
    server.write(run(&[10]));
    assert_eq!(replies(&mut server, later).len(), 1);
    assert_eq!(server.overdue(later), None);
    assert_eq!(server.overdue(before(later + secs(10))), None);
    let gone = server.overdue(later + secs(10));
    assert_eq!(gone, Some(Overdue::ClientGone));
}

#[test]
fn a_client_without_a_parked_frame_is_gone_after_10_seconds() {
    let mut server = opened(0);
    server.respond(HeaderMap::new());
    assert_eq!(replies(&mut server, secs(1)).len(), 1);
    assert_eq!(server.next_timeout(), secs(11));
    // A PART shows that it is there.
    server.handle(secs(5), part(1, items(&[1])), 1).unwrap();
    assert_eq!(replies(&mut server, secs(5)).len(), 1);
    assert_eq!(server.next_timeout(), secs(15));
    assert_eq!(server.overdue(before(secs(15))), None);
    assert_eq!(server.overdue(secs(15)), Some(Overdue::ClientGone));
    server.on_receiving(secs(15));
    assert_eq!(server.overdue(before(secs(25))), None);
    assert_eq!(server.overdue(secs(25)), Some(Overdue::ClientGone));
    // With a frame here the transport says whether the client is there.
    server.handle(secs(25), pull(0), 2).unwrap();
    assert_eq!(server.overdue(secs(39)), None);
}

#[test]
fn a_message_that_does_not_go_on_is_given_up_after_10_seconds() {
    let mut server = opened(0);
    server
        .handle(secs(1), part(1, piece(100, 0, 50_000)), 1)
        .unwrap();
    assert_eq!(server.next_timeout(), secs(11));
    assert_eq!(server.overdue(before(secs(11))), None);
    assert_eq!(server.overdue(secs(11)), Some(Overdue::Standstill));
    // Any byte more is progress, also one that is on its way.
    server
        .handle(secs(11), part(2, piece(1, 100, 50_000)), 1)
        .unwrap();
    assert_eq!(server.overdue(before(secs(21))), None);
    server.on_receiving(secs(20));
    assert_eq!(server.overdue(before(secs(30))), None);
    assert_eq!(server.overdue(secs(30)), Some(Overdue::Standstill));
    // A copy is none.
    server
        .handle(secs(29), part(2, piece(1, 100, 50_000)), 1)
        .unwrap();
    assert_eq!(server.overdue(secs(30)), Some(Overdue::Standstill));
    let rest = part(3, piece(49_899, 101, 50_000));
    server.handle(secs(30), rest, 1).unwrap();
    assert_eq!(server.overdue(secs(40)), None, "it is whole");
}

#[test]
fn a_frame_that_never_comes_is_given_up_after_10_seconds() {
    let mut server = opened(0);
    server.handle(secs(2), part(3, items(&[1])), 1).unwrap();
    server.handle(secs(3), part(2, items(&[1])), 1).unwrap();
    assert_eq!(server.next_timeout(), secs(13));
    assert_eq!(server.overdue(before(secs(13))), None);
    assert_eq!(server.overdue(secs(13)), Some(Overdue::Standstill));
}

/// The client cannot go on if the server does not read.
#[test]
fn a_slow_reader_is_not_the_fault_of_a_client_in_the_middle_of_a_message() {
    let total = 3_000_000;
    let mut server = opened(0);
    let first = piece(65_536, 0, total);
    server.handle(secs(1), part(1, first), 1).unwrap();
    // The reply to it says that a window may come.
    let told = replies(&mut server, secs(1)).pop().unwrap().part.credit;
    let mut sent = 65_536;
    let mut sequence = 2;
    while sent < told {
        let len = (told - sent).min(131_072);
        let next = part(sequence, piece(len as usize, sent, total));
        server.handle(secs(1), next, 1).unwrap();
        sent += len;
        sequence += 1;
    }
    let acks = replies(&mut server, secs(1));
    assert!(
        acks.iter()
            .all(|ack| ack.part.credit == told || ack.to == 0)
    );
    if server.parked().next().is_none() {
        server.handle(secs(1), pull(0), 2).unwrap();
    }
    for second in 1..60 {
        assert_eq!(server.overdue(secs(second)), None, "{second} s");
        for reply in replies(&mut server, secs(second)) {
            let pull = pull(0);
            server.handle(secs(second), pull, reply.to).unwrap();
        }
        let next = server.next_timeout();
        assert!(next > secs(second), "{second} s: {next:?}");
    }
    // Once it reads, it is the client's turn.
    while server.read().is_some() {}
    assert_eq!(replies(&mut server, secs(60)).len(), 1);
    server.handle(secs(60), pull(0), 3).unwrap();
    assert_eq!(server.overdue(before(secs(70))), None);
    assert_eq!(server.overdue(secs(70)), Some(Overdue::Standstill));
}

#[test]
fn nobody_waits_for_the_rest_of_a_message_that_nobody_reads() {
    let mut server = opened(0);
    server
        .handle(Duration::ZERO, part(1, piece(100, 0, 50_000)), 1)
        .unwrap();
    server.discard();
    assert_eq!(server.buffered(), 0);
    assert_eq!(server.overdue(secs(12)), None);
    assert_eq!(server.next_timeout(), secs(15));
}

/// A machine that says a time that has passed, and then does nothing, would be asked for ever.
#[test]
fn what_is_due_is_done_or_ends_the_call() {
    let cases: [fn(&mut Server); 4] = [
        |_| {},
        |server| server.respond(HeaderMap::new()),
        |server| {
            let piece = part(1, piece(100, 0, 50_000));
            server.handle(secs(3), piece, 1).unwrap();
        },
        |server| {
            server.write(run(&[10_000]));
            server.respond(HeaderMap::new());
            server.finish(Ending::default());
        },
    ];
    for (number, case) in cases.iter().enumerate() {
        let mut server = opened(0);
        case(&mut server);
        let mut now = Duration::ZERO;
        for _turn in 0..100 {
            let due = server.next_timeout();
            assert!(due >= now, "case {number}: {due:?} at {now:?}");
            now = due;
            let did = replies(&mut server, now).len();
            if server.overdue(now).is_some() || server.is_over() {
                break;
            }
            let moved = server.next_timeout() > now;
            assert!(did > 0 || moved, "case {number} at {now:?}");
        }
        let ended = server.overdue(now).is_some() || server.is_over();
        assert!(ended, "case {number} goes on without a client");
    }
}
