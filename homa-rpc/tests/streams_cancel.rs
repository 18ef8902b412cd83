//! A stream is dropped at each place where either side can wait, and nothing is left of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use homa_rpc::{BoxStream, Code, Request, Response, Server, Status, Streaming};
use streaming::{Closures, Item, Streams, StreamsClient, StreamsServer, numbers};
use support::{Running, Wire, run};
use tokio::task::yield_now;
use tokio::time::sleep;

/// Items of a call in each direction that streams.
const ITEMS: u64 = 12;
/// Long enough for a few frames.
const LONG: usize = 300_000;

on_every_wire! {
    a_client_that_drops_a_call_at_any_poll_leaves_nothing,
    a_client_that_drops_a_call_after_any_item_leaves_nothing,
    a_handler_that_is_dropped_at_any_poll_ends_its_call_alone,
    a_handler_that_ends_at_any_item_ends_its_call_alone,
    a_handler_that_panics_at_any_poll_ends_its_call_alone,
}

/// Things that are there.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

struct Held(Alive);

impl Alive {
    fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::SeqCst);
        Held(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Which method, with items of many frames or not.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Say(usize),
    List(usize),
    Record(usize),
    Chat(usize),
}

const KINDS: [Kind; 8] = [
    Kind::Say(10),
    Kind::List(10),
    Kind::Record(10),
    Kind::Chat(10),
    Kind::Say(4 * LONG),
    Kind::List(LONG),
    Kind::Record(LONG),
    Kind::Chat(LONG),
];

impl Kind {
    const fn len(self) -> usize {
        let (Self::Say(len) | Self::List(len) | Self::Record(len) | Self::Chat(len)) = self;
        len
    }
}

/// A stream that is pending before each item, once; so there is a place to wait at each of them.
struct Hesitant {
    next: u64,
    len: usize,
    hesitates: bool,
    _held: Held,
}

impl Stream for Hesitant {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.hesitates = !self.hesitates;
        if self.hesitates {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.next == ITEMS {
            return Poll::Ready(None);
        }
        let number = self.next;
        self.next += 1;
        let data = Bytes::from(vec![7; self.len]);
        Poll::Ready(Some(Item { data, number }))
    }
}

fn hesitant(alive: &Alive, len: usize) -> Hesitant {
    Hesitant {
        next: 0,
        len,
        hesitates: false,
        _held: alive.hold(),
    }
}

/// How a handler ends before its time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Dropped,
    Panics,
}

/// What happens at which poll of the handlers, futures and streams alike.
struct Fate {
    polls: AtomicUsize,
    at: AtomicUsize,
    end: End,
}

impl Fate {
    /// Counts a poll. True if the handler is to be dropped.
    fn strikes(&self) -> bool {
        let strikes = self.polls.fetch_add(1, Ordering::SeqCst) == self.at.load(Ordering::SeqCst);
        assert!(!strikes || self.end != End::Panics, "on purpose");
        strikes
    }
}

/// Echoes under a fate.
struct Fated {
    alive: Alive,
    fate: Arc<Fate>,
}

impl Fated {
    /// `work` until the fate strikes.
    async fn bound<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let _held = self.alive.hold();
        let mut work = pin!(work);
        poll_fn(|cx| match self.fate.strikes() {
            true => Poll::Ready(Err(Status::aborted("dropped"))),
            false => work.as_mut().poll(cx),
        })
        .await
    }

    /// `items` until the fate strikes.
    fn bound_stream(&self, mut items: BoxStream<Item>) -> BoxStream<Item> {
        let (fate, held) = (Arc::clone(&self.fate), self.alive.hold());
        stream::poll_fn(move |cx| {
            let _held = &held;
            match fate.strikes() {
                true => Poll::Ready(Some(Err(Status::aborted("dropped")))),
                false => items.as_mut().poll_next(cx),
            }
        })
        .boxed()
    }
}

#[homa_rpc::async_trait]
impl Streams for Fated {
    async fn say(&self, request: Request<Item>) -> Result<Response<Item>, Status> {
        let work = async {
            yield_now().await;
            Ok(Response::new(request.into_inner()))
        };
        self.bound(work).await
    }

    type ListStream = BoxStream<Item>;

    async fn list(&self, request: Request<Item>) -> Result<Response<BoxStream<Item>>, Status> {
        let items = hesitant(&self.alive, request.get_ref().data.len());
        Ok(Response::new(self.bound_stream(items.map(Ok).boxed())))
    }

    async fn record(&self, request: Request<Streaming<Item>>) -> Result<Response<Item>, Status> {
        let work = async {
            let count = numbers(&mut request.into_inner()).await?.len();
            Ok(Response::new(Item::number(count as u64)))
        };
        self.bound(work).await
    }

    type ChatStream = BoxStream<Item>;

    async fn chat(
        &self,
        request: Request<Streaming<Item>>,
    ) -> Result<Response<BoxStream<Item>>, Status> {
        let items = request.into_inner().boxed();
        Ok(Response::new(self.bound_stream(items)))
    }
}

/// A server whose handlers wait at each item, and what is alive on either side.
struct World {
    running: Running,
    client: StreamsClient,
    alive: Alive,
    fate: Arc<Fate>,
}

fn world(wire: Wire, end: End) -> World {
    let alive = Alive::default();
    let fate = Arc::new(Fate {
        polls: AtomicUsize::new(0),
        at: AtomicUsize::new(usize::MAX),
        end,
    });
    let service = StreamsServer::new(Fated {
        alive: alive.clone(),
        fate: Arc::clone(&fate),
    });
    let running = run(Server::builder().add_service(service), wire.pair());
    let client = StreamsClient::new(running.channel.clone());
    World {
        running,
        client,
        alive,
        fate,
    }
}

impl World {
    /// A call from its begin to the end, of which the number of items that came is the outcome.
    async fn call(&self, kind: Kind) -> Result<u64, Status> {
        let requests = || hesitant(&self.alive, kind.len());
        let mut items = match kind {
            Kind::Say(len) => {
                let item = self.client.say(Item::long(len)).await?.into_inner();
                assert_eq!(item.data.len(), len);
                return Ok(ITEMS);
            }
            Kind::Record(_) => {
                return Ok(self.client.record(requests()).await?.into_inner().number);
            }
            Kind::List(len) => self.client.list(Item::long(len)).await?.into_inner(),
            Kind::Chat(_) => self.client.chat(requests()).await?.into_inner(),
        };
        Ok(numbers(&mut items).await?.len() as u64)
    }

    /// Nothing is left of any call, on either side, and the next one is well.
    async fn check_nothing_is_left(&self, what: &str) {
        self.fate.at.store(usize::MAX, Ordering::SeqCst);
        let left = || {
            (
                self.alive.count(),
                self.running.monitor.stats().calls_in_progress,
            )
        };
        let mut millis = 0;
        while left() != (0, 0) {
            assert!(
                millis < 20_000,
                "{what}: streams and calls left: {:?}",
                left()
            );
            millis += 1;
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// The sockets hold no RPC any more.
    async fn check_no_rpc_is_left(&self) {
        let left = || {
            let Running { client, server, .. } = &self.running;
            (client.stats().rpcs_live, server.stats().rpcs_live)
        };
        let mut millis = 0;
        while left() != (0, 0) {
            assert!(millis < 20_000, "RPCs left: {:?}", left());
            millis += 1;
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Polls `call` up to `count` times. Its outcome, if it was ready by then.
async fn polled<T>(call: impl Future<Output = T>, count: usize) -> Option<T> {
    let mut call = pin!(call);
    for _ in 0..count {
        let mut is_first = true;
        // One poll, and then the wait until it is woken.
        let polled = poll_fn(|cx| {
            if !std::mem::take(&mut is_first) {
                return Poll::Ready(None);
            }
            match call.as_mut().poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => Poll::Pending,
            }
        });
        if let Some(outcome) = polled.await {
            return Some(outcome);
        }
    }
    None
}

async fn a_client_that_drops_a_call_at_any_poll_leaves_nothing(wire: Wire) {
    let world = world(wire, End::Dropped);
    for kind in KINDS {
        let mut polls = 0;
        loop {
            let what = format!("{kind:?} dropped after {polls} polls");
            let outcome = polled(world.call(kind), polls).await;
            world.check_nothing_is_left(&what).await;
            if let Some(outcome) = outcome {
                assert_eq!(outcome.unwrap(), ITEMS, "{what}");
                break;
            }
            polls += 1;
        }
        assert!(polls > 1, "{kind:?} was dropped nowhere");
    }
    world.check_no_rpc_is_left().await;
}

async fn a_client_that_drops_a_call_after_any_item_leaves_nothing(wire: Wire) {
    let world = world(wire, End::Dropped);
    for len in [10, LONG] {
        for count in 0..ITEMS {
            for yields in [0, 1, 5] {
                let requests = hesitant(&world.alive, len);
                let response = world.client.chat(requests).await.unwrap();
                let mut items = response.into_inner();
                for number in 0..count {
                    assert_eq!(items.message().await.unwrap().unwrap().number, number);
                }
                for _ in 0..yields {
                    yield_now().await;
                }
                drop(items);
                let what = format!("chat of {len} bytes dropped after {count} items");
                world.check_nothing_is_left(&what).await;
            }
        }
    }
    world.check_no_rpc_is_left().await;
}

async fn a_handler_that_is_dropped_at_any_poll_ends_its_call_alone(wire: Wire) {
    handlers_that_end_at_any_poll(wire, End::Dropped, Code::Aborted).await;
}

async fn a_handler_that_panics_at_any_poll_ends_its_call_alone(wire: Wire) {
    handlers_that_end_at_any_poll(wire, End::Panics, Code::Unknown).await;
}

async fn handlers_that_end_at_any_poll(wire: Wire, end: End, code: Code) {
    let world = world(wire, end);
    for kind in KINDS {
        let mut at = 0;
        loop {
            let what = format!("{kind:?} whose handler ends at its poll {at}");
            world.fate.polls.store(0, Ordering::SeqCst);
            world.fate.at.store(at, Ordering::SeqCst);
            let outcome = world.call(kind).await;
            let has_struck = world.fate.polls.load(Ordering::SeqCst) > at;
            world.check_nothing_is_left(&what).await;
            match outcome {
                Ok(count) => assert_eq!((count, has_struck), (ITEMS, false), "{what}"),
                Err(status) => assert_eq!(
                    (status.code(), has_struck),
                    (code, true),
                    "{what}: {status}"
                ),
            }
            if !has_struck {
                break;
            }
            at += 1;
        }
        assert!(at > 0, "{kind:?} ended nowhere");
    }
    world.check_no_rpc_is_left().await;
}

async fn a_handler_that_ends_at_any_item_ends_its_call_alone(wire: Wire) {
    for len in [10, LONG] {
        for read in 0..ITEMS {
            let alive = Alive::default();
            let closures =
                Closures::default().record(move |request: Request<Streaming<Item>>| async move {
                    let mut requests = request.into_inner();
                    for _ in 0..read {
                        assert!(requests.message().await?.is_some());
                    }
                    Ok(Response::new(Item::number(read)))
                });
            let running = run(
                Server::builder().add_service(closures.server()),
                wire.pair(),
            );
            let client = StreamsClient::new(running.channel.clone());
            let reply = client.record(hesitant(&alive, len)).await.unwrap();
            assert_eq!(reply.get_ref().number, read);
            while alive.count() > 0 || running.monitor.stats().calls_in_progress > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
