//! A call is dropped at each place where it can wait, and all that works on it ends.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use homa_rpc::layer::{Next, around};
use homa_rpc::{Body, Channel, Request, Response, Server, Status, final_status, try_clone_request};
use support::{EchoClient, Msg, Running, Wire, echo, gated, handler};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::yield_now;
use tower::ServiceBuilder;
use tower::retry::Policy;

type Reply = Result<Response<Msg>, Status>;
type Call = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A call that has been polled once, and so is on its way.
async fn begun(call: impl Future<Output = Reply> + Send + 'static) -> Call {
    let mut call: Call = Box::pin(call);
    let poll = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
    assert!(poll.is_pending(), "{poll:?}");
    call
}

async fn idle(running: &Running) {
    while running.monitor.stats().calls_in_progress > 0 {
        yield_now().await;
    }
}

/// Counts handlers that have begun and that have ended, done or dropped.
#[derive(Clone, Default)]
struct Handlers {
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Handlers {
    fn begin(&self) -> Ended {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ended(Arc::clone(&self.ended))
    }

    fn counts(&self) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (load(&self.begun), load(&self.ended))
    }
}

struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Where a handler is, and leave to go on.
#[derive(Clone)]
struct Steps {
    reached: mpsc::Sender<&'static str>,
    leave: Arc<Semaphore>,
}

impl Steps {
    async fn at(&self, step: &'static str) {
        self.reached.try_send(step).unwrap();
        self.leave.acquire().await.unwrap().forget();
    }
}

/// A server that calls another one, both of which stop at each step.
struct Chain {
    front: Running,
    back: Running,
    front_handlers: Handlers,
    back_handlers: Handlers,
    reached: mpsc::Receiver<&'static str>,
    leave: Arc<Semaphore>,
}

impl Chain {
    fn new(wire: Wire) -> Self {
        let (reached, steps) = mpsc::channel(100);
        let leave = Arc::new(Semaphore::new(0));
        let at = Steps {
            reached,
            leave: Arc::clone(&leave),
        };
        let (front_handlers, back_handlers) = (Handlers::default(), Handlers::default());
        let back = wire.run_echo(handler({
            let (at, handlers) = (at.clone(), back_handlers.clone());
            move |request: Request<Msg>| {
                let (at, ended) = (at.clone(), handlers.begin());
                async move {
                    let _ended = ended;
                    at.at("in the nested call").await;
                    Ok(Response::new(request.into_inner()))
                }
            }
        }));
        let nested = back.echo();
        let front = wire.run_echo(handler({
            let handlers = front_handlers.clone();
            move |request: Request<Msg>| {
                let (at, ended, nested) = (at.clone(), handlers.begin(), nested.clone());
                async move {
                    let _ended = ended;
                    at.at("before the nested call").await;
                    let reply = nested.say(request.into_inner()).await?;
                    at.at("behind the nested call").await;
                    Ok(reply)
                }
            }
        }));
        Self {
            front,
            back,
            front_handlers,
            back_handlers,
            reached: steps,
            leave,
        }
    }

    /// Lets the handlers go on until they are at `step`.
    async fn until(&mut self, step: &str) {
        while self.reached.recv().await.unwrap() != step {
            self.leave.add_permits(1);
        }
    }

    async fn idle(&self) {
        idle(&self.front).await;
        idle(&self.back).await;
    }
}

async fn a_call_dropped_at_any_step_ends_its_handler_and_the_nested_one(wire: Wire) {
    let mut chain = Chain::new(wire);
    for (step, front, back) in [
        ("before the nested call", 1, 0),
        ("in the nested call", 2, 1),
        ("behind the nested call", 3, 2),
    ] {
        let call = begun(chain.front.echo().say(Msg::of(step))).await;
        chain.until(step).await;
        let ended_before = chain.front_handlers.counts().1;
        assert_eq!(ended_before, front - 1, "{step}: it still runs");
        drop(call);
        chain.idle().await;
        assert_eq!(chain.front_handlers.counts(), (front, front), "{step}");
        assert_eq!(chain.back_handlers.counts(), (back, back), "{step}");
        assert_eq!(
            chain.front.monitor.stats().calls_cancelled,
            front as u64,
            "{step}"
        );
    }
    assert_eq!(chain.back.monitor.stats().calls_cancelled, 1);
    // Nothing is left of them that would hold up another call.
    chain.leave.add_permits(100);
    assert!(chain.front.echo().say(Msg::of("after")).await.is_ok());
}

async fn a_call_dropped_before_its_first_poll_sends_nothing(wire: Wire) {
    let running = wire.run_echo(echo());
    drop(running.echo().say(Msg::of("never")));
    assert_eq!(running.client.stats().requests_sent, 0);
    assert!(running.echo().say(Msg::of("after")).await.is_ok());
    assert_eq!(running.server.stats().requests_received, 1);
}

async fn a_call_dropped_as_soon_as_it_is_sent_leaves_no_handler(wire: Wire) {
    let handlers = Handlers::default();
    let running = wire.run_echo(handler({
        let handlers = handlers.clone();
        move |request: Request<Msg>| {
            let ended = handlers.begin();
            async move {
                let _ended = ended;
                if request.get_ref().text() == "dropped" {
                    pending::<()>().await;
                }
                Ok(Response::new(request.into_inner()))
            }
        }
    }));
    for _ in 0..50 {
        drop(begun(running.echo().say(Msg::of("dropped"))).await);
        assert!(running.echo().say(Msg::of("answered")).await.is_ok());
    }
    // Some of the dropped calls may have come, and be gone later than others are answered.
    idle(&running).await;
    let (begun, ended) = handlers.counts();
    assert_eq!(begun, ended);
    assert!((50..=100).contains(&begun), "{begun}");
}

async fn a_call_dropped_when_its_reply_is_there_harms_no_other(wire: Wire) {
    let running = wire.run_echo(echo());
    for calls in 1..=50 {
        let dropped = begun(running.echo().say(Msg::of("answered"))).await;
        while running.server.stats().responses_sent < 2 * calls - 1 {
            yield_now().await;
        }
        drop(dropped);
        let reply = running.echo().say(Msg::of("next")).await.unwrap();
        assert_eq!(reply.get_ref().text(), "next");
    }
    idle(&running).await;
    let stats = running.monitor.stats();
    assert_eq!((stats.handlers_spawned, stats.calls_cancelled), (100, 0));
}

/// A server that answers when told to, a call that it works on, and the calls sent so far.
async fn busy() -> (Running, Arc<Notify>, Arc<Notify>) {
    let (go, come) = (Arc::default(), Arc::default());
    let running = Wire::Net.run_echo(gated(&go, &come));
    (running, go, come)
}

#[tokio::test]
async fn a_call_dropped_while_it_waits_for_a_layer_to_be_ready_is_not_sent() {
    let (running, go, come) = busy().await;
    let service = ServiceBuilder::new()
        .concurrency_limit(1)
        .service(running.channel.clone());
    let echo = EchoClient::new(service);
    let first = begun(echo.say(Msg::of("first"))).await;
    come.notified().await;
    let second = begun(echo.say(Msg::of("second"))).await;
    let third = begun(echo.say(Msg::of("third"))).await;
    assert_eq!(running.client.stats().requests_sent, 1);
    drop(second);
    go.notify_one();
    assert!(first.await.is_ok());
    let third = tokio::spawn(third);
    come.notified().await;
    go.notify_one();
    assert_eq!(third.await.unwrap().unwrap().get_ref().text(), "third");
    assert_eq!(running.client.stats().requests_sent, 2);
}

#[tokio::test]
async fn a_call_dropped_in_the_queue_of_a_buffer_is_not_sent() {
    let (running, go, come) = busy().await;
    let service = ServiceBuilder::new()
        .buffer(10)
        .concurrency_limit(1)
        .service(running.channel.clone());
    let echo = EchoClient::new(service);
    let first = tokio::spawn(echo.say(Msg::of("first")));
    come.notified().await;
    // The worker of the buffer takes the second and waits for room; the third is in its queue.
    let second = tokio::spawn(echo.say(Msg::of("second")));
    yield_now().await;
    let third = begun(echo.say(Msg::of("third"))).await;
    yield_now().await;
    drop(third);
    for call in [first, second] {
        go.notify_one();
        assert!(call.await.unwrap().is_ok());
    }
    yield_now().await;
    assert_eq!(running.client.stats().requests_sent, 2);
}

#[tokio::test]
async fn a_call_dropped_in_an_interceptor_that_waits_goes_no_further() {
    let running = Wire::Net.run_echo(echo());
    let before = around(async |request: http::Request<Body>, next: Next| {
        pending::<()>().await;
        next.run(request).await
    });
    let service = tower::Layer::layer(&before, running.channel.clone());
    drop(begun(EchoClient::new(service).say(Msg::default())).await);
    assert_eq!(running.client.stats().requests_sent, 0);

    let answered: Arc<Notify> = Arc::default();
    let behind = around({
        let answered = Arc::clone(&answered);
        move |request: http::Request<Body>, next: Next| {
            let answered = Arc::clone(&answered);
            async move {
                let _response = next.run(request).await?;
                answered.notify_one();
                pending().await
            }
        }
    });
    let service = tower::Layer::layer(&behind, running.channel.clone());
    let call = tokio::spawn(EchoClient::new(service).say(Msg::default()));
    answered.notified().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    idle(&running).await;
    assert_eq!(running.monitor.stats().handlers_spawned, 1);
}

/// Calls again after a failure, but never gets to it.
#[derive(Clone)]
struct Waiting(Arc<Notify>);

impl Policy<http::Request<Body>, http::Response<Body>, Status> for Waiting {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        _request: &mut http::Request<Body>,
        result: &mut Result<http::Response<Body>, Status>,
    ) -> Option<Self::Future> {
        let response = result.as_ref().unwrap();
        assert!(final_status(response).unwrap().is_err());
        self.0.notify_one();
        Some(Box::pin(pending()))
    }

    fn clone_request(&mut self, request: &http::Request<Body>) -> Option<http::Request<Body>> {
        try_clone_request(request)
    }
}

#[tokio::test]
async fn a_call_dropped_between_two_attempts_is_not_sent_again() {
    let running = Wire::Net.run_echo(handler(async |_| Err(Status::unavailable("no"))));
    let waits: Arc<Notify> = Arc::default();
    let service = ServiceBuilder::new()
        .retry(Waiting(Arc::clone(&waits)))
        .service(running.channel.clone());
    let call = tokio::spawn(EchoClient::new(service).say(Msg::default()));
    waits.notified().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    yield_now().await;
    assert_eq!(running.client.stats().requests_sent, 1);
}

#[tokio::test]
async fn a_call_dropped_while_its_host_is_looked_up_leaves_the_look_up_to_others() {
    let server = Server::builder().add_service(echo());
    let bound = server.bind("homa+udp://127.0.0.1:0").unwrap();
    let uri = bound.local_uris()[0].replace("127.0.0.1", "localhost");
    let _task = tokio::spawn(bound.serve());
    let echo = EchoClient::new(Channel::new(uri).unwrap());
    let looking_up = begun(echo.say(Msg::of("first"))).await;
    let other = tokio::spawn(echo.say(Msg::of("other")));
    yield_now().await;
    drop(looking_up);
    assert_eq!(other.await.unwrap().unwrap().get_ref().text(), "other");
}

on_every_wire!(
    a_call_dropped_at_any_step_ends_its_handler_and_the_nested_one,
    a_call_dropped_before_its_first_poll_sends_nothing,
    a_call_dropped_as_soon_as_it_is_sent_leaves_no_handler,
    a_call_dropped_when_its_reply_is_there_harms_no_other,
);
