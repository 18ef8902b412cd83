//! What releases a parked frame, and which.

use std::time::Duration;

use super::*;
use crate::message::status::{Code, Status};
use crate::stream::server::Ending;

const NOW: Duration = Duration::from_millis(7);

/// A call with one parked frame, which takes no items.
fn parked() -> Server {
    let mut server = opened(0);
    assert!(replies(&mut server, NOW).is_empty(), "nothing to say");
    server
}

fn one(server: &mut Server) -> ServerReply<u32> {
    let mut due = replies(server, NOW);
    assert_eq!(due.len(), 1, "{due:?}");
    due.remove(0)
}

#[test]
fn headers_release_a_frame_at_once() {
    let mut server = parked();
    server.respond(HeaderMap::new());
    let reply = one(&mut server);
    assert!(reply.part.headers && !reply.part.end);
    assert_eq!((reply.to, reply.part.sequence), (0, 0));
    server.handle(NOW, pull(0), 1).unwrap();
    assert!(replies(&mut server, NOW).is_empty(), "they are told once");
}

#[test]
fn the_end_releases_a_frame_at_once_and_with_it_all_others() {
    let mut server = parked();
    server.respond(HeaderMap::new());
    one(&mut server);
    for to in 1..=3 {
        server.handle(NOW, pull(0), to).unwrap();
    }
    assert!(replies(&mut server, NOW).is_empty());
    server.finish(Ending::default());
    let due = replies(&mut server, NOW);
    assert_eq!(answered(&due), [1, 2, 3]);
    assert!(due[0].part.end && due[0].ending.status.is_none());
    assert!(!due[1].part.end && !due[2].part.end);
    assert!(server.is_over());
    server.handle(NOW, pull(9), 4).unwrap();
    assert_eq!(answered(&replies(&mut server, NOW)), [4]);
}

#[test]
fn a_status_releases_a_frame_at_once_before_and_behind_headers() {
    for responds in [false, true] {
        let mut server = parked();
        if responds {
            server.respond(HeaderMap::new());
            one(&mut server);
            server.handle(NOW, pull(0), 1).unwrap();
        }
        server.finish(Status::aborted("why").into());
        let reply = one(&mut server);
        assert!(reply.part.end);
        assert_eq!(reply.ending.status.unwrap().code(), Code::Aborted);
    }
}

#[test]
fn an_abort_does_not_wait_for_items_to_be_pulled() {
    let mut server = parked();
    server.respond(HeaderMap::new());
    one(&mut server);
    server.handle(NOW, pull(0), 1).unwrap();
    server.write(run(&[10_000]));
    assert!(replies(&mut server, NOW).is_empty(), "no credit");
    server.abort(Status::deadline_exceeded("late"));
    let reply = one(&mut server);
    assert!(reply.part.end && reply.content.cost_to_send() == 0);
    assert_eq!(reply.ending.status.unwrap().code(), Code::DeadlineExceeded);
    // The first end is the one that counts.
    server.abort(Status::internal("later"));
    server.finish(Ending::default());
    assert!(replies(&mut server, NOW).is_empty());
}

#[test]
fn a_status_comes_behind_the_items_written_before_it() {
    let mut server = parked();
    server.respond(HeaderMap::new());
    server.write(run(&[10, 20]));
    server.finish(Status::aborted("why").into());
    let head = one(&mut server);
    assert!(head.part.headers && !head.part.end);
    server.handle(NOW, pull(1_000), 1).unwrap();
    let reply = one(&mut server);
    assert_eq!(reply.content.cost_to_send(), 40);
    assert!(reply.part.end && reply.ending.status.is_some());
}

#[test]
fn credit_grown_by_half_a_window_releases_a_frame_at_once() {
    for (wire, is_half) in [(32_767, false), (32_768, true)] {
        let mut server = parked();
        let content = items(&[wire - 5]);
        server.handle(NOW, part(1, content), 1).unwrap();
        let ack = one(&mut server);
        assert_eq!((ack.to, ack.part.credit), (1, 65_536), "nothing is read");
        server.read().unwrap();
        assert_eq!(server.has_credit_to_tell(), is_half);
        let due = replies(&mut server, NOW);
        assert_eq!(due.len(), usize::from(is_half), "{wire}");
        for reply in due {
            assert_eq!(reply.to, 0, "the parked frame");
            assert!(reply.part.credit >= 65_536 + 32_768);
            assert_eq!(reply.content.cost_to_send(), 0);
        }
        assert!(!server.has_credit_to_tell());
    }
}

#[test]
fn credit_is_of_no_use_behind_the_end_of_the_request() {
    let mut server = parked();
    server.handle(NOW, last(1, items(&[60_000])), 1).unwrap();
    one(&mut server);
    while server.read().is_some() {}
    assert!(replies(&mut server, NOW).is_empty());
}

#[test]
fn items_take_a_frame_with_credit_and_words_one_without_whichever_is_older() {
    for (first, second) in [(0, 1_000), (1_000, 0)] {
        let mut server = opened(first);
        server.handle(NOW, pull(second), 1).unwrap();
        let (without, with) = if first == 0 { (0, 1) } else { (1, 0) };
        server.respond(HeaderMap::new());
        assert_eq!(one(&mut server).to, without, "headers");
        server.handle(NOW, pull(0), 2).unwrap();
        server.write(run(&[10]));
        let reply = one(&mut server);
        assert_eq!((reply.to, reply.content.cost_to_send()), (with, 15));
        server.handle(NOW, pull(9), 3).unwrap();
        server.finish(Ending::default());
        let due = replies(&mut server, NOW);
        assert_eq!(answered(&due), [2, 3], "END, and what is left");
        assert!(due[0].part.end);
    }
}

#[test]
fn a_pull_too_short_for_any_item_does_not_hold_up_those_behind_it() {
    let mut server = opened(3);
    server.respond(HeaderMap::new());
    assert_eq!(one(&mut server).to, 0);
    server.handle(NOW, pull(4), 1).unwrap();
    server.handle(NOW, pull(1_000), 2).unwrap();
    server.write(run(&[0, 100]));
    let reply = one(&mut server);
    assert_eq!((reply.to, reply.content.cost_to_send()), (2, 110));
}

#[test]
fn a_reply_has_no_more_than_was_asked_for() {
    for credit in [5, 6, 100, 4_096, 65_536, u32::MAX] {
        let mut server = opened(credit);
        server.respond(HeaderMap::new());
        server.write(run(&[3_000, 300_000]));
        let mut sent = 0;
        while server.unsent() > 0 {
            let due = replies(&mut server, NOW);
            assert_eq!(due.len(), 1);
            let cost = due[0].content.cost_to_send();
            assert!(cost > 0 && cost <= credit as usize, "{cost} for {credit}");
            sent += cost;
            server.handle(NOW, pull(credit), 1).unwrap();
        }
        // A head is not sent of what is cut.
        let cut = if credit < 3_005 { 2 } else { 1 };
        assert_eq!(sent, 303_010 - 5 * cut, "{credit}");
    }
}
