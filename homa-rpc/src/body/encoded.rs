//! [`Encoded`]: a stream of typed messages as the body of a request or response.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use http_body::Frame;

use super::prefix::{self, PREFIX_LEN};
use super::status::{put_status, success};
use crate::call::context::CallContext;
use crate::message::codec::Codec;
use crate::message::limits::MessageLimits;
use crate::message::metadata::Metadata;
use crate::message::status::Status;

/// A message up to this length is put behind others, in bytes. A longer one is a frame of its own, so that it
/// is not moved when the buffer grows.
const SHORT_MAX: usize = 8 * 1024;

/// A run of messages that has got this long leaves, in bytes. So one is 32 kB at most.
const RUN_ENOUGH: usize = 24 * 1024;

pin_project_lite::pin_project! {
    /// Encodes a stream of messages. A data frame is a run of whole messages, each behind its prefix: as many as
    /// the source has ready. A long message comes as two frames, prefix and message.
    pub(crate) struct Encoded<S, C> {
        // None once it has ended.
        #[pin]
        source: Option<S>,
        encoder: Encoder<C>,
        role: Role,
        // What calls made by the source inherit.
        context: CallContext,
        // A long message that follows the run, and whether its prefix has left.
        long: Option<(Bytes, bool)>,
        end: Option<Result<(), Status>>,
    }
}

/// Whose messages they are.
pub(crate) enum Role {
    /// A client's: nothing follows them, and an error ends the body.
    Request,
    /// A server's: trailers follow them, with this metadata or with the status that the source ended with.
    Response(Option<Box<Metadata>>),
}

impl<S, C> Encoded<S, C> {
    pub(crate) const fn new(
        source: S,
        codec: Arc<C>,
        limits: MessageLimits,
        role: Role,
        context: CallContext,
    ) -> Self {
        Self {
            source: Some(source),
            encoder: Encoder {
                codec,
                limits,
                run: Vec::new(),
                last_run: 0,
            },
            role,
            context,
            long: None,
            end: None,
        }
    }
}

impl<S, C, T> Encoded<S, C>
where
    S: Stream<Item = Result<T, Status>>,
    C: Codec<Encode = T>,
{
    /// Takes what the source has ready into the run, until that is long enough.
    fn fill(self: Pin<&mut Self>, cx: &mut task::Context<'_>) {
        let mut this = self.project();
        while this.long.is_none() && this.encoder.run.len() < RUN_ENOUGH {
            let Some(source) = this.source.as_mut().as_pin_mut() else {
                return;
            };
            let end = match source.poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(message))) => match this.encoder.encode(message) {
                    Ok(long) => {
                        *this.long = long.map(|message| (message, false));
                        continue;
                    }
                    Err(status) => Err(status),
                },
                Poll::Ready(Some(Err(status))) => Err(status.of_handler()),
                Poll::Ready(None) => Ok(()),
            };
            *this.end = Some(end);
            this.source.set(None);
        }
    }

    /// The next frame of what is there already, the end included.
    fn take(self: Pin<&mut Self>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        if let Some(run) = this.encoder.take_run() {
            return Poll::Ready(Some(Ok(Frame::data(run))));
        }
        if let Some((message, prefix_sent)) = this.long {
            if !mem::replace(prefix_sent, true) {
                let prefix = prefix::write(message.len());
                let frame = prefix.map(|prefix| Frame::data(Bytes::copy_from_slice(&prefix)));
                return Poll::Ready(Some(frame));
            }
            let message = mem::take(message);
            *this.long = None;
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let Some(end) = this.end.take() else {
            return if this.source.is_some() {
                Poll::Pending
            } else {
                Poll::Ready(None)
            };
        };
        Poll::Ready(match (&*this.role, end) {
            (Role::Request, Ok(())) => None,
            (Role::Request, Err(status)) => Some(Err(status)),
            (Role::Response(metadata), Ok(())) => {
                Some(Ok(Frame::trailers(success(metadata.as_deref()))))
            }
            (Role::Response(_), Err(status)) => {
                let mut trailers = HeaderMap::new();
                put_status(&mut trailers, &status.of_failure());
                Some(Ok(Frame::trailers(trailers)))
            }
        })
    }
}

impl<S, C, T> http_body::Body for Encoded<S, C>
where
    S: Stream<Item = Result<T, Status>>,
    C: Codec<Encode = T>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.long.is_none() && self.source.is_some() {
            let context = self.context;
            let filling = poll_fn(|cx| {
                self.as_mut().fill(cx);
                Poll::Ready(())
            });
            let _filled: Poll<()> = pin!(context.scope(filling)).poll(cx);
        }
        self.take()
    }

    /// True with the last frame, as far as that is known: the end of a request can leave together with it.
    fn is_end_stream(&self) -> bool {
        let nothing_left = self.source.is_none() && self.long.is_none();
        nothing_left
            && match (&self.role, &self.end) {
                (_, None) | (Role::Request, Some(Ok(()))) => true,
                (_, Some(_)) => false,
            }
    }
}

/// Puts messages behind one another.
struct Encoder<C> {
    codec: Arc<C>,
    limits: MessageLimits,
    /// Messages, each behind its prefix.
    run: Vec<u8>,
    /// Length of the run before. The next one may well have the same.
    last_run: usize,
}

impl<C: Codec> Encoder<C> {
    /// Puts a message into the run, or gives it back, encoded, if it is long.
    fn encode(&mut self, message: C::Encode) -> Result<Option<Bytes>, Status> {
        let known = self.codec.encoded_len(&message);
        if known.is_none_or(|len| len > SHORT_MAX) {
            let message = self.limits.encode(&*self.codec, message)?;
            // Not sent otherwise, and nothing of it is in the run yet.
            let prefix = prefix::write(message.len())?;
            if message.len() > SHORT_MAX {
                return Ok(Some(message));
            }
            self.make_room(message.len());
            self.run.extend_from_slice(&prefix);
            self.run.extend_from_slice(&message);
            return Ok(None);
        }
        let len = known.unwrap_or_default();
        self.limits.check_encoding(len)?;
        self.make_room(len);
        let start = self.run.len();
        let appended = self.append(start, message);
        if appended.is_err() {
            self.run.truncate(start);
        }
        appended.map(|()| None)
    }

    /// Appends a message and its prefix, at `start`.
    fn append(&mut self, start: usize, message: C::Encode) -> Result<(), Status> {
        self.run.extend_from_slice(&[0; PREFIX_LEN]);
        self.codec.encode_into(message, &mut self.run)?;
        let len = self.run.len().saturating_sub(start + PREFIX_LEN);
        // The codec may have said another length before.
        self.limits.check_encoding(len)?;
        let prefix = prefix::write(len)?;
        if let Some(place) = self.run.get_mut(start..start + PREFIX_LEN) {
            place.copy_from_slice(&prefix);
        }
        Ok(())
    }

    fn make_room(&mut self, len: usize) {
        let needed = PREFIX_LEN + len;
        if self.run.capacity() == 0 {
            self.run.reserve_exact(needed.max(self.last_run));
        } else {
            self.run.reserve(needed);
        }
    }

    fn take_run(&mut self) -> Option<Bytes> {
        if self.run.is_empty() {
            return None;
        }
        self.last_run = self.run.len();
        Some(mem::take(&mut self.run).into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use http_body::Body as _;

    use super::*;
    use crate::message::status::Code;

    /// Bytes as they are. The length is what a message says, if it says one.
    struct Raw;

    #[derive(Clone)]
    struct Message {
        says: Option<usize>,
        bytes: Vec<u8>,
        fails: bool,
    }

    impl Message {
        fn of(says: Option<usize>, len: usize) -> Self {
            Self {
                says,
                bytes: vec![7; len],
                fails: false,
            }
        }
    }

    impl Codec for Raw {
        type Encode = Message;
        type Decode = Bytes;

        fn encode(&self, message: Message) -> Result<Bytes, Status> {
            if message.fails {
                return Err(Status::internal("on purpose"));
            }
            Ok(message.bytes.into())
        }

        fn encode_into(&self, message: Message, buffer: &mut Vec<u8>) -> Result<(), Status> {
            buffer.extend_from_slice(&message.bytes);
            if message.fails {
                return Err(Status::internal("on purpose"));
            }
            Ok(())
        }

        fn encoded_len(&self, message: &Message) -> Option<usize> {
            message.says
        }

        fn decode(&self, bytes: Bytes) -> Result<Bytes, Status> {
            Ok(bytes)
        }
    }

    /// Yields these, `None` for once pending.
    struct Source(VecDeque<Option<Message>>);

    impl Stream for Source {
        type Item = Result<Message, Status>;

        fn poll_next(
            mut self: Pin<&mut Self>,
            cx: &mut task::Context<'_>,
        ) -> Poll<Option<Self::Item>> {
            match self.0.pop_front() {
                Some(Some(message)) => Poll::Ready(Some(Ok(message))),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(None),
            }
        }
    }

    /// Lengths of the data frames, and how the body ended.
    fn frames(messages: &[Option<Message>], max: usize) -> (Vec<usize>, Result<(), Status>) {
        let limits = MessageLimits::default().max_encoding_message_size(max);
        let source = Source(messages.iter().cloned().collect());
        let body = Encoded::new(
            source,
            Arc::new(Raw),
            limits,
            Role::Request,
            CallContext::default(),
        );
        let mut body = pin!(body);
        let mut cx = task::Context::from_waker(Waker::noop());
        let mut lengths = Vec::new();
        loop {
            match body.as_mut().poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => lengths.push(frame.into_data().unwrap().len()),
                Poll::Ready(Some(Err(status))) => {
                    assert!(body.is_end_stream());
                    let next = body.as_mut().poll_frame(&mut cx);
                    assert!(matches!(next, Poll::Ready(None)));
                    return (lengths, Err(status));
                }
                Poll::Ready(None) => {
                    assert!(body.is_end_stream());
                    return (lengths, Ok(()));
                }
                Poll::Pending => {}
            }
        }
    }

    #[test]
    fn codecs_that_know_the_length_and_that_do_not_make_the_same_frames() {
        let edge = [0, 1, SHORT_MAX, SHORT_MAX + 1, 3];
        for know in [true, false] {
            let messages: Vec<_> = edge
                .iter()
                .map(|&len| Some(Message::of(know.then_some(len), len)))
                .collect();
            let (lengths, end) = frames(&messages, usize::MAX);
            end.unwrap();
            let run = 3 * PREFIX_LEN + 1 + SHORT_MAX;
            let expected = [run, PREFIX_LEN, SHORT_MAX + 1, PREFIX_LEN + 3];
            assert_eq!(lengths, expected, "{know}");
        }
    }

    #[test]
    fn the_last_frame_of_a_request_is_known_to_be_the_last_and_an_error_behind_it_is_not_lost() {
        let body = |message| {
            let limits = MessageLimits::default().max_encoding_message_size(4);
            let source = Source([Some(Message::of(None, 1)), message].into());
            let (codec, context) = (Arc::new(Raw), CallContext::default());
            Encoded::new(source, codec, limits, Role::Request, context)
        };
        let mut cx = task::Context::from_waker(Waker::noop());
        for (second, is_last) in [
            (Some(Message::of(None, 4)), true),
            (Some(Message::of(None, 5)), false),
            (None, false),
        ] {
            let mut body = pin!(body(second));
            assert!(!body.is_end_stream());
            let first = body.as_mut().poll_frame(&mut cx);
            assert!(matches!(first, Poll::Ready(Some(Ok(_)))));
            assert_eq!(body.is_end_stream(), is_last);
        }
    }

    #[test]
    fn what_is_ready_leaves_when_the_source_waits() {
        let one = Some(Message::of(Some(1), 1));
        let messages = [None, one.clone(), one.clone(), None, None, one, None];
        let (lengths, end) = frames(&messages, usize::MAX);
        end.unwrap();
        assert_eq!(lengths, [2 * (PREFIX_LEN + 1), PREFIX_LEN + 1]);
    }

    #[test]
    fn a_message_that_cannot_be_encoded_ends_the_body_behind_those_before_it() {
        let good = Some(Message::of(Some(4), 4));
        let mut fails = Message::of(Some(4), 4);
        fails.fails = true;
        let unknown = Message {
            says: None,
            ..fails.clone()
        };
        let bad = [
            (fails, Code::Internal),
            (unknown, Code::Internal),
            (Message::of(Some(5), 5), Code::ResourceExhausted),
            (Message::of(None, 5), Code::ResourceExhausted),
            // More than it had said.
            (Message::of(Some(1), 5), Code::ResourceExhausted),
            (Message::of(None, SHORT_MAX + 1), Code::ResourceExhausted),
        ];
        for (bad, code) in bad {
            let (lengths, end) = frames(&[good.clone(), Some(bad), good.clone()], 4);
            assert_eq!(end.unwrap_err().code(), code);
            assert_eq!(lengths, [PREFIX_LEN + 4], "and nothing of the bad one");
        }
    }
}
