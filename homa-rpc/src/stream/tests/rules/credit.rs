//! Credit and numbers: across the wrap, and the rules by which neither side waits for the other.

use std::time::Duration;

use super::*;
use crate::frame::Kind;
use crate::stream::client::{ClientCall, ClientFrame};

const NOW: Duration = Duration::ZERO;

/// Both ends with nothing between them. Frames arrive at once, and no time passes.
struct Pair {
    client: ClientCall,
    server: Server,
    /// Frames that the server has not answered.
    out: Vec<(u32, ClientFrame)>,
    next: u32,
}

impl Pair {
    fn new(sequence: u32, bytes: u32) -> Self {
        let mut client = ClientCall::new_at(CONTENT_MAX, sequence, bytes);
        let call = client.poll_transmit(NOW).unwrap().unwrap();
        assert_eq!(call.kind, Kind::Call);
        Self {
            client,
            server: opened_at(call.credit, sequence, bytes),
            out: vec![(0, call)],
            next: 1,
        }
    }

    /// Delivers frames and replies until there are none.
    fn settle(&mut self) {
        loop {
            let mut any = false;
            while let Some(frame) = self.client.poll_transmit(NOW).unwrap() {
                any = true;
                let carries = frame.kind == Kind::Part;
                let part = Part {
                    is_pull: !carries || frame.credit > 0,
                    carries,
                    sequence: frame.sequence,
                    credit: frame.credit,
                    content: received(frame.content.clone()),
                    end: frame.end,
                };
                self.server.handle(NOW, part, self.next).unwrap();
                self.out.push((self.next, frame));
                self.next += 1;
            }
            for answer in replies(&mut self.server, NOW) {
                any = true;
                let at = self.out.iter().position(|(to, _)| *to == answer.to);
                let (_, frame) = self.out.remove(at.unwrap());
                let answer = Reply {
                    part: answer.part,
                    ..reply(0, received(answer.content))
                };
                self.client.handle(NOW, frame, answer).unwrap();
            }
            self.client.stop_deferring();
            if !any {
                return;
            }
        }
    }

    /// Sends an item of zeros of so many bytes with its head, and reads what comes.
    fn send(&mut self, wire: usize, read: &mut usize) {
        self.client.write(run(&[wire - 5]));
        self.settle();
        *read += self.read();
    }

    /// Reads all that there is, to the last byte that credit allows.
    fn read(&mut self) -> usize {
        let mut read = 0;
        while let Some(chunk) = self.server.read() {
            read += chunk.len();
            if self.server.has_credit_to_tell() {
                self.settle();
            }
        }
        read
    }
}

/// What arrives of what is sent.
fn received(content: Content<homa_transport::Message>) -> Content {
    match content {
        Content::None => Content::None,
        Content::Message(message) => Content::Message(message.into_bytes()),
        Content::Items(run) => Content::Items(run.into_bytes()),
        Content::Fragment {
            piece,
            offset,
            total,
        } => Content::Fragment {
            piece: piece.into_bytes(),
            offset,
            total,
        },
    }
}

/// The largest item that waits for credit as a whole, at every place in the window.
#[test]
fn an_item_gets_through_by_what_is_read_wherever_the_window_stands() {
    for before in (5..65_536).step_by(1_009).chain(32_700..32_840) {
        for wire in [5, 6, 32_767, 32_768, 32_769, 65_536, 65_537, 70_000] {
            let mut pair = Pair::new(0, 0);
            let mut read = 0;
            pair.send(before, &mut read);
            assert_eq!(read, before);
            pair.send(wire, &mut read);
            assert_eq!(read, before + wire, "{wire} bytes behind {before}");
        }
    }
}

#[test]
fn numbers_and_credit_go_on_across_the_wrap() {
    for bytes in [0, u32::MAX - 70_000, u32::MAX - 1, u32::MAX, 1 << 31] {
        for sequence in [0, u32::MAX - 2, u32::MAX, i32::MAX.cast_unsigned()] {
            let mut pair = Pair::new(sequence, bytes);
            let mut read = 0;
            let mut sent = 0;
            for number in 0..300 {
                let wire = 5 + number * 977 % 3_000;
                pair.send(wire, &mut read);
                sent += wire;
                assert_eq!(read, sent, "{bytes}, {sequence}");
            }
            for wire in [200_000, 5] {
                pair.send(wire, &mut read);
                sent += wire;
                assert_eq!(read, sent);
            }
        }
    }
}

/// Credit is 32 bits of a count that is longer.
#[test]
fn a_request_of_more_than_4_gib_does_not_jam() {
    let mut pair = Pair::new(0, 0);
    let item = run(&[65_531]);
    let mut read = 0;
    for number in 1..=70_000_usize {
        pair.client.write(item.clone());
        pair.settle();
        read += pair.read();
        assert_eq!(read, number * 65_536, "of item {number}");
    }
    pair.client.finish();
    pair.settle();
    assert!(pair.server.is_read());
}

#[test]
fn a_response_of_more_frames_than_there_are_numbers_near_the_wrap_goes_on() {
    let mut pair = Pair::new(u32::MAX - 50, 0);
    pair.server.respond(HeaderMap::new());
    let mut read = 0;
    for number in 1..=200_usize {
        pair.server.write(run(&[20_000]));
        pair.settle();
        while let Some(chunk) = pair.client.read() {
            read += chunk.len();
        }
        assert_eq!(read, number * 20_005);
    }
}

#[test]
fn a_writer_stops_when_nobody_reads_and_goes_on_when_somebody_does() {
    let mut pair = Pair::new(0, 0);
    for _ in 0..1_000 {
        pair.client.write(run(&[995]));
    }
    pair.settle();
    assert!(pair.server.buffered() <= 65_536);
    assert!(pair.server.buffered() > 64_000);
    assert!(pair.client.unsent() >= 1_000_000 - 65_536);
    let mut read = 0;
    while read < 1_000_000 {
        let more = pair.read();
        assert!(more > 0, "it stalls at {read}");
        read += more;
        pair.settle();
    }
    assert_eq!(read, 1_000_000);
}

/// Short items fill the window to its last byte, and so does a long one whose piece is worth it.
#[test]
fn credit_is_used_up_to_the_last_byte() {
    for before in [32_768, 32_769, 65_536 - 1_024] {
        let mut pair = Pair::new(0, 0);
        pair.client.write(run(&[before - 5]));
        pair.client.write(run(&[100_000]));
        pair.settle();
        // What is left is a piece if it has 32,768 bytes.
        let expected = if before == 32_768 { 65_536 } else { before };
        assert_eq!(pair.server.buffered(), expected, "{before}");
    }
    let mut pair = Pair::new(0, 0);
    for _ in 0..100 {
        pair.client.write(run(&[1_019]));
    }
    pair.settle();
    assert_eq!(pair.server.buffered(), 65_536);
}

/// Credit that is told late, or twice, takes nothing away.
#[test]
fn credit_never_shrinks() {
    let mut pair = Pair::new(0, 0);
    let mut read = 0;
    let mut told = 65_536;
    for _ in 0..100 {
        pair.send(30_000, &mut read);
        pair.server
            .handle(NOW, part(0, items(&[1])), 9_999)
            .unwrap();
        let ack = pair.server.poll_reply(NOW).unwrap().unwrap();
        assert_eq!(ack.to, 9_999, "a copy of the first frame is answered");
        assert!(ack.part.credit >= told);
        told = ack.part.credit;
    }
    assert!(told > 3_000_000);
}
