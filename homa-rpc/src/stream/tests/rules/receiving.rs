//! What a receiver takes, and what it refuses.

use std::time::Duration;

use super::*;

#[test]
fn frames_in_any_order_are_read_in_theirs() {
    let mut server = opened(0);
    for sequence in [3, 1, 2] {
        let content = items(&[sequence as usize]);
        server
            .handle(Duration::ZERO, part(sequence, content), sequence)
            .unwrap();
        assert_eq!(server.has_ready(), sequence != 3, "{sequence}");
    }
    assert_eq!(read(&mut server), run(&[1, 2, 3]));
    assert_eq!(answered(&replies(&mut server, Duration::ZERO)), [3, 1, 2]);
}

#[test]
fn a_frame_that_comes_twice_is_answered_and_counts_once() {
    for (first, second) in [(1, 2), (2, 1)] {
        let mut server = opened(0);
        for sequence in [first, first, second, second, first] {
            let part = part(sequence, items(&[10]));
            server.handle(Duration::ZERO, part, 9).unwrap();
        }
        assert_eq!(server.buffered(), 30);
        assert_eq!(read(&mut server), run(&[10, 10]));
        assert_eq!(replies(&mut server, Duration::ZERO).len(), 5);
    }
}

#[test]
fn a_frame_may_be_63_numbers_early_and_not_more() {
    let empty = || items(&[0]);
    assert_eq!(outcome([part(64, empty())]), Ok(()));
    let error = outcome([part(65, empty())]);
    let expected = StreamError::TooFarAhead {
        sequence: 65,
        next: 1,
    };
    assert_eq!(error, Err(expected));
    // Half of all numbers ahead is as far as numbers reach; what is further is behind.
    let far = 1 + i32::MAX.cast_unsigned();
    assert!(outcome([part(far, empty())]).is_err());
    assert_eq!(outcome([part(far.wrapping_add(1), empty())]), Ok(()));
}

#[test]
fn pieces_follow_one_another_without_gap_overlap_or_change_of_mind() {
    let wrong = |have, have_total| {
        Err(StreamError::Fragment {
            want: 100,
            total: 300,
            have,
            have_total,
        })
    };
    let then = |content| outcome([part(1, piece(100, 0, 300)), part(2, content)]);
    assert_eq!(then(piece(200, 100, 300)), Ok(()));
    assert_eq!(then(piece(100, 99, 300)), wrong(99, 300), "overlaps");
    assert_eq!(then(piece(100, 101, 300)), wrong(101, 300), "leaves a gap");
    assert_eq!(then(piece(100, 0, 300)), wrong(0, 300), "begins again");
    assert_eq!(
        then(piece(200, 100, 301)),
        wrong(100, 301),
        "another length"
    );
    let first = outcome([part(1, piece(100, 1, 300))]);
    assert!(matches!(
        first,
        Err(StreamError::Fragment {
            want: 0,
            have: 1,
            ..
        })
    ));
}

#[test]
fn pieces_are_interrupted_by_nothing_but_frames_of_the_same_message() {
    let interrupted = Err(StreamError::Interrupted {
        want: 100,
        total: 300,
    });
    for other in [
        items(&[1]),
        Content::Message(Bytes::new()),
        Content::Message(vec![0; 200].into()),
    ] {
        let parts = [part(1, piece(100, 0, 300)), part(2, other.clone())];
        assert_eq!(outcome(parts), interrupted);
        // The same if the first piece comes last.
        let parts = [part(2, other), part(1, piece(100, 0, 300))];
        assert_eq!(outcome(parts), interrupted);
    }
}

#[test]
fn end_within_a_message_is_no_end() {
    let truncated = Err(StreamError::Truncated {
        have: 100,
        total: 300,
    });
    assert_eq!(outcome([last(1, piece(100, 0, 300))]), truncated);
    let parts = [part(1, piece(100, 0, 300)), last(2, Content::None)];
    assert_eq!(outcome(parts), truncated);
    // Nor for the reader, before the driver tells it.
    let mut server = opened(0);
    let refused = server.handle(Duration::ZERO, last(1, piece(100, 0, 300)), 1);
    assert!(refused.is_err());
    while server.read().is_some() {}
    assert!(!server.is_read());
}

#[test]
fn nothing_follows_end() {
    for late in [items(&[1]), Content::None, piece(1, 0, 2)] {
        let behind = [last(1, Content::None), part(2, late.clone())];
        assert_eq!(outcome(behind), Err(StreamError::AfterEnd));
        // What came before END, and stands behind it.
        let before = [part(2, late.clone()), last(1, Content::None)];
        assert_eq!(outcome(before), Err(StreamError::AfterEnd));
        // The same with a gap, which stays one.
        let behind = [last(1, Content::None), part(3, late.clone())];
        assert_eq!(outcome(behind), Err(StreamError::AfterEnd));
        let before = [part(3, late.clone()), last(1, Content::None)];
        assert_eq!(outcome(before), Err(StreamError::AfterEnd));
    }
    let again = [last(1, items(&[1])), last(1, items(&[1]))];
    assert_eq!(outcome(again), Ok(()), "a copy is none that follows");
    let mut server = opened(0);
    server
        .handle(Duration::ZERO, last(1, Content::None), 1)
        .unwrap();
    server.handle(Duration::ZERO, pull(0), 2).unwrap();
    assert!(server.is_read());
}

#[test]
fn a_run_is_whole_items() {
    let good = run(&[3, 0, 4]);
    for len in 1..good.len() {
        let is_whole = [8, 13].contains(&len);
        let cut = part(1, Content::Items(good.slice(..len)));
        let expected = if is_whole {
            Ok(())
        } else {
            Err(StreamError::Items { len })
        };
        assert_eq!(outcome([cut]), expected, "{len}");
    }
}

#[test]
fn what_is_over_the_credit_is_refused_in_order_and_early() {
    // A message counts as it would as an item.
    for (len, fits) in [(65_531, true), (65_532, false)] {
        for content in [
            items(&[len]),
            Content::Message(vec![0; len].into()),
            piece(len + 5, 0, 70_000),
        ] {
            for sequence in [1, 5] {
                let result = outcome([part(sequence, content.clone())]);
                let over = StreamError::OverCredit {
                    cost: len as u64 + 5,
                    credit: 65_536,
                };
                let expected = if fits { Ok(()) } else { Err(over) };
                assert_eq!(result, expected, "{sequence}: {len}");
            }
        }
    }
    let mut server = opened(0);
    let refused = server.handle(Duration::ZERO, part(1, items(&[65_532])), 1);
    assert!(
        refused.is_err() && server.read().is_none(),
        "it is not read"
    );
    // Frames count together, also those that wait for others.
    let parts = [part(2, items(&[40_000])), part(3, items(&[40_000]))];
    assert!(matches!(
        outcome(parts),
        Err(StreamError::OverCredit { credit: 25_531, .. })
    ));
}

#[test]
fn a_call_that_is_whole_needs_no_credit() {
    let first = |end| First {
        content: Content::Message(vec![0; 400_000].into()),
        end,
        credit: 0,
        single: false,
    };
    let mut server = Server::open(first(true), 0, CONTENT_MAX).unwrap();
    assert_eq!(read(&mut server).len(), 400_005);
    assert!(server.is_read());
    let (error, to) = Server::open(first(false), 7, CONTENT_MAX).unwrap_err();
    assert_eq!(to, 7);
    assert!(matches!(error, StreamError::OverCredit { .. }));
}
