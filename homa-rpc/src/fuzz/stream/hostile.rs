//! One end whose peer does anything.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use homa_transport::sim::fuzz::Source;
use http::HeaderMap;

use super::{BUFFERED_MAX, CONTENT_MAX, Items, item_len, put_item, start};
use crate::frame::{Content, Part, Reply, ReplyPart};
use crate::message::status::Status;
use crate::stream::FIRST_CREDIT;
use crate::stream::client::{ClientCall, ClientFrame};
use crate::stream::server::{Ending, First, ServerCall};

/// Zeros, of which pieces are made.
static ZEROS: [u8; 150_000] = [0; 150_000];

/// Anything that a frame can hold. What the decoder refuses does not get here.
fn content(source: &mut Source<'_>, at: &mut u32) -> Content {
    match source.byte() % 8 {
        0 => Content::None,
        1 => Content::Message(Bytes::from_static(&ZEROS[..item_len(source).min(150_000)])),
        2..=3 => {
            let mut run = BytesMut::new();
            for _ in 0..=source.below(4) {
                let len = item_len(source);
                put_item(&mut run, len, 0);
            }
            if source.chance(32) {
                run.truncate(run.len() - 1);
            }
            Content::Items(run.freeze())
        }
        _ => {
            let len = item_len(source).clamp(1, 150_000);
            let offset = if source.chance(32) {
                source.long()
            } else {
                *at
            };
            let total = match source.byte() % 4 {
                0 => source.long(),
                1 => 300_000,
                _ => 3_000_000,
            };
            let len = len.min(total.saturating_sub(offset) as usize);
            if len == 0 {
                *at = 0;
                return Content::None;
            }
            let end = offset + u32::try_from(len).unwrap();
            *at = if end == total { 0 } else { end };
            Content::Fragment {
                piece: Bytes::from_static(&ZEROS[..len]),
                offset,
                total,
            }
        }
    }
}

/// A number at or near the next one.
fn number(source: &mut Source<'_>, next: &mut u32) -> u32 {
    match source.byte() {
        0..=7 => source.long(),
        8..=15 => next.wrapping_add(u32::from(source.byte() % 70)),
        16..=47 => next.wrapping_add(u32::from(source.byte() % 4)),
        48..=63 => next.wrapping_sub(u32::from(source.byte())),
        _ => {
            let number = *next;
            *next = number.wrapping_add(1);
            number
        }
    }
}

/// A server whose client sends any frames. Items come whole or not at all, and it holds no more than its bounds.
pub(super) fn to_server(source: &mut Source<'_>) {
    let starts = (start(source), start(source));
    let mut next = starts.0;
    let mut at = 0;
    let first = First {
        content: content(source, &mut at),
        end: source.chance(16),
        credit: source.long(),
        single: source.chance(64),
    };
    let is_whole = first.end;
    number(source, &mut next);
    let Ok(mut server) = ServerCall::open_at(first, (), CONTENT_MAX, starts.0, starts.1) else {
        return;
    };
    let mut read = Items::default();
    let mut now = Duration::ZERO;
    let mut is_cut = false;
    let mut is_broken = false;
    let mut told = starts.1.wrapping_add(FIRST_CREDIT);
    while !source.is_empty() {
        match source.byte() % 16 {
            0..=8 => {
                let part = part(source, &mut next, &mut at);
                let result = server.handle(now, part, ());
                is_broken |= result.is_err();
                if result.is_err() && !source.chance(64) {
                    // What a driver does.
                    server.abort(Status::internal("a rule was broken"));
                    is_cut = true;
                }
            }
            9..=10 => {
                if let Some(chunk) = server.read() {
                    read.push(&chunk);
                }
            }
            11 => {
                let mut run = BytesMut::new();
                put_item(&mut run, item_len(source), 0);
                if server.unsent() < 65_536 {
                    server.write(run.freeze());
                }
            }
            12 => server.respond(HeaderMap::new()),
            13 if source.chance(32) => server.finish(Ending::default()),
            14 if source.chance(32) => {
                server.discard();
                is_cut = true;
            }
            _ => now += Duration::from_millis(u64::from(source.short()) / 4),
        }
        if !is_whole && !is_broken {
            let left = told.wrapping_sub(server.received()).cast_signed();
            assert!(left >= 0, "more came than the client was told");
        }
        settle(&mut server, now, &mut told);
        if !server.has_ready() && !server.has_gap() && !is_broken {
            assert_eq!(server.buffered(), 0, "nothing is there to read");
        }
        if server.is_read() && !is_cut {
            assert!(read.is_whole(), "an item was cut off");
        }
    }
}

/// A PART or PULL.
fn part(source: &mut Source<'_>, next: &mut u32, at: &mut u32) -> Part {
    let content = content(source, at);
    let end = source.chance(8);
    let carries = end || content != Content::None;
    let credit = if source.chance(128) { source.long() } else { 0 };
    Part {
        is_pull: !carries || credit > 0,
        carries,
        sequence: number(source, next),
        credit,
        content,
        end,
    }
}

/// Sends what is due. Then either time has to pass or the call is to end.
fn settle(server: &mut ServerCall<()>, now: Duration, told: &mut u32) {
    assert!(server.parked().count() <= 17);
    let mut replies = 0;
    while let Some(reply) = server.poll_reply(now).unwrap() {
        replies += 1;
        *told = reply.part.credit;
        assert!(replies <= 18, "it answers frames that were not there");
        assert!(reply.content.cost_to_send() <= CONTENT_MAX);
    }
    assert!(server.parked().count() <= 16);
    assert!(server.buffered() <= BUFFERED_MAX, "{}", server.buffered());
    let is_waiting = server.next_timeout() > now;
    assert!(is_waiting || server.overdue(now).is_some() || server.is_over());
    if server.overdue(now).is_some() {
        // What a driver does.
        server.on_receiving(now);
    }
}

/// A client whose server makes any replies. Items come whole or not at all, and it holds no more than its bounds.
pub(super) fn to_client(source: &mut Source<'_>) {
    let starts = (start(source), start(source));
    let mut next = starts.0;
    let mut at = 0;
    let mut client = ClientCall::new_at(CONTENT_MAX, starts.0, starts.1);
    let mut out: Vec<ClientFrame> = Vec::new();
    let mut read = Items::default();
    let mut now = Duration::ZERO;
    while !source.is_empty() {
        while let Some(frame) = client.poll_transmit(now).unwrap() {
            out.push(frame);
        }
        assert!(out.len() <= 32, "{} frames on their way", out.len());
        assert!(client.buffered() <= BUFFERED_MAX, "{}", client.buffered());
        match source.byte() % 16 {
            0..=8 if !out.is_empty() => {
                let frame = out.swap_remove(source.below(out.len()));
                let content = content(source, &mut at);
                let sequence = number(source, &mut next);
                let reply = reply(source, sequence, content);
                if client.handle(now, frame, reply).is_err() {
                    return;
                }
            }
            9..=10 => {
                if let Some(chunk) = client.read() {
                    read.push(&chunk);
                }
            }
            11..=12 if client.unsent() < 65_536 => {
                let mut run = BytesMut::new();
                put_item(&mut run, item_len(source), 0);
                client.write(run.freeze());
            }
            13 => client.stop_deferring(),
            14 => {
                client.headers();
            }
            _ => now += Duration::from_micros(u64::from(source.short())),
        }
        if client.is_over() {
            while let Some(chunk) = client.read() {
                read.push(&chunk);
            }
            let failed = client.outcome().unwrap().status.is_some();
            assert!(failed || read.is_whole(), "an item was cut off");
        }
    }
}

fn reply(source: &mut Source<'_>, sequence: u32, content: Content) -> Reply {
    let end = source.chance(8);
    Reply {
        part: ReplyPart {
            sequence,
            credit: source.long(),
            headers: source.chance(64),
            end,
        },
        initial: HeaderMap::new(),
        trailing: HeaderMap::new(),
        content,
        status: (end && source.chance(128)).then(|| Status::aborted("why")),
        unknown_call: source.chance(16),
        cancel_told: false,
    }
}
