//! Streams over a network that delays and reorders frames, compared with a queue per direction.
//!
//! A failure names its seed, which repeats it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::Random;
use crate::frame::{
    self, CallHead, Content, Kind, PartHead, ReplyHead, Request, decode_reply, decode_request,
    encode_call, encode_part, encode_reply,
};
use crate::message::status::{Code, Status};
use crate::stream::client::{ClientCall, ClientFrame};
use crate::stream::server::{Ending, First, ServerCall, ServerReply};

/// Longest frame, in bytes.
const MAX: usize = 1_000_000;

/// What is buffered for a reader never exceeds this, in bytes.
const BUFFERED_MAX: usize = (1 << 20) + 65_536;

/// One direction: what was written, and what came.
#[derive(Default)]
struct Direction {
    /// Items that the writer has still to write.
    to_write: VecDeque<Bytes>,
    /// Written and not yet read, in order: the reference.
    queue: VecDeque<Bytes>,
    /// Bytes read that are no whole item yet.
    partial: BytesMut,
    read: usize,
    finished: bool,
    ended: bool,
}

impl Direction {
    fn random(random: &mut Random) -> Self {
        let count = match random.below(10) {
            0 => 0,
            1..=2 => 1,
            3..=8 => random.below(200),
            _ => random.below(3_000),
        };
        let long = random.chance(30);
        let to_write = (0..count).map(|_| {
            let len = match random.below(100) {
                0..=1 if long => random.below(400_000),
                0..=5 if long => random.below(70_000),
                0..=20 => 0,
                _ => random.below(300),
            };
            let byte = u8::try_from(random.below(256)).unwrap();
            Bytes::from(vec![byte; usize::try_from(len).unwrap()])
        });
        Self {
            to_write: to_write.collect(),
            ..Self::default()
        }
    }

    /// The next items to write, as a run, perhaps cut where no item ends.
    fn write(&mut self, random: &mut Random, mut to: impl FnMut(Bytes)) {
        let mut run = BytesMut::new();
        for _ in 0..=random.below(5) {
            let Some(item) = self.to_write.pop_front() else {
                break;
            };
            run.put_u8(0);
            run.put_u32(u32::try_from(item.len()).unwrap());
            run.put_slice(&item);
            self.queue.push_back(item);
        }
        let mut run = run.freeze();
        if random.chance(20) && !run.is_empty() {
            let at = usize::try_from(random.below(run.len() as u64)).unwrap();
            to(run.split_to(at));
        }
        to(run);
    }

    /// Compares what was read with what was written.
    fn on_read(&mut self, chunk: &[u8]) {
        self.partial.extend_from_slice(chunk);
        while self.partial.len() >= 5 {
            let len = u32::from_be_bytes(self.partial[1..5].try_into().unwrap()) as usize;
            if self.partial.len() < 5 + len {
                break;
            }
            let item = self.partial.split_to(5 + len).split_off(5);
            let expected = self
                .queue
                .pop_front()
                .expect("more items than were written");
            assert!(item == expected, "item {} differs", self.read);
            self.read += 1;
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    ToServer { frame: usize, bytes: Vec<u8> },
    ToClient { frame: usize, bytes: Vec<u8> },
    ClientWrites,
    ServerWrites,
    ClientReads,
    ServerReads,
    Timer,
}

struct World {
    random: Random,
    now: Duration,
    number: u64,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    client: ClientCall,
    server: Option<ServerCall<(usize, Kind)>>,
    /// Frames on their way, by their numbers.
    frames: Vec<Option<ClientFrame>>,
    up: Direction,
    down: Direction,
    slow_reader: bool,
    delay_max: u64,
    sequence: u32,
    bytes: u32,
    headers_sent: bool,
    fails_with: Option<Code>,
    replies: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // Every other world begins shortly before its counters wrap.
        let (sequence, bytes) = match random.chance(50) {
            true => (0, 0),
            false => (u32::MAX - 5, u32::MAX - 100_000),
        };
        let up = Direction::random(&mut random);
        let down = Direction::random(&mut random);
        let fails_with = random.chance(20).then_some(Code::Aborted);
        let mut world = Self {
            now: Duration::ZERO,
            number: 0,
            events: BinaryHeap::new(),
            client: ClientCall::new_at(MAX / 2, sequence, bytes),
            server: None,
            frames: Vec::new(),
            up,
            down,
            slow_reader: random.chance(20),
            delay_max: [50, 1_000, 20_000][usize::try_from(random.below(3)).unwrap()],
            sequence,
            bytes,
            headers_sent: false,
            fails_with,
            replies: 0,
            random,
        };
        for event in [Event::ClientWrites, Event::ClientReads, Event::Timer] {
            world.at(0, event);
        }
        world
    }

    fn at(&mut self, micros: u64, event: Event) {
        let due = self.now + Duration::from_micros(micros);
        self.number += 1;
        self.events.push(Reverse((due, self.number, event)));
    }

    fn delay(&mut self) -> u64 {
        10 + self.random.below(self.delay_max)
    }

    fn flush_client(&mut self) {
        while let Some(frame) = self.client.poll_transmit(self.now).unwrap() {
            let content = frame.content.clone();
            let metadata = HeaderMap::new();
            let message = match frame.kind {
                Kind::Call => {
                    let head = CallHead {
                        call_id: 1,
                        timeout: None,
                        cancel_frame: true,
                        single: false,
                        checksum: false,
                        credit: frame.credit,
                        end: frame.end,
                        path: "/a.B/C",
                        metadata: &metadata,
                    };
                    encode_call(head, content, MAX).unwrap()
                }
                _ => encode_part(
                    PartHead {
                        call_id: 1,
                        checksum: false,
                        sequence: frame.sequence,
                        credit: frame.credit,
                        end: frame.end,
                    },
                    content,
                ),
            };
            let event = Event::ToServer {
                frame: self.frames.len(),
                bytes: message.into_bytes().to_vec(),
            };
            self.frames.push(Some(frame));
            let delay = self.delay();
            self.at(delay, event);
        }
        let on_way = self.frames.iter().flatten().count();
        assert!(on_way <= 32, "{on_way} frames on their way");
    }

    fn flush_server(&mut self) {
        while let Some(server) = &mut self.server
            && let Some(reply) = server.poll_reply(self.now).unwrap()
        {
            let ServerReply {
                to: (frame, kind),
                part,
                initial,
                content,
                ending,
            } = reply;
            self.reply(frame, kind, part, content, &initial, &ending, false);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a frame")]
    fn reply(
        &mut self,
        frame: usize,
        kind: Kind,
        part: frame::ReplyPart,
        content: Content<homa_transport::Message>,
        initial: &HeaderMap,
        ending: &Ending,
        unknown_call: bool,
    ) {
        let head = ReplyHead {
            kind,
            call_id: 1,
            checksum: false,
            cancel_told: false,
            load: 0,
            part,
            unknown_call,
            initial,
            trailing: &ending.trailing,
            status: ending.status.as_ref(),
        };
        let bytes = encode_reply(head, content, MAX).unwrap().into_bytes();
        let delay = self.delay();
        let event = Event::ToClient {
            frame,
            bytes: bytes.to_vec(),
        };
        self.replies += 1;
        self.at(delay, event);
    }

    fn arrive_at_server(&mut self, frame: usize, bytes: Vec<u8>) {
        match decode_request(bytes.into()).unwrap() {
            Request::Call(call) => {
                let first = First {
                    content: call.content,
                    end: call.end,
                    credit: call.credit,
                    single: false,
                };
                let to = (frame, Kind::Call);
                let server = ServerCall::open_at(first, to, MAX / 2, self.sequence, self.bytes);
                self.server = Some(server.unwrap());
                let pause = self.random.below(30_000);
                self.at(pause, Event::ServerWrites);
                self.at(0, Event::ServerReads);
            }
            Request::Part(part) => {
                let kind = if part.carries { Kind::Part } else { Kind::Pull };
                match &mut self.server {
                    Some(server) if !server.is_over() || part.is_pull => {
                        server.handle(self.now, part, (frame, kind)).unwrap();
                    }
                    _ => {
                        let ending = Status::unavailable("unknown").into();
                        let part = frame::ReplyPart::WHOLE;
                        let none = HeaderMap::new();
                        self.reply(frame, kind, part, Content::None, &none, &ending, true);
                    }
                }
            }
            Request::Cancel => unreachable!(),
        }
        self.flush_server();
    }

    fn arrive_at_client(&mut self, frame: usize, bytes: Vec<u8>) {
        let frame = self.frames[frame].take().unwrap();
        let reply = decode_reply(bytes.into(), frame.kind, 1).unwrap();
        self.client.handle(self.now, frame, reply).unwrap();
        if self.random.chance(50) {
            self.client.stop_deferring();
        }
        self.flush_client();
    }

    fn client_writes(&mut self) {
        while self.client.unsent() < 65_536 && !self.up.to_write.is_empty() {
            self.up
                .write(&mut self.random, |chunk| self.client.write(chunk));
            if self.random.chance(30) {
                break;
            }
        }
        if self.up.to_write.is_empty() && !self.up.finished {
            self.up.finished = true;
            self.client.finish();
        }
        self.client.stop_deferring();
        self.flush_client();
        if !self.up.finished && !self.client.is_over() {
            let pause = self.random.below(2_000);
            self.at(pause, Event::ClientWrites);
        }
    }

    fn server_writes(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        if !self.headers_sent {
            self.headers_sent = true;
            let mut headers = HeaderMap::new();
            headers.insert("k", "v".parse().unwrap());
            server.respond(headers);
        } else {
            while server.unsent() < 65_536 && !self.down.to_write.is_empty() {
                self.down
                    .write(&mut self.random, |chunk| server.write(chunk));
                if self.random.chance(30) {
                    break;
                }
            }
            // A server may end before it has read all of the request.
            let ends = self.down.to_write.is_empty()
                && (server.is_read() || (self.fails_with.is_some() && self.random.chance(5)));
            if ends && !self.down.finished {
                self.down.finished = true;
                let status = self.fails_with.map(|code| Status::new(code, "why"));
                server.finish(status.map_or_else(Ending::default, Into::into));
            }
        }
        self.flush_server();
        if !self.down.finished {
            let pause = self.random.below(2_000);
            self.at(pause, Event::ServerWrites);
        }
    }

    fn client_reads(&mut self) {
        let reads = if self.slow_reader { 1 } else { 1_000 };
        for _ in 0..reads {
            match self.client.read() {
                Some(chunk) => self.down.on_read(&chunk),
                None => break,
            }
        }
        self.flush_client();
        if !self.down.ended {
            let slow = if self.slow_reader { 20_000 } else { 500 };
            let pause = self.random.below(slow);
            self.at(pause, Event::ClientReads);
            self.down.ended = self.client.is_over() && !self.client.has_ready();
        }
    }

    fn server_reads(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        assert!(server.held().0 <= BUFFERED_MAX);
        while let Some(chunk) = server.read() {
            self.up.on_read(&chunk);
            if self.slow_reader {
                break;
            }
        }
        self.up.ended = server.is_read();
        self.flush_server();
        let slow = if self.slow_reader { 20_000 } else { 500 };
        if !self.down.finished {
            let pause = self.random.below(slow);
            self.at(pause, Event::ServerReads);
        }
    }

    fn run(&mut self) {
        while let Some(Reverse((due, _, event))) = self.events.pop() {
            self.now = due;
            let ends = self.now < Duration::from_secs(600);
            assert!(ends, "it does not end: {:?}", self.client);
            match event {
                Event::ToServer { frame, bytes } => self.arrive_at_server(frame, bytes),
                Event::ToClient { frame, bytes } => self.arrive_at_client(frame, bytes),
                Event::ClientWrites => self.client_writes(),
                Event::ServerWrites => self.server_writes(),
                Event::ClientReads => self.client_reads(),
                Event::ServerReads => self.server_reads(),
                Event::Timer => {
                    if let Some(server) = &self.server {
                        assert_eq!(server.overdue(self.now), None);
                    }
                    self.client.stop_deferring();
                    self.flush_client();
                    self.flush_server();
                    if !self.down.ended {
                        self.at(1_000, Event::Timer);
                    }
                }
            }
        }
    }

    /// All that was written was read, and the end is what the server said.
    fn check(&mut self) {
        assert!(self.down.ended, "the client waits for ever");
        assert!(self.down.queue.is_empty(), "items were lost");
        assert!(
            self.down.partial.is_empty(),
            "a part of an item was delivered"
        );
        let headers = self.client.headers().unwrap();
        assert_eq!(headers["k"], "v");
        let outcome = self.client.outcome().unwrap();
        assert_eq!(outcome.status.as_ref().map(Status::code), self.fails_with);
        if self.fails_with.is_none() {
            assert!(self.up.ended && self.up.queue.is_empty());
        }
        assert!(
            self.frames.iter().all(Option::is_none),
            "a frame has no reply"
        );
    }
}

fn run(seed: u64) {
    let run = std::panic::AssertUnwindSafe(|| {
        let mut world = World::new(seed);
        world.run();
        world.check();
    });
    if let Err(panic) = std::panic::catch_unwind(run) {
        eprintln!("the stream of seed {seed} failed");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn streams_of_any_shape_arrive_as_a_queue_would_deliver_them() {
    for seed in 0..1_000 {
        run(seed);
    }
}
