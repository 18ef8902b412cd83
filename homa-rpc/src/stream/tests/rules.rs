//! The rules of `WIRE.md` section 8, one test each, on one end at a time.

mod client;
mod credit;
mod memory;
mod receiving;
mod replies;
mod time;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

use crate::frame::{Content, Part, Reply, ReplyPart};
use crate::stream::StreamError;
use crate::stream::server::{First, ServerCall, ServerReply};

/// Content that fits into a frame, in bytes.
const CONTENT_MAX: usize = 500_000;

/// A server's end, whose frames are named by numbers. The CALL frame is 0.
type Server = ServerCall<u32>;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A run of items that are zeros.
fn run(lens: &[usize]) -> Bytes {
    let mut run = BytesMut::new();
    for len in lens {
        run.put_u8(0);
        run.put_u32(u32::try_from(*len).unwrap());
        run.put_bytes(0, *len);
    }
    run.freeze()
}

fn items(lens: &[usize]) -> Content {
    Content::Items(run(lens))
}

/// `len` bytes, from `offset`, of a message of `total`.
fn piece(len: usize, offset: u32, total: u32) -> Content {
    Content::Fragment {
        piece: vec![0; len].into(),
        offset,
        total,
    }
}

const fn part(sequence: u32, content: Content) -> Part {
    Part {
        is_pull: false,
        carries: true,
        sequence,
        credit: 0,
        content,
        end: false,
    }
}

fn last(sequence: u32, content: Content) -> Part {
    Part {
        end: true,
        ..part(sequence, content)
    }
}

fn pull(credit: u32) -> Part {
    Part {
        is_pull: true,
        carries: false,
        credit,
        ..part(0, Content::None)
    }
}

/// A call whose CALL has nothing of the request and takes so many bytes in reply.
fn opened(credit: u32) -> Server {
    opened_at(credit, 0, 0)
}

/// The same with counters that start elsewhere.
fn opened_at(credit: u32, sequence: u32, bytes: u32) -> Server {
    let first = First {
        content: Content::None,
        end: false,
        credit,
        single: false,
    };
    Server::open_at(first, 0, CONTENT_MAX, sequence, bytes).unwrap()
}

/// All replies that are due.
fn replies(server: &mut Server, now: Duration) -> Vec<ServerReply<u32>> {
    let due = || server.poll_reply(now).unwrap();
    std::iter::from_fn(due).collect()
}

/// The frames that these answer.
fn answered(replies: &[ServerReply<u32>]) -> Vec<u32> {
    replies.iter().map(|reply| reply.to).collect()
}

/// Takes `parts`, each behind the other, and says what came of the last one.
fn outcome(parts: impl IntoIterator<Item = Part>) -> Result<(), StreamError> {
    let mut server = opened(0);
    let mut outcome = Ok(());
    for part in parts {
        assert_eq!(outcome, Ok(()), "an earlier part");
        outcome = server.handle(Duration::ZERO, part, 1);
    }
    outcome
}

/// What the reader finds.
fn read(server: &mut Server) -> Vec<u8> {
    std::iter::from_fn(|| server.read()).flatten().collect()
}

/// A reply of a server.
fn reply(sequence: u32, content: Content) -> Reply {
    Reply {
        part: ReplyPart {
            sequence,
            credit: 0,
            headers: false,
            end: false,
        },
        initial: HeaderMap::new(),
        trailing: HeaderMap::new(),
        content,
        status: None,
        unknown_call: false,
        cancel_told: false,
    }
}
