//! What a peer can make this side hold.

use std::time::Duration;

use super::*;

const NOW: Duration = Duration::ZERO;

#[test]
fn a_million_pulls_leave_16_of_them() {
    let mut server = opened(0);
    let mut answers = 0;
    for to in 1..=1_000_000 {
        server.handle(NOW, pull(to % 3), to).unwrap();
        assert!(server.parked().count() <= 17);
        // The ones that can be spared go first, each at once.
        let due = replies(&mut server, NOW);
        assert!(due.len() <= 1);
        answers += due.len();
        assert!(server.parked().count() <= 16);
    }
    assert_eq!(answers, 1_000_001 - 16);
    let mut parked: Vec<_> = server.take_parked().collect();
    parked.sort_unstable();
    parked.dedup();
    assert_eq!(parked.len(), 16);
}

#[test]
fn parts_are_answered_at_once_and_none_is_kept() {
    let mut server = opened(0);
    for sequence in 1..100_000 {
        let part = part(sequence, items(&[0]));
        server.handle(NOW, part, sequence).unwrap();
        assert_eq!(answered(&replies(&mut server, NOW))[0], sequence);
        while server.read().is_some() {}
        if server.parked().count() == 0 {
            server.handle(NOW, pull(0), 0).unwrap();
        }
    }
}

#[test]
fn a_client_that_never_pulls_gets_what_its_call_asked_for() {
    let mut server = opened(1_000);
    server.respond(HeaderMap::new());
    server.write(run(&[100; 1_000]));
    let due = replies(&mut server, NOW);
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].content.cost_to_send(), 945, "9 items of 105 bytes");
    assert!(replies(&mut server, secs(9)).is_empty());
    assert_eq!(server.unsent(), 105_000 - 945);
}

/// Each frame takes more memory than its one byte, so that many of them have to become few.
#[test]
fn short_frames_are_joined_while_nobody_reads() {
    let total = 60_000;
    let mut server = opened(0);
    for offset in 0..total {
        let next = part(1 + offset, piece(1, offset, total));
        server.handle(NOW, next, 1).unwrap();
        replies(&mut server, NOW);
        if server.parked().count() == 0 {
            server.handle(NOW, pull(0), 0).unwrap();
        }
    }
    assert_eq!(server.buffered(), 60_000);
    let chunks: Vec<_> = std::iter::from_fn(|| server.read()).collect();
    assert!(chunks.len() <= 60_000 / 60, "{} chunks", chunks.len());
    assert_eq!(server.buffered(), 0);
    let bytes: Vec<u8> = chunks.into_iter().flatten().collect();
    assert_eq!(bytes, run(&[60_000]));
}

/// With a reader in between, nothing is lost, doubled or counted wrongly.
#[test]
fn joined_frames_are_read_as_they_came() {
    for pause in [1, 2, 63, 64, 65, 127, 200] {
        let mut server = opened(0);
        let mut expected = Vec::new();
        let mut bytes = Vec::new();
        for sequence in 1..=1_000 {
            let len = sequence as usize * 7 % 40;
            expected.extend(run(&[len]));
            let next = part(sequence, items(&[len]));
            server.handle(NOW, next, sequence).unwrap();
            if sequence % pause == 0 {
                bytes.extend(server.read().unwrap());
            }
        }
        bytes.extend(read(&mut server));
        assert!(bytes == expected, "read at each {pause}th");
        assert_eq!(server.buffered(), 0);
    }
}

#[test]
fn frames_over_the_credit_leave_nothing_that_counts_as_read() {
    let mut server = opened(0);
    for sequence in 1..10 {
        let _refused = server.handle(NOW, part(sequence, items(&[60_000])), sequence);
    }
    // The driver ends the call with the first of them.
    server.discard();
    assert_eq!(server.buffered(), 0);
    assert!(!server.has_credit_to_tell());
}
