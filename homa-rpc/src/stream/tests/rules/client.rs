//! What a client sends, and what it takes.

use std::time::Duration;

use super::*;
use crate::frame::Kind;
use crate::message::status::{Code, Status};
use crate::stream::client::{ClientCall, ClientFrame};

const NOW: Duration = Duration::ZERO;

fn frames(client: &mut ClientCall, now: Duration) -> Vec<ClientFrame> {
    let due = || client.poll_transmit(now).unwrap();
    std::iter::from_fn(due).collect()
}

/// A client whose CALL was sent.
fn called() -> (ClientCall, ClientFrame) {
    let mut client = ClientCall::new(CONTENT_MAX);
    let mut due = frames(&mut client, NOW);
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].kind, Kind::Call);
    (client, due.remove(0))
}

/// A client that knows that the server has its CALL, with the pull that is out.
fn confirmed() -> (ClientCall, ClientFrame) {
    let (mut client, call) = called();
    let mut headers = reply(0, Content::None);
    headers.part.headers = true;
    headers.part.credit = 65_536;
    client.handle(NOW, call, headers).unwrap();
    client.stop_deferring();
    let mut due = frames(&mut client, NOW);
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].kind, Kind::Pull);
    (client, due.remove(0))
}

fn end(sequence: u32, status: Option<Status>) -> Reply {
    let mut end = reply(sequence, Content::None);
    end.part.end = true;
    end.status = status;
    end
}

fn unknown() -> Reply {
    Reply {
        unknown_call: true,
        ..end(0, Some(Status::unavailable("unknown")))
    }
}

#[test]
fn until_it_is_confirmed_one_part_is_out_and_then_eight() {
    let (mut client, call) = called();
    for _ in 0..20 {
        client.write(run(&[3_000]));
        assert!(frames(&mut client, NOW).len() <= 1);
    }
    // The first one; the others have become one frame by the time that it is their turn.
    client.write(run(&[400_000]));
    let mut headers = reply(0, Content::None);
    headers.part.headers = true;
    headers.part.credit = 1 << 20;
    client.handle(NOW, call, headers).unwrap();
    let due = frames(&mut client, NOW);
    let parts = due.iter().filter(|frame| frame.kind == Kind::Part);
    assert!(parts.count() <= 7);
    for _ in 0..100 {
        client.write(run(&[65_000]));
    }
    let more = frames(&mut client, NOW);
    let parts = due.iter().chain(&more);
    let parts = parts.filter(|frame| frame.kind == Kind::Part).count();
    assert_eq!(parts, 7, "and the one that was sent before");
}

/// However it is answered, it arrives once, with its number.
#[test]
fn a_part_that_overtakes_its_call_goes_again() {
    let (mut client, call) = called();
    client.write(run(&[10]));
    client.finish();
    let mut due = frames(&mut client, NOW);
    assert_eq!(due.len(), 1);
    let mut part = due.remove(0);
    assert!(part.kind == Kind::Part && part.end);
    let sequence = part.sequence;
    let mut now = NOW;
    let mut wait = Duration::from_micros(500);
    for _try in 0..12 {
        client.handle(now, part, unknown()).unwrap();
        let again = client.next_timeout().unwrap();
        assert_eq!(again - now, wait);
        assert!(frames(&mut client, before(again)).is_empty());
        now = again;
        due = frames(&mut client, now);
        assert_eq!(due.len(), 1);
        part = due.remove(0);
        assert_eq!((part.sequence, part.end), (sequence, true));
        assert_eq!(received_len(&part), 15);
        assert_eq!(client.next_timeout(), None);
        wait = (wait * 2).min(millis(100));
    }
    client.handle(now, part, reply(0, Content::None)).unwrap();
    assert!(frames(&mut client, now).is_empty(), "it is not doubled");
    client.handle(now, call, end(0, None)).unwrap();
    assert!(client.is_over() && client.outcome().unwrap().status.is_none());
}

/// Its driver would run again and again for a frame that does not go.
#[test]
fn a_part_that_is_to_go_again_waits_for_nothing_once_the_call_is_unknown() {
    let (mut client, call) = called();
    client.write(run(&[10]));
    let part = frames(&mut client, NOW).remove(0);
    let mut headers = reply(0, Content::None);
    headers.part.headers = true;
    client.handle(NOW, call, headers).unwrap();
    client.stop_deferring();
    let pull = frames(&mut client, NOW).remove(0);
    client.write(run(&[10]));
    let _second = frames(&mut client, NOW).remove(0);
    client.handle(NOW, part, unknown()).unwrap();
    assert!(client.next_timeout().is_some());
    client.handle(NOW, pull, unknown()).unwrap();
    assert!(frames(&mut client, secs(1)).is_empty());
    assert_eq!(client.next_timeout(), None);
}

/// Just before.
fn before(time: Duration) -> Duration {
    time - Duration::from_micros(1)
}

fn received_len(frame: &ClientFrame) -> usize {
    frame.content.cost_to_send()
}

#[test]
fn a_call_that_the_server_has_forgotten_is_unavailable_once_nothing_is_out() {
    let (mut client, pull) = confirmed();
    client.write(run(&[10]));
    let part = frames(&mut client, NOW).remove(0);
    // How it ended may be in the reply to the pull.
    client.handle(NOW, part, unknown()).unwrap();
    client.write(run(&[10]));
    assert!(frames(&mut client, NOW).is_empty());
    let status = client.handle(NOW, pull, unknown()).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);

    let (mut client, pull) = confirmed();
    client.write(run(&[10]));
    let part = frames(&mut client, NOW).remove(0);
    client.handle(NOW, part, unknown()).unwrap();
    let aborted = Some(Status::aborted("why"));
    client.handle(NOW, pull, end(1, aborted)).unwrap();
    let outcome = client.outcome().unwrap();
    assert_eq!(outcome.status.as_ref().unwrap().code(), Code::Aborted);
}

/// Items fill the window of a reader that does not read. A frame without credit stays with the server, by which
/// it can tell how the call ended.
#[test]
fn one_frame_stays_parked_until_the_end_also_without_credit() {
    let (mut client, pull) = confirmed();
    let mut out = vec![pull];
    let mut sequence = 1;
    let mut buffered = 0;
    let without = loop {
        let frame = out.remove(0);
        if frame.credit == 0 {
            break frame;
        }
        let len = frame.credit as usize;
        buffered += len;
        let full = reply(sequence, items(&[len - 5]));
        client.handle(NOW, frame, full).unwrap();
        client.stop_deferring();
        sequence += 1;
        out.extend(frames(&mut client, NOW));
        assert!(!out.is_empty(), "none is parked");
        assert!(buffered <= 1 << 21, "{buffered} bytes");
    };
    assert!(out.is_empty(), "{out:?}");
    assert!(frames(&mut client, secs(100)).is_empty(), "one is enough");
    // Renewed as often as the server asks for it.
    let mut parked = without;
    for _ in 0..10 {
        client
            .handle(NOW, parked, reply(sequence, Content::None))
            .unwrap();
        client.stop_deferring();
        let mut due = frames(&mut client, NOW);
        assert_eq!(due.len(), 1);
        parked = due.remove(0);
        assert_eq!((parked.kind, parked.credit), (Kind::Pull, 0));
    }
    // Once half of it is read it asks for more.
    let mut read = 0;
    while !client.wants_pull() {
        read += client.read().unwrap().len();
    }
    assert!(read <= buffered / 2, "{read} of {buffered} bytes");
    let more = frames(&mut client, NOW);
    assert!(more[0].credit > 0);
    client.handle(NOW, parked, end(sequence, None)).unwrap();
    assert!(client.is_over() && frames(&mut client, NOW).is_empty());
}

#[test]
fn what_was_not_asked_for_is_refused() {
    let (mut client, pull) = confirmed();
    assert_eq!(pull.credit, 65_536);
    let fits = reply(1, items(&[65_531]));
    client.handle(NOW, pull.clone(), fits).unwrap();
    let (mut client, pull) = confirmed();
    let over = reply(1, items(&[65_532]));
    let status = client.handle(NOW, pull, over).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("65537"), "{status}");
    assert!(status.message().contains("65536"), "{status}");
    // The reply to a PART that is no pull has no room for items.
    let (mut client, _pull) = confirmed();
    client.write(run(&[10]));
    let part = frames(&mut client, NOW).remove(0);
    assert_eq!((part.kind, part.credit), (Kind::Part, 0));
    let status = client.handle(NOW, part, reply(1, items(&[0])));
    assert_eq!(status.unwrap_err().code(), Code::Internal);
}

#[test]
fn a_reply_that_breaks_the_rules_ends_the_call() {
    let cases: [fn() -> Reply; 4] = [
        || reply(1 + 64, items(&[1])),
        || reply(1, piece(10, 5, 100)),
        || reply(1, Content::Items(Bytes::from_static(b"\0\0\0\0\x09"))),
        || {
            let mut end = reply(1, piece(10, 0, 100));
            end.part.end = true;
            end
        },
    ];
    for case in cases {
        let (mut client, pull) = confirmed();
        let status = client.handle(NOW, pull, case()).unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status}");
        assert!(!client.is_over() || client.outcome().is_none());
    }
}

/// A server that cannot read a frame, or drops it, says so in a reply that has no place in the response.
#[test]
fn an_end_outside_of_the_response_is_the_end() {
    let (mut client, pull) = confirmed();
    let damaged = Some(Status::internal("damaged"));
    let status = client.handle(NOW, pull, end(0, damaged)).unwrap_err();
    assert_eq!(status.message(), "damaged");
    let (mut client, pull) = confirmed();
    let status = client.handle(NOW, pull, end(0, None)).unwrap_err();
    assert_eq!(status.code(), Code::Internal, "and not success");
}

/// A server that ends a call breaks off what it is sending.
#[test]
fn a_failure_within_a_message_is_told_and_what_came_of_it_is_no_message() {
    let (mut client, pull) = confirmed();
    let cut = reply(1, piece(10_000, 0, 20_000));
    client.handle(NOW, pull, cut).unwrap();
    client.stop_deferring();
    let pull = frames(&mut client, NOW).remove(0);
    let late = Some(Status::deadline_exceeded("late"));
    client.handle(NOW, pull, end(2, late)).unwrap();
    let read: Vec<u8> = std::iter::from_fn(|| client.read()).flatten().collect();
    assert_eq!(read.len(), 10_005, "whose head says more");
    let outcome = client.outcome().unwrap();
    let status = outcome.status.as_ref().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[test]
fn a_reply_that_comes_twice_counts_once() {
    let (mut client, pull) = confirmed();
    client.handle(NOW, pull, reply(1, items(&[3]))).unwrap();
    client.stop_deferring();
    for frame in frames(&mut client, NOW) {
        client.handle(NOW, frame, reply(1, items(&[3]))).unwrap();
    }
    assert_eq!(client.read().unwrap(), run(&[3]));
    assert_eq!(client.read(), None);
}

#[test]
fn a_message_is_taken_where_an_item_is_expected() {
    let (mut client, pull) = confirmed();
    let mut whole = reply(1, Content::Message(Bytes::from_static(b"\0\0\0")));
    whole.part.end = true;
    client.handle(NOW, pull, whole).unwrap();
    let read: Vec<u8> = std::iter::from_fn(|| client.read()).flatten().collect();
    assert_eq!(read, run(&[3]));
    assert!(client.outcome().unwrap().status.is_none());
}

#[test]
fn a_body_that_ends_within_a_message_is_not_sent_to_its_end() {
    for body in [&b"\0\0\0"[..], b"\0\0\0\0\x05abcd"] {
        let mut client = ClientCall::new(CONTENT_MAX);
        client.write(Bytes::from_static(body));
        client.finish();
        let error = client.poll_transmit(NOW).unwrap_err();
        assert!(matches!(error, StreamError::BodyTruncated { .. }));
    }
    let mut client = ClientCall::new(CONTENT_MAX);
    client.write(Bytes::from_static(b"\x01\0\x01\0\0"));
    let error = client.poll_transmit(NOW).unwrap_err();
    let compressed = StreamError::Compressed {
        flag: 1,
        total: 65_536,
    };
    assert_eq!(error, compressed);
}
