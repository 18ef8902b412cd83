//! Streams over a simulated network that loses, doubles, delays and reorders packets, or is cut: calls of all
//! kinds and of random shapes, compared with a queue per direction, in tokio's paused time.
//!
//! A failure names its seed; `HOMA_TEST_SEEDS=4711..4712` repeats it, `HOMA_TEST_SEEDS=0..1000` tries as many.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/shapes.rs"]
mod shapes;
#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use homa_rpc::{BoxStream, Code, Request, Response, Server, Status, Streaming};
use homa_transport::sim::{PacketFaults, Random, SimNetwork, Topology};
use homa_transport::{Config, Socket, Transport, Wire};
use shapes::{Kind, Plan, Shape, Step, Steps};
use streaming::{Item, Streams, StreamsClient, StreamsServer};
use support::{Running, run};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// A world comes to its end in this time, or something hangs.
const WORLD_MAX: Duration = Duration::from_secs(600);
/// Once calls are over nothing is left of them after this time, whatever was lost.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How much later than at its deadline a call may end.
const LATE_MAX: Duration = Duration::from_millis(50);
/// The key of the metadata that says which plan a call follows.
const PLAN: &str = "plan";

/// Serves calls by their plans.
struct Planned {
    plans: Arc<Vec<Plan>>,
    handlers: Arc<AtomicUsize>,
}

/// Counts handlers that are there.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Planned {
    fn begin<T>(&self, request: Request<T>) -> (Plan, T, Alive) {
        let number: usize = request.metadata().get(PLAN).unwrap().parse().unwrap();
        self.handlers.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(Arc::clone(&self.handlers));
        (self.plans[number].clone(), request.into_inner(), alive)
    }
}

/// One item, or the failure.
fn single(plan: &Plan) -> Result<Response<Item>, Status> {
    match plan.shape.failure {
        Some(code) => Err(Status::new(code, "planned")),
        None => Ok(Response::new(
            plan.responses.write(plan.shape.responses.0[0].len),
        )),
    }
}

/// The responses, and behind them the failure.
fn many(plan: &Plan) -> BoxStream<Item> {
    let failure = plan
        .shape
        .failure
        .map(|code| Err(Status::new(code, "planned")));
    let items = plan.responses.writer(plan.shape.responses.clone());
    items.map(Ok).chain(stream::iter(failure)).boxed()
}

/// Reads requests until those that the plan says were read.
fn reading(
    plan: &Plan,
    requests: Streaming<Item>,
) -> impl Future<Output = Result<(), Status>> + use<> {
    let (direction, shape) = (plan.requests.clone(), plan.shape.clone());
    async move {
        let (count, pauses) = (shape.requests_taken, shape.request_pauses);
        direction.reader(requests, count, pauses).await.map(drop)
    }
}

#[homa_rpc::async_trait]
impl Streams for Planned {
    async fn say(&self, request: Request<Item>) -> Result<Response<Item>, Status> {
        let (plan, item, _alive) = self.begin(request);
        plan.requests.read(&item);
        single(&plan)
    }

    type ListStream = BoxStream<Item>;

    async fn list(&self, request: Request<Item>) -> Result<Response<BoxStream<Item>>, Status> {
        let (plan, item, alive) = self.begin(request);
        plan.requests.read(&item);
        Ok(Response::new(held(many(&plan), alive)))
    }

    async fn record(&self, request: Request<Streaming<Item>>) -> Result<Response<Item>, Status> {
        let (plan, requests, _alive) = self.begin(request);
        reading(&plan, requests).await?;
        single(&plan)
    }

    type ChatStream = BoxStream<Item>;

    async fn chat(
        &self,
        request: Request<Streaming<Item>>,
    ) -> Result<Response<BoxStream<Item>>, Status> {
        let (plan, requests, alive) = self.begin(request);
        let read = stream::once(reading(&plan, requests));
        let read = read.filter_map(|outcome| future::ready(outcome.err().map(Err)));
        let responses = match plan.shape.in_turn {
            true => read.chain(many(&plan)).boxed(),
            false => {
                let failure = plan
                    .shape
                    .failure
                    .map(|code| Err(Status::new(code, "planned")));
                let items = plan.responses.writer(plan.shape.responses.clone());
                let both = stream::select(read, items.map(Ok));
                both.chain(stream::iter(failure)).boxed()
            }
        };
        Ok(Response::new(held(responses, alive)))
    }
}

/// `items`, and `alive` as long as they are there.
fn held(items: BoxStream<Item>, alive: Alive) -> BoxStream<Item> {
    let items = items.map(move |item| {
        let _held = &alive;
        item
    });
    items.boxed()
}

/// Makes a call by its plan. True if all of the response was read.
async fn call(client: StreamsClient, number: usize, plan: &Plan) -> Result<bool, Status> {
    let shape = &plan.shape;
    let first = |request: &mut Request<Item>| prepare(request, number, shape);
    let one = || {
        let mut request = Request::new(plan.requests.write(shape.requests.0[0].len));
        first(&mut request);
        request
    };
    let requests = || {
        let mut request = Request::new(plan.requests.writer(shape.requests.clone()));
        prepare(&mut request, number, shape);
        request
    };
    let responses = match shape.kind {
        Kind::Say => {
            plan.responses.read(client.say(one()).await?.get_ref());
            return Ok(true);
        }
        Kind::Record => {
            plan.responses
                .read(client.record(requests()).await?.get_ref());
            return Ok(true);
        }
        Kind::List => client.list(one()).await?,
        Kind::Chat => client.chat(requests()).await?,
    };
    let (count, pauses) = (shape.responses_taken, shape.response_pauses);
    plan.responses
        .reader(responses.into_inner(), count, pauses)
        .await
}

fn prepare<T>(request: &mut Request<T>, number: usize, shape: &Shape) {
    request
        .metadata_mut()
        .insert(PLAN, &number.to_string())
        .unwrap();
    if let Some(timeout) = shape.deadline {
        request.set_timeout(timeout);
    }
}

/// Checks the end of a call against its plan. `was_cut` if peers may have lost each other.
fn check(plan: &Plan, outcome: &Result<bool, Status>, elapsed: Duration, was_cut: bool) {
    let shape = &plan.shape;
    if let Some(deadline) = shape.deadline {
        // A reader that does not look at its stream learns nothing of it.
        let pause = shape
            .response_pauses
            .map_or(Duration::ZERO, |(_, pause)| pause);
        assert!(
            elapsed <= deadline + pause + LATE_MAX,
            "{elapsed:?} of {deadline:?}"
        );
    }
    match outcome {
        Ok(false) => {}
        Ok(true) => {
            assert_eq!(shape.failure, None, "it should have failed");
            plan.responses.check_all_read();
            if shape.requests_taken == usize::MAX {
                plan.requests.check_all_read();
            }
            let written = plan.responses.counts().0;
            assert_eq!(written, shape.responses.0.len() as u64);
        }
        Err(status) => match status.code() {
            Code::DeadlineExceeded => assert!(shape.deadline.is_some(), "{status}"),
            code if Some(code) == shape.failure => plan.responses.check_all_read(),
            Code::Unavailable => assert!(was_cut, "{status}"),
            _ => panic!("{status}"),
        },
    }
}

/// A client on host 0 and a server on host 1.
fn world(seed: u64, faults: PacketFaults, planned: Planned) -> (SimNetwork, Running) {
    let network = SimNetwork::new(Topology::single_switch(2, 1_000), faults, seed).unwrap();
    let open = |host| -> Arc<dyn Transport> {
        let link = network.host(host, 4_000).unwrap();
        Arc::new(Socket::over(Arc::new(link), Wire::Encapsulated, Config::default()).unwrap())
    };
    let pair = (open(0), open(1));
    let running = run(
        Server::builder().add_service(StreamsServer::new(planned)),
        pair,
    );
    (network, running)
}

fn faults(random: &mut Random) -> PacketFaults {
    let millionths = |random: &mut Random, max| match random.below(3) {
        0 => 0,
        _ => u32::try_from(random.below(max)).unwrap(),
    };
    PacketFaults {
        loss: millionths(random, 50_000),
        duplication: millionths(random, 50_000),
        reordering: millionths(random, 200_000),
        corruption: millionths(random, 10_000),
        hold_up_max: Duration::from_micros(1 + random.below(20_000)),
        ..PacketFaults::default()
    }
}

/// Cuts the network at times, if this world has cuts.
async fn cut(network: SimNetwork, mut random: Random) {
    loop {
        sleep(Duration::from_millis(random.below(3_000))).await;
        network.cut(1, &[1]);
        sleep(Duration::from_millis(random.below(3_000))).await;
        network.heal(1);
    }
}

/// Waits until nothing is left of any call on either side.
async fn settle(running: &Running, handlers: &AtomicUsize) {
    let left = || {
        (
            handlers.load(Ordering::SeqCst),
            running.monitor.stats().calls_in_progress,
            running.client.stats().rpcs_live,
            running.server.stats().rpcs_live,
        )
    };
    let begun = Instant::now();
    while left() != (0, 0, 0, 0) {
        let left = left();
        assert!(
            begun.elapsed() < SETTLE_MAX,
            "handlers, calls, RPCs at the client and at the server are left: {left:?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

async fn run_world(seed: u64) {
    let mut random = Random::new(seed);
    let calls = 1 + random.index(8);
    let plans: Vec<Plan> = (0..calls)
        .map(|_| Plan::of(Shape::random(&mut random)))
        .collect();
    let plans = Arc::new(plans);
    let handlers = Arc::new(AtomicUsize::new(0));
    let planned = Planned {
        plans: Arc::clone(&plans),
        handlers: Arc::clone(&handlers),
    };
    let faults = faults(&mut random);
    let (network, running) = world(seed, faults, planned);
    let was_cut = random.below(5) == 0;
    let cutting = was_cut.then(|| tokio::spawn(cut(network.clone(), random.fork())));
    let client = StreamsClient::new(running.channel.clone()).max_decoding_message_size(8 << 20);
    let mut tasks = JoinSet::new();
    for (number, plan) in plans.iter().enumerate() {
        let (client, plan) = (client.clone(), plan.clone());
        let wait = Duration::from_millis(random.below(20));
        tasks.spawn(async move {
            sleep(wait).await;
            let begun = Instant::now();
            let outcome = call(client, number, &plan).await;
            let _described = Described(number, &plan, begun);
            check(&plan, &outcome, begun.elapsed(), was_cut);
        });
    }
    let all = async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
    };
    if timeout(WORLD_MAX, all).await.is_err() {
        for (number, plan) in plans.iter().enumerate() {
            eprintln!("call {number}: {plan:?}");
        }
        panic!("a call hangs");
    }
    if let Some(cutting) = cutting {
        cutting.abort();
        network.heal(1);
    }
    settle(&running, &handlers).await;
    assert_eq!(running.monitor.stats().handlers_panicked, 0);
}

/// Describes a call that fails a check.
struct Described<'a>(usize, &'a Plan, Instant);

impl Drop for Described<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(number, plan, begun) = self;
            eprintln!("call {number} after {:?}: {plan:?}", begun.elapsed());
        }
    }
}

/// Names the seed of a world that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("HOMA_TEST_SEEDS={}..{}", self.0, self.0 + 1);
        }
    }
}

fn seeds() -> Range<u64> {
    let Ok(range) = std::env::var("HOMA_TEST_SEEDS") else {
        return 0..30;
    };
    let (from, to) = range.split_once("..").expect("a range, such as 0..1000");
    from.parse().unwrap()..to.parse().unwrap()
}

fn paused() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

#[test]
fn streams_of_random_shapes_are_what_a_queue_per_direction_says() {
    for seed in seeds() {
        let _named = Named(seed);
        paused().block_on(run_world(seed));
    }
}

/// Items of this length, one after the other.
fn equal(count: usize, len: usize) -> Steps {
    let pause = Duration::ZERO;
    Steps(vec![Step { len, pause }; count])
}

/// A call without surprises.
fn plain(kind: Kind, requests: Steps, responses: Steps) -> Shape {
    Shape {
        kind,
        requests,
        responses,
        request_pauses: None,
        response_pauses: None,
        requests_taken: usize::MAX,
        in_turn: true,
        failure: None,
        responses_taken: usize::MAX,
        deadline: None,
    }
}

/// One call on a network without faults.
async fn run_one(shape: Shape) {
    let plan = Plan::of(shape);
    let handlers = Arc::new(AtomicUsize::new(0));
    let planned = Planned {
        plans: Arc::new(vec![plan.clone()]),
        handlers: Arc::clone(&handlers),
    };
    let (_network, running) = world(1, PacketFaults::default(), planned);
    let client = StreamsClient::new(running.channel.clone()).max_decoding_message_size(8 << 20);
    let begun = Instant::now();
    let outcome = call(client, 0, &plan).await;
    check(&plan, &outcome, begun.elapsed(), false);
    settle(&running, &handlers).await;
}

/// A reader that does not read for longer than a client may be silent, at each end.
#[tokio::test(start_paused = true)]
async fn a_reader_may_pause_for_long() {
    for seconds in [9, 11, 14, 16, 24, 26, 40] {
        for len in [1_000, 60_000, 3_000_000] {
            let items = equal(9_000_000 / len.max(30_000), len);
            let behind = items.0.len().div_ceil(4);
            let pauses = Some((behind, Duration::from_secs(seconds)));
            let mut shape = plain(Kind::Record, items.clone(), equal(1, 10));
            shape.request_pauses = pauses;
            run_one(shape).await;
            let mut shape = plain(Kind::List, equal(1, 10), items);
            shape.response_pauses = pauses;
            run_one(shape).await;
        }
    }
}

/// Nobody waits for the rest of a message that nobody reads.
#[tokio::test(start_paused = true)]
async fn a_handler_may_leave_a_message_half_read_and_answer_for_long() {
    for len in [100, 60_000, 3_000_000] {
        let mut responses = equal(10, 10);
        responses.0[5].pause = Duration::from_secs(40);
        let mut shape = plain(Kind::Chat, equal(5, len), responses);
        shape.requests_taken = 1;
        run_one(shape).await;
    }
}
