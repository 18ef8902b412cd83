//! Streams whose peer vanishes from a simulated network, in tokio's paused time: both ends notice, active or idle.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use homa_rpc::{BoxStream, Code, Request, Response, Server, Status, Streaming};
use homa_transport::sim::{PacketFaults, SimNetwork, Topology};
use homa_transport::{Config, Socket, Transport, Wire};
use streaming::{Closures, Item, StreamsClient};
use support::{Running, run};
use tokio::time::{Instant, sleep, timeout};

/// A server drops the handlers of a client that is gone after this time.
const SERVER_LEARNS: Duration = Duration::from_secs(30);

/// A wire, and what is promised of it.
#[derive(Clone, Copy, Debug)]
struct Promise {
    wire: Wire,
    /// A client knows after this time that its server is gone.
    client_learns: Duration,
    /// What an idle stream costs, in packets per second, in both directions together.
    packets: f64,
}

/// UDP, and protocol 146, where a peer's life cannot be told from another's on its host.
const PROMISES: [Promise; 2] = [
    Promise {
        wire: Wire::Encapsulated,
        client_learns: Duration::from_secs(2),
        packets: 0.3,
    },
    Promise {
        wire: Wire::Native,
        client_learns: Duration::from_millis(3_600),
        packets: 1.5,
    },
];

/// All traffic on all wires.
fn all() -> impl Iterator<Item = (Promise, Traffic)> {
    PROMISES
        .into_iter()
        .flat_map(|promise| TRAFFIC.map(|traffic| (promise, traffic)))
}

/// Handlers that are there.
#[derive(Clone, Default)]
struct Handlers(Arc<AtomicUsize>);

struct Alive(Handlers);

impl Handlers {
    fn begin(&self) -> Alive {
        self.0.fetch_add(1, Ordering::SeqCst);
        Alive(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What goes on in a stream when the peer vanishes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Traffic {
    /// Nothing.
    Idle,
    /// An item each way every 20 ms.
    Trickle,
    /// As much as there is room for, one way.
    Upload,
    Download,
    /// Items of many frames.
    LongUpload,
    LongDownload,
}

const TRAFFIC: [Traffic; 6] = [
    Traffic::Idle,
    Traffic::Trickle,
    Traffic::Upload,
    Traffic::Download,
    Traffic::LongUpload,
    Traffic::LongDownload,
];

impl Traffic {
    fn requests(self) -> BoxItems {
        match self {
            Self::Idle | Self::Download | Self::LongDownload => stream::pending().boxed(),
            Self::Trickle => trickle(),
            Self::Upload => stream::repeat_with(|| Item::long(1_000)).boxed(),
            Self::LongUpload => stream::repeat_with(|| Item::long(3_000_000)).boxed(),
        }
    }

    fn responses(self) -> BoxItems {
        match self {
            Self::Idle | Self::Upload | Self::LongUpload => stream::pending().boxed(),
            Self::Trickle => trickle(),
            Self::Download => stream::repeat_with(|| Item::long(1_000)).boxed(),
            Self::LongDownload => stream::repeat_with(|| Item::long(3_000_000)).boxed(),
        }
    }
}

type BoxItems = stream::BoxStream<'static, Item>;

fn trickle() -> BoxItems {
    let items = stream::repeat(()).then(async |()| {
        sleep(Duration::from_millis(20)).await;
        Item::number(1)
    });
    items.boxed()
}

/// A server with one endless method.
fn service(traffic: Traffic, handlers: &Handlers) -> Closures {
    let handlers = handlers.clone();
    Closures::default().chat(move |request: Request<Streaming<Item>>| {
        let alive = handlers.begin();
        async move {
            let requests = request.into_inner();
            let read = requests.filter_map(async |item: Result<Item, Status>| item.err().map(Err));
            let first = stream::iter([Ok(Item::number(0))]);
            let both = stream::select(read, first.chain(traffic.responses().map(Ok)));
            let held: BoxStream<Item> = Box::pin(both.map(move |item| {
                let _held = &alive;
                item
            }));
            Ok(Response::new(held))
        }
    })
}

fn open(wire: Wire, network: &SimNetwork, host: usize) -> Arc<dyn Transport> {
    let link = network.host(host, 4_000).unwrap();
    Arc::new(Socket::over(Arc::new(link), wire, Config::default()).unwrap())
}

struct World {
    network: SimNetwork,
    running: Running,
    handlers: Handlers,
    client: StreamsClient,
}

fn world(wire: Wire, traffic: Traffic) -> World {
    let faults = PacketFaults::default();
    let network = SimNetwork::new(Topology::single_switch(2, 1_000), faults, 1).unwrap();
    let handlers = Handlers::default();
    let pair = (open(wire, &network, 0), open(wire, &network, 1));
    let service = service(traffic, &handlers).server();
    let running = run(Server::builder().add_service(service), pair);
    let client = StreamsClient::new(running.channel.clone());
    World {
        network,
        running,
        handlers,
        client,
    }
}

/// Reads until the stream fails.
async fn failure(mut items: Streaming<Item>) -> Status {
    loop {
        match items.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream has ended well"),
            Err(status) => return status,
        }
    }
}

/// Opens `count` streams, which have begun and gone on for a while when this returns.
async fn streams(world: &World, traffic: Traffic, count: usize) -> Vec<Streaming<Item>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let response = world.client.chat(traffic.requests()).await.unwrap();
        let mut items = response.into_inner();
        assert!(items.message().await.unwrap().is_some());
        streams.push(items);
    }
    sleep(Duration::from_millis(333)).await;
    streams
}

async fn until_no_handler_is_left(world: &World, begun: Instant) {
    while world.handlers.count() > 0 || world.running.monitor.stats().calls_in_progress > 0 {
        assert!(begun.elapsed() < SERVER_LEARNS, "{:?}", begun.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
}

async fn cut_off(promise: Promise, traffic: Traffic) {
    let world = world(promise.wire, traffic);
    let streams = streams(&world, traffic, 3).await;
    assert_eq!(world.handlers.count(), 3);
    world.network.cut(1, &[1]);
    let begun = Instant::now();
    for items in streams {
        let learned = timeout(promise.client_learns, failure(items)).await;
        let status = learned
            .unwrap_or_else(|_| panic!("{promise:?}, {traffic:?}: the client does not learn"));
        assert_eq!(status.code(), Code::Unavailable, "{traffic:?}: {status}");
    }
    until_no_handler_is_left(&world, begun).await;
}

#[tokio::test(start_paused = true)]
async fn both_ends_notice_that_they_are_cut_off() {
    for (promise, traffic) in all() {
        cut_off(promise, traffic).await;
    }
}

/// A client that vanishes and nobody there who reads its streams.
#[tokio::test(start_paused = true)]
async fn the_handlers_of_a_client_that_is_gone_are_dropped() {
    for (promise, traffic) in all() {
        let world = world(promise.wire, traffic);
        let streams = streams(&world, traffic, 3).await;
        world.network.cut(1, &[0]);
        let begun = Instant::now();
        until_no_handler_is_left(&world, begun).await;
        drop(streams);
    }
}

/// The server's process is gone, and another one has its port or none.
async fn killed(promise: Promise, traffic: Traffic, comes_back: bool) {
    let wire = promise.wire;
    let World {
        network,
        running,
        handlers,
        client,
    } = world(wire, traffic);
    let mut items = client.chat(traffic.requests()).await.unwrap().into_inner();
    assert!(items.message().await.unwrap().is_some());
    sleep(Duration::from_millis(333)).await;
    // Nothing that it says in parting gets out.
    network.cut(1, &[1]);
    running.task.abort();
    let _aborted = running.task.await;
    running.server.close();
    drop(running.server);
    while handlers.count() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let next = comes_back.then(|| {
        let service = service(traffic, &handlers).server();
        let bound = Server::builder().add_service(service);
        let bound = bound.bind_socket(open(wire, &network, 1)).unwrap();
        tokio::spawn(bound.serve())
    });
    network.heal(1);
    let learned = timeout(promise.client_learns, failure(items)).await;
    let status =
        learned.unwrap_or_else(|_| panic!("{promise:?}, {traffic:?}: the client does not learn"));
    assert_eq!(status.code(), Code::Unavailable, "{traffic:?}: {status}");
    if let Some(next) = next {
        let mut again = client.chat(traffic.requests()).await.unwrap().into_inner();
        assert!(again.message().await.unwrap().is_some());
        next.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn the_client_of_a_server_that_was_killed_learns_of_it() {
    for (promise, traffic) in all() {
        killed(promise, traffic, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_client_of_a_server_that_was_restarted_learns_of_it() {
    for (promise, traffic) in all() {
        killed(promise, traffic, true).await;
    }
}

/// The network is cut for less than what makes a peer dead, and streams go on.
#[tokio::test(start_paused = true)]
async fn a_short_cut_harms_no_stream() {
    for (promise, traffic) in all() {
        let world = world(promise.wire, traffic);
        let mut streams = streams(&world, traffic, 3).await;
        for _ in 0..5 {
            world.network.cut(1, &[1]);
            sleep(Duration::from_millis(400)).await;
            world.network.heal(1);
            sleep(Duration::from_millis(400)).await;
        }
        assert_eq!(world.handlers.count(), 3);
        if !matches!(
            traffic,
            Traffic::Idle | Traffic::Upload | Traffic::LongUpload
        ) {
            for items in &mut streams {
                assert!(items.message().await.unwrap().is_some());
            }
        }
    }
}

/// What an idle stream costs: frames that renew the one that the server keeps, and what shows that peers live.
#[tokio::test(start_paused = true)]
async fn idle_streams_cost_few_packets() {
    const STREAMS: usize = 1_000;
    const SECONDS: u32 = 120;
    for promise in PROMISES {
        let world = world(promise.wire, Traffic::Idle);
        let mut streams = streams(&world, Traffic::Idle, STREAMS).await;
        sleep(Duration::from_secs(20)).await;
        let before = world.network.counts().sent;
        sleep(Duration::from_secs(SECONDS.into())).await;
        let packets = world.network.counts().sent - before;
        let each = packets as f64 / f64::from(SECONDS) / STREAMS as f64;
        println!("{promise:?}: {each} packets a second");
        assert!(
            each <= promise.packets,
            "{promise:?}: {each} packets a second"
        );
        assert_eq!(world.handlers.count(), STREAMS);
        for items in &mut streams {
            let next = timeout(Duration::from_millis(1), items.message()).await;
            assert!(next.is_err(), "nothing has come");
        }
    }
}
