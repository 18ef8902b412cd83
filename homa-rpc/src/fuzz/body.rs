//! Bytes as a foreign body.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_core::Stream as _;
use homa_transport::sim::fuzz::Source;
use http_body::Frame;

use super::{bytes, headers};
use crate::body::{self, Body, End, Streaming};
use crate::message::codec::Codec;
use crate::message::limits::MessageLimits;
use crate::message::status::{Code, Status};

/// Longest message taken, in bytes.
const MAX: usize = 24;

/// Reads a foreign body that is cut into frames as the bytes say, with trailers of any kind. What is
/// taken must be one message within the limit; taken from our own body, which says the same in its
/// own way, it must be the same. The bytes also stand for a stream, of which each message must come as
/// it was put in.
///
/// # Panics
/// If not.
pub fn body(data: &[u8]) {
    as_stream(&mut Source::new(data));
    let mut source = Source::new(data);
    let mut frames = VecDeque::new();
    let mut content = Vec::new();
    if source.chance(192) {
        let message = bytes(&mut source);
        content.push(u8::from(source.chance(16)));
        content.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        content.extend(message);
        match source.byte() % 8 {
            0 => content.extend(bytes(&mut source)),
            1 => drop(content.pop()),
            _ => {}
        }
    } else {
        content.extend(bytes(&mut source));
    }
    let expected = expected(&content);
    cut(content, &mut source, &mut frames);
    match source.byte() % 4 {
        0 => {}
        1 => frames.push_back(Err(Status::aborted("broken"))),
        _ => frames.push_back(Ok(Frame::trailers(headers(&mut source)))),
    }
    let broken = matches!(frames.back(), Some(Err(_)));
    match (collect(Frames(frames)), expected) {
        (Ok(whole), Ok(message)) => {
            assert!(!broken);
            assert_eq!(whole.message.as_deref(), message.as_deref());
            if let Some(message) = &whole.message {
                survives(message, whole.end);
            }
        }
        // A failure, which may break off a message.
        (Ok(whole), Err(())) => {
            assert!(whole.message.is_none(), "{whole:?} was read");
            assert!(matches!(whole.end, End::Failed(_)), "{whole:?}");
        }
        (Err(status), Ok(_)) => assert!(broken, "{status}"),
        (Err(status), Err(())) => assert_ne!(status.code(), Code::Ok),
    }
}

/// Appends frames with this content, cut somewhere.
fn cut(
    mut content: Vec<u8>,
    source: &mut Source<'_>,
    frames: &mut VecDeque<Result<Frame<Bytes>, Status>>,
) {
    while !content.is_empty() {
        let rest = content.split_off(content.len().min(source.below(16)));
        frames.push_back(Ok(Frame::data(Bytes::from(content))));
        content = rest;
        if source.is_empty() {
            frames.push_back(Ok(Frame::data(Bytes::from(std::mem::take(&mut content)))));
        }
    }
}

/// A stream of messages, with something behind them that may be wrong.
fn as_stream(source: &mut Source<'_>) {
    let mut expected = VecDeque::new();
    let mut content = Vec::new();
    while source.chance(200) {
        let message = bytes(source);
        let message = &message[..message.len().min(MAX)];
        content.push(0);
        content.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        content.extend(message);
        expected.push_back(message.to_vec());
    }
    let is_wrong = source.chance(64);
    if is_wrong {
        // Too long, compressed, cut off within the message or its prefix.
        let wrong: [&[u8]; 4] = [b"\0\0\0\0\x19", b"\x01\0\0\0\0", b"\0\0\0\0\x02a", b"\0"];
        content.extend(wrong[usize::from(source.byte() % 4)]);
    }
    let mut frames = VecDeque::new();
    cut(content, source, &mut frames);
    let is_broken = source.chance(64);
    if is_broken {
        frames.push_back(Err(Status::aborted("broken")));
    } else if source.chance(128) {
        // Of no use in a request, and no harm.
        frames.push_back(Ok(Frame::trailers(headers(source))));
    }
    let limits = MessageLimits::default().max_decoding_message_size(MAX);
    let mut read = Streaming::request(Body::new(Frames(frames)), Arc::new(Raw), limits);
    let mut cx = Context::from_waker(Waker::noop());
    let mut next = || match Pin::new(&mut read).poll_next(&mut cx) {
        Poll::Ready(next) => next.transpose(),
        Poll::Pending => panic!("all frames are there"),
    };
    while let Some(message) = expected.pop_front() {
        assert_eq!(next().unwrap(), Some(message.into()));
    }
    match next() {
        Ok(message) => assert!(message.is_none() && !is_wrong && !is_broken),
        Err(status) => assert!(is_wrong || is_broken, "{status}"),
    }
    assert_eq!(next().unwrap(), None);
}

/// Messages are their bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;

    fn encode(&self, message: Bytes) -> Result<Bytes, Status> {
        Ok(message)
    }

    fn decode(&self, bytes: Bytes) -> Result<Bytes, Status> {
        Ok(bytes)
    }
}

/// What a body with this content holds: at most one message, within the limit.
fn expected(content: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let Some((head, message)) = content.split_at_checked(5) else {
        return if content.is_empty() {
            Ok(None)
        } else {
            Err(())
        };
    };
    let announced = u32::from_be_bytes(head[1..].try_into().unwrap());
    let good = head[0] == 0 && announced as usize == message.len() && message.len() <= MAX;
    good.then(|| Some(message.to_vec())).ok_or(())
}

/// Our own body with these contents says them in frames, too.
fn survives(message: &Bytes, end: End) {
    let ours = || {
        let end = end.clone();
        let message = Some(message.clone());
        Body::whole(body::Whole { message, end })
    };
    let (taken, polled) = (collect(ours()).unwrap(), collect(Foreign(ours())).unwrap());
    assert_eq!(taken.message, polled.message);
    match (taken.end, polled.end) {
        (End::Request, End::Request) => {}
        (End::Ok(taken), End::Ok(polled)) => assert_eq!(taken, polled),
        (End::Failed(taken), End::Failed(polled)) => {
            assert_eq!(taken.code(), polled.code());
            assert_eq!(taken.message(), polled.message());
            assert_eq!(taken.details(), polled.details());
            assert_eq!(taken.metadata(), polled.metadata());
        }
        (taken, polled) => panic!("{taken:?} became {polled:?}"),
    }
}

fn collect<B>(body: B) -> Result<body::Whole, Status>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let mut reading = match body::take_or_read(body, MAX, "limit") {
        Ok((whole, _)) => return Ok(whole),
        Err(reading) => reading,
    };
    match reading
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(result) => result.map(|(whole, _)| whole),
        Poll::Pending => panic!("all frames are there"),
    }
}

/// A body of these frames.
struct Frames(VecDeque<Result<Frame<Bytes>, Status>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front())
    }
}

/// Our own body under another type, so that it is polled.
struct Foreign(Body);

impl http_body::Body for Foreign {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}
