//! Streams of random shapes, and a queue per direction as the reference for what arrives.
#![allow(unreachable_pub, reason = "a module of a test")]

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use homa_rpc::{Code, Status, Streaming};
use homa_transport::sim::Random;
use tokio::time::sleep;

use super::streaming::Item;

/// Bytes written and not yet read never exceed this and two items: the window, or what the pulls bring, what
/// waits to be sent, and what a decoder has.
const HELD_MAX: usize = (2 << 20) + 4 * 131_072;

/// Which method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Say,
    List,
    Record,
    Chat,
}

/// An item to write, after a pause.
#[derive(Clone, Copy)]
pub struct Step {
    pub len: usize,
    pub pause: Duration,
}

/// What both ends of a call do.
#[derive(Clone, Debug)]
pub struct Shape {
    pub kind: Kind,
    pub requests: Steps,
    pub responses: Steps,
    /// The reader of that direction pauses behind every so many items.
    pub request_pauses: Option<(usize, Duration)>,
    pub response_pauses: Option<(usize, Duration)>,
    /// The handler takes so many requests, and drops the rest.
    pub requests_taken: usize,
    /// The responses begin when all requests were read.
    pub in_turn: bool,
    /// Behind the responses.
    pub failure: Option<Code>,
    /// The client reads so many responses and drops the rest.
    pub responses_taken: usize,
    pub deadline: Option<Duration>,
}

fn steps(random: &mut Random) -> Steps {
    let count = match random.below(10) {
        0 => 0,
        1..=2 => 1,
        3..=8 => random.below(100),
        _ => random.below(3_000),
    };
    let (long, slow) = (random.below(3) == 0, random.below(3) == 0);
    let step = |_| Step {
        len: length(random, long && count < 200),
        pause: match random.below(20) {
            0 if slow => Duration::from_millis(random.below(300)),
            1..=4 if slow => Duration::from_millis(random.below(4)),
            _ => Duration::ZERO,
        },
    };
    Steps((0..count).map(step).collect())
}

fn length(random: &mut Random, long: bool) -> usize {
    let len = match random.below(100) {
        0 if long => random.below(2_500_000),
        1..=4 if long => random.below(200_000),
        5..=14 => random.below(20_000),
        15..=30 => 0,
        _ => random.below(200),
    };
    usize::try_from(len).unwrap()
}

fn pauses(random: &mut Random) -> Option<(usize, Duration)> {
    let behind = usize::try_from(1 + random.below(50)).unwrap();
    (random.below(4) == 0).then(|| (behind, Duration::from_millis(random.below(200))))
}

/// Mostly no end, at times one of `count`.
fn taken(random: &mut Random, count: usize) -> usize {
    match random.below(6) {
        0 => random.index(count + 1),
        _ => usize::MAX,
    }
}

/// Items to write.
#[derive(Clone)]
pub struct Steps(pub Vec<Step>);

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.0.iter().map(|step| step.len).sum();
        let pauses: Duration = self.0.iter().map(|step| step.pause).sum();
        let count = self.0.len();
        write!(f, "{count} items of {bytes} bytes with {pauses:?} between")
    }
}

impl Shape {
    pub fn random(random: &mut Random) -> Self {
        let kind = match random.below(8) {
            0 => Kind::Say,
            1..=2 => Kind::List,
            3..=4 => Kind::Record,
            _ => Kind::Chat,
        };
        let one = |random: &mut Random| {
            Steps(vec![Step {
                len: length(random, true),
                pause: Duration::ZERO,
            }])
        };
        let requests = match kind {
            Kind::Say | Kind::List => one(random),
            Kind::Record | Kind::Chat => steps(random),
        };
        let responses = match kind {
            Kind::Say | Kind::Record => one(random),
            Kind::List | Kind::Chat => steps(random),
        };
        let code = random.pick([Code::Aborted, Code::NotFound, Code::DataLoss]);
        Self {
            request_pauses: pauses(random),
            response_pauses: pauses(random),
            requests_taken: taken(random, requests.0.len()),
            in_turn: random.below(4) == 0,
            failure: (random.below(5) == 0).then_some(code),
            responses_taken: taken(random, responses.0.len()),
            deadline: (random.below(8) == 0)
                .then(|| Duration::from_millis(1 + random.below(1_000))),
            kind,
            requests,
            responses,
        }
    }
}

/// One direction: what was written and not yet read.
#[derive(Default)]
pub struct Direction {
    queue: VecDeque<Item>,
    written: u64,
    read: u64,
    held: usize,
    longest: usize,
}

/// A [`Direction`] that both ends have.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Direction>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (written, read) = self.counts();
        write!(f, "{written} written, {read} read")
    }
}

impl Shared {
    /// The next item to write, which is `len` bytes long.
    pub fn write(&self, len: usize) -> Item {
        let mut direction = self.0.lock().unwrap();
        let number = direction.written;
        let byte = u8::try_from(number % 251).unwrap();
        let item = Item {
            number,
            data: Bytes::from(vec![byte; len]),
        };
        direction.written += 1;
        direction.held += len;
        direction.longest = direction.longest.max(len);
        let max = HELD_MAX + 2 * direction.longest;
        assert!(direction.held <= max, "{} bytes are held", direction.held);
        direction.queue.push_back(item.clone());
        item
    }

    /// An item has come.
    pub fn read(&self, item: &Item) {
        let mut direction = self.0.lock().unwrap();
        let expected = direction.queue.pop_front();
        let expected = expected.expect("an item came that was not written");
        assert_eq!(item.number, expected.number);
        assert!(item.data == expected.data, "item {} differs", item.number);
        direction.held -= item.data.len();
        direction.read += 1;
    }

    /// Items written, and read.
    pub fn counts(&self) -> (u64, u64) {
        let direction = self.0.lock().unwrap();
        (direction.written, direction.read)
    }

    /// Nothing that was written is missing.
    pub fn check_all_read(&self) {
        let (written, read) = self.counts();
        assert_eq!(written, read, "items written, and read");
    }

    /// These items.
    pub fn writer(&self, steps: Steps) -> impl Stream<Item = Item> + Send + 'static {
        let direction = self.clone();
        stream::iter(steps.0).then(move |Step { len, pause }| {
            let direction = direction.clone();
            async move {
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                direction.write(len)
            }
        })
    }

    /// Reads up to `count` items. True if the stream has ended.
    pub async fn reader(
        &self,
        mut items: Streaming<Item>,
        count: usize,
        pauses: Option<(usize, Duration)>,
    ) -> Result<bool, Status> {
        for number in 0..count {
            let Some(item) = items.message().await? else {
                return Ok(true);
            };
            self.read(&item);
            if let Some((behind, pause)) = pauses
                && number % behind == behind - 1
            {
                sleep(pause).await;
            }
        }
        Ok(false)
    }
}

/// A call: its shape, and what came of it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub shape: Shape,
    pub requests: Shared,
    pub responses: Shared,
}

impl Plan {
    pub fn of(shape: Shape) -> Self {
        Self {
            shape,
            requests: Shared::default(),
            responses: Shared::default(),
        }
    }
}
