//! Both ends over a network that delays and reorders, compared with a queue per direction.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use homa_transport::sim::fuzz::Source;
use http::HeaderMap;

use super::{BUFFERED_MAX, CONTENT_MAX, Items, item_len, put_item, received, start};
use crate::frame::{Kind, Part, Reply, ReplyPart};
use crate::message::status::{Code, Status};
use crate::stream::client::{ClientCall, ClientFrame};
use crate::stream::server::{Ending, First, ServerCall, ServerReply};

/// Frames on their way, at most.
const FRAMES_MAX: usize = 32;

/// One direction.
#[derive(Default)]
struct Flow {
    /// Written and not read: the reference.
    queue: VecDeque<Bytes>,
    items: Items,
    is_finished: bool,
    /// The reader has stopped, or what is unsent was thrown away.
    is_cut: bool,
}

impl Flow {
    /// A few items, cut anywhere.
    fn write(&mut self, source: &mut Source<'_>, mut to: impl FnMut(Bytes)) {
        let mut run = BytesMut::new();
        for _ in 0..=source.below(4) {
            let (len, byte) = (item_len(source), source.byte());
            put_item(&mut run, len, byte);
            self.queue.push_back(vec![byte; len].into());
        }
        let mut run = run.freeze();
        if source.chance(64) {
            to(run.split_to(source.below(run.len())));
        }
        to(run);
    }

    fn on_read(&mut self, chunk: &[u8]) {
        for item in self.items.push(chunk) {
            let expected = self.queue.pop_front();
            assert!(expected == Some(item), "not what was written");
        }
    }
}

struct Pair {
    client: ClientCall,
    server: Option<ServerCall<usize>>,
    starts: (u32, u32),
    /// Frames without a reply, by their numbers.
    out: Vec<Option<ClientFrame>>,
    to_server: Vec<usize>,
    to_client: Vec<(usize, Reply)>,
    up: Flow,
    down: Flow,
    status: Option<Code>,
    now: Duration,
}

/// Two ends that keep to the rules.
///
/// # Panics
/// If what one writes is not what the other one reads.
pub(super) fn run(source: &mut Source<'_>) {
    let starts = (start(source), start(source));
    let mut pair = Pair {
        client: ClientCall::new_at(CONTENT_MAX, starts.0, starts.1),
        server: None,
        starts,
        out: Vec::new(),
        to_server: Vec::new(),
        to_client: Vec::new(),
        up: Flow::default(),
        down: Flow::default(),
        status: None,
        now: Duration::ZERO,
    };
    while !source.is_empty() {
        pair.step(source);
        pair.flush();
    }
    pair.end();
}

impl Pair {
    fn step(&mut self, source: &mut Source<'_>) {
        match source.byte() % 16 {
            0..=1 => self.client_writes(source),
            2..=3 => self.server_writes(source),
            4..=6 => {
                let at = source.below(self.to_server.len());
                self.deliver_frame(at);
            }
            7..=9 => {
                let at = source.below(self.to_client.len());
                self.deliver_reply(at);
            }
            10 => self.client_reads(source.below(8)),
            11 => self.server_reads(source.below(8)),
            12 => self.client.stop_deferring(),
            13 => self.now += Duration::from_micros(u64::from(source.short())),
            14 => self.server_answers(source),
            _ if source.chance(64) => {
                self.up.is_finished = true;
                self.client.finish();
            }
            _ => {}
        }
    }

    fn client_writes(&mut self, source: &mut Source<'_>) {
        if !self.up.is_finished && self.client.unsent() < 65_536 {
            let client = &mut self.client;
            self.up.write(source, |chunk| client.write(chunk));
        }
    }

    fn server_writes(&mut self, source: &mut Source<'_>) {
        if let Some(server) = &mut self.server
            && !self.down.is_finished
            && server.unsent() < 65_536
        {
            self.down.write(source, |chunk| server.write(chunk));
        }
    }

    fn server_answers(&mut self, source: &mut Source<'_>) {
        let Some(server) = &mut self.server else {
            return;
        };
        match source.byte() % 8 {
            0..=4 => server.respond(HeaderMap::new()),
            5 => {
                server.discard();
                self.up.is_cut = true;
            }
            6 if self.down.is_finished => {}
            6 => {
                self.down.is_finished = true;
                self.status = source.chance(128).then_some(Code::Aborted);
                let status = self.status.map(|code| Status::new(code, "why"));
                server.respond(HeaderMap::new());
                server.finish(status.map_or_else(Ending::default, Into::into));
            }
            _ if server.is_over() => {}
            _ => {
                self.down.is_finished = true;
                (self.up.is_cut, self.down.is_cut) = (true, true);
                self.status = Some(Code::Internal);
                server.abort(Status::internal("broken off"));
            }
        }
    }

    fn client_reads(&mut self, chunks: usize) {
        for _ in 0..=chunks {
            if let Some(chunk) = self.client.read() {
                self.down.on_read(&chunk);
            }
        }
    }

    fn server_reads(&mut self, chunks: usize) {
        for _ in 0..=chunks {
            if let Some(chunk) = self.server.as_mut().and_then(ServerCall::read) {
                self.up.on_read(&chunk);
            }
        }
    }

    fn deliver_frame(&mut self, at: usize) {
        if at >= self.to_server.len() {
            return;
        }
        let to = self.to_server.swap_remove(at);
        let frame = self.out[to].clone().unwrap();
        let content = received(frame.content);
        if frame.kind == Kind::Call {
            let first = First {
                content,
                end: frame.end,
                credit: frame.credit,
                single: false,
            };
            let (sequence, bytes) = self.starts;
            let server = ServerCall::open_at(first, to, CONTENT_MAX, sequence, bytes);
            assert!(self.server.is_none());
            self.server = Some(server.unwrap());
            return;
        }
        let carries = frame.kind == Kind::Part;
        let part = Part {
            is_pull: !carries || frame.credit > 0,
            carries,
            sequence: frame.sequence,
            credit: frame.credit,
            content,
            end: frame.end,
        };
        match &mut self.server {
            Some(server) if !server.is_over() => server.handle(self.now, part, to).unwrap(),
            _ => {
                let unknown = Status::unavailable("unknown");
                self.to_client.push((to, unknown_call(unknown)));
            }
        }
    }

    fn deliver_reply(&mut self, at: usize) {
        if at >= self.to_client.len() {
            return;
        }
        let (to, reply) = self.to_client.swap_remove(at);
        let frame = self.out[to].take().unwrap();
        self.client.handle(self.now, frame, reply).unwrap();
    }

    fn flush(&mut self) {
        while let Some(frame) = self.client.poll_transmit(self.now).unwrap() {
            self.to_server.push(self.out.len());
            self.out.push(Some(frame));
        }
        let on_way = self.out.iter().flatten().count();
        assert!(on_way <= FRAMES_MAX, "{on_way} frames on their way");
        assert!(self.client.buffered() <= BUFFERED_MAX);
        let Some(server) = &mut self.server else {
            return;
        };
        assert!(server.buffered() <= BUFFERED_MAX);
        assert!(server.parked().count() <= 17);
        while let Some(reply) = server.poll_reply(self.now).unwrap() {
            self.to_client.push((reply.to, arrived(reply)));
        }
    }

    /// All is delivered and read, and both end.
    fn end(&mut self) {
        self.up.is_finished = true;
        self.client.finish();
        for turn in 0_u64.. {
            assert!(turn < 100_000, "it stalls: {:?}", self.client);
            self.flush();
            while !self.to_server.is_empty() {
                self.deliver_frame(0);
            }
            self.flush();
            while !self.to_client.is_empty() {
                self.deliver_reply(0);
            }
            self.client_reads(1_000);
            self.server_reads(1_000);
            if let Some(server) = &mut self.server
                && (server.is_read() || self.up.is_cut)
                && !self.down.is_finished
            {
                self.down.is_finished = true;
                server.respond(HeaderMap::new());
                server.finish(Ending::default());
            }
            self.client.stop_deferring();
            self.now += Duration::from_millis(1);
            let is_quiet = self.out.iter().all(Option::is_none);
            if is_quiet && self.client.is_over() && !self.client.has_ready() {
                break;
            }
        }
        let status = self.client.outcome().unwrap().status.as_ref();
        assert_eq!(status.map(Status::code), self.status);
        if !self.down.is_cut {
            assert!(self.down.queue.is_empty() && self.down.items.is_whole());
        }
        let server = self.server.as_ref().unwrap();
        if !self.up.is_cut && server.is_read() {
            assert!(self.up.queue.is_empty() && self.up.items.is_whole());
        }
    }
}

/// The reply as it arrives.
fn arrived(reply: ServerReply<usize>) -> Reply {
    Reply {
        part: reply.part,
        initial: reply.initial,
        trailing: reply.ending.trailing,
        content: received(reply.content),
        status: reply.ending.status,
        unknown_call: false,
        cancel_told: false,
    }
}

fn unknown_call(status: Status) -> Reply {
    Reply {
        part: ReplyPart::WHOLE,
        initial: HeaderMap::new(),
        trailing: HeaderMap::new(),
        content: crate::frame::Content::None,
        status: Some(status),
        unknown_call: true,
        cancel_told: false,
    }
}
