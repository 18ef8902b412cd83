//! Deadlines: enforced at either end, whatever the other one does. The clock is tokio's, paused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use homa_rpc::{Body, Channel, Code, Delivery, Request, Response, Server, Status};
use support::frames::{self, Raw};
use support::{EchoClient, Msg, Wire, handler, net, run};
use tokio::time::{Instant, sleep};

const DEADLINE_EXCEEDED: u8 = 4;

fn within(timeout: Duration) -> Request<Msg> {
    let mut request = Request::new(Msg::default());
    request.set_timeout(timeout);
    request
}

#[tokio::test(start_paused = true)]
async fn the_client_gives_up_in_time_and_names_a_silent_server() {
    let (client, server) = net::pair();
    let mut taken = frames::silent(&server);
    let uri = format!("homa+udp://{}", server.local_addr());
    let channel = Channel::builder().socket(client).build(&uri).unwrap();
    let begun = Instant::now();
    let call = EchoClient::new(channel).say(within(Duration::from_millis(70)));
    let status = call.await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains(&uri), "{status}");
    assert!(status.message().contains("/test.Echo/Say"), "{status}");
    assert!(begun.elapsed() >= Duration::from_millis(70));
    assert!(begun.elapsed() < Duration::from_millis(80));
    assert!(taken.try_recv().is_ok(), "the request was sent");
}

#[tokio::test(start_paused = true)]
async fn the_server_learns_what_is_left_and_ends_the_handler_itself() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let running = Wire::Net.run_echo(handler({
        let dropped = Arc::clone(&dropped);
        move |_| {
            let guard = OnDrop(Arc::clone(&dropped));
            async move {
                pending::<()>().await;
                drop(guard);
                unreachable!("dropped before")
            }
        }
    }));
    let frame = Raw {
        time_or_load: 5_000_000,
        ..Raw::call()
    };
    let begun = Instant::now();
    let reply = frames::send(&running.client, running.server.local_addr(), frame.bytes());
    let reply = reply.await.unwrap();
    assert_eq!(reply.code, DEADLINE_EXCEEDED);
    assert!(reply.status_message.contains("/test.Echo/Say"));
    assert_eq!(reply.flags & frames::REFUSED, 0);
    assert!(begun.elapsed() >= Duration::from_millis(5));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_is_expired_when_it_comes_is_refused_before_dispatch() {
    let calls = Arc::new(AtomicUsize::new(0));
    let running = Wire::Net.run_echo(handler({
        let calls = Arc::clone(&calls);
        move |request: Request<Msg>| {
            calls.fetch_add(1, Ordering::SeqCst);
            async move { Ok(Response::new(request.into_inner())) }
        }
    }));
    let (client, server) = (running.client.clone(), running.server.local_addr());
    let frame = Raw {
        time_or_load: 1_000_000,
        ..Raw::call()
    };
    let reply = frames::send(&client, server, frame.bytes()).await.unwrap();
    assert_eq!(reply.code, 0, "one that is in time is dispatched");

    // A request whose task runs late: time passes between arrival and first poll.
    let rpc = {
        let call = Raw {
            time_or_load: 1_000_000,
            ..Raw::call()
        };
        let frame = homa_transport::Message::from(call.bytes());
        homa_transport::transport::call(running.client.clone(), server, frame)
    };
    let mut rpc = Box::pin(rpc);
    // The first poll sends the request, its task is spawned but has not run.
    let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(rpc.as_mut().poll(cx))).await;
    assert!(poll.is_pending());
    tokio::time::advance(Duration::from_millis(2)).await;
    let reply = frames::RawReply::read(&rpc.await.unwrap());
    assert_eq!(reply.code, DEADLINE_EXCEEDED);
    assert_ne!(reply.flags & frames::REFUSED, 0);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_too_late_does_not_win_over_the_deadline() {
    let running = Wire::Net.run_echo(handler(async |request: Request<Msg>| {
        sleep(Duration::from_millis(50)).await;
        Ok(Response::new(request.into_inner()))
    }));
    let status = running.echo().say(within(Duration::from_millis(50))).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    let reply = running.echo().say(within(Duration::from_millis(60))).await;
    assert!(reply.is_ok(), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_nothing_sends_nothing() {
    let running = Wire::Net.run_echo(handler(async |_| pending().await));
    let status = running.echo().say(within(Duration::ZERO)).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.delivery(), Delivery::NotSent);
    assert_eq!(running.client.stats().requests_sent, 0);
}

#[tokio::test(start_paused = true)]
async fn the_longest_timeouts_are_no_limit() {
    let running = Wire::Net.run_echo(support::echo());
    let longest_sent = Duration::from_nanos(u64::MAX);
    for timeout in [
        Duration::MAX,
        longest_sent,
        longest_sent - Duration::from_secs(1),
        longest_sent + Duration::from_secs(1),
    ] {
        assert!(running.echo().say(within(timeout)).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_the_channel_holds_where_a_call_has_none_of_its_own() {
    let running = Wire::Net.run_echo(handler(async |_| pending().await));
    let channel = Channel::builder()
        .socket(running.client.clone())
        .timeout(Duration::from_millis(30))
        .build(&running.uri)
        .unwrap();
    let echo = EchoClient::new(channel);
    let begun = Instant::now();
    let status = echo.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_millis(40));
    let begun = Instant::now();
    let status = echo.say(within(Duration::from_millis(5))).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_millis(20));
    let begun = Instant::now();
    let status = echo.say(within(Duration::from_millis(500))).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(
        begun.elapsed() < Duration::from_millis(40),
        "the shorter one counts"
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_layers_of_the_client_too() {
    #[derive(Clone)]
    struct Slow<S>(S);
    impl<S, R> tower::Service<R> for Slow<S>
    where
        S: tower::Service<R>,
        S::Future: Send + 'static,
    {
        type Response = S::Response;
        type Error = S::Error;
        type Future = homa_rpc::codegen::BoxFuture<S::Response, S::Error>;
        fn poll_ready(
            &mut self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), S::Error>> {
            self.0.poll_ready(cx)
        }
        fn call(&mut self, request: R) -> Self::Future {
            let call = self.0.call(request);
            Box::pin(async move {
                sleep(Duration::from_secs(10)).await;
                call.await
            })
        }
    }
    let running = Wire::Net.run_echo(support::echo());
    let begun = Instant::now();
    let echo = EchoClient::new(Slow(running.channel.clone()));
    let status = echo.say(within(Duration::from_millis(20))).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_millis(30));
}

/// A body that never ends, after nothing at all.
struct Endless;

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_bodies_on_either_side() {
    let endless = tower::util::MapResponseLayer::new(|response: http::Response<Body>| {
        response.map(|_| Endless)
    });
    // On the server, which ends the call itself.
    let server = Server::builder()
        .layer(endless.clone())
        .add_service(support::echo());
    let running = run(server, net::pair());
    let frame = Raw {
        time_or_load: 7_000_000,
        ..Raw::call()
    };
    let reply = frames::send(&running.client, running.server.local_addr(), frame.bytes());
    assert_eq!(reply.await.unwrap().code, DEADLINE_EXCEEDED);
    assert_eq!(running.monitor.stats().calls_expired, 1);
    // On the client.
    let running = Wire::Net.run_echo(support::echo());
    let service = tower::Layer::layer(&endless, running.channel.clone());
    let begun = Instant::now();
    let echo = EchoClient::new(service);
    let status = echo
        .say(within(Duration::from_millis(20)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed(), Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_expires_in_a_layer_of_the_server_never_gets_to_its_handler() {
    let calls = Arc::new(AtomicUsize::new(0));
    let service = handler({
        let calls = Arc::clone(&calls);
        move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            pending()
        }
    });
    let server = Server::builder()
        .layer(tower::limit::GlobalConcurrencyLimitLayer::new(1))
        .add_service(service);
    let running = run(server, net::pair());
    let holds_the_place = tokio::spawn(running.echo().say(Msg::default()));
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let frame = Raw {
        time_or_load: 7_000_000,
        ..Raw::call()
    };
    let begun = Instant::now();
    let reply = frames::send(&running.client, running.server.local_addr(), frame.bytes());
    assert_eq!(reply.await.unwrap().code, DEADLINE_EXCEEDED);
    assert!(begun.elapsed() >= Duration::from_millis(7));
    holds_the_place.abort();
    assert!(holds_the_place.await.unwrap_err().is_cancelled());
    while running.monitor.stats().calls_in_progress > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Calls again, 10 ms after each failure.
#[derive(Clone)]
struct Again;

impl tower::retry::Policy<http::Request<Body>, http::Response<Body>, Status> for Again {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        _request: &mut http::Request<Body>,
        result: &mut Result<http::Response<Body>, Status>,
    ) -> Option<Self::Future> {
        let response = result.as_ref().unwrap();
        let failed = homa_rpc::final_status(response).unwrap().is_err();
        failed.then(|| sleep(Duration::from_millis(10)))
    }

    fn clone_request(&mut self, request: &http::Request<Body>) -> Option<http::Request<Body>> {
        homa_rpc::try_clone_request(request)
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_carries_what_is_left_and_the_pauses_between_them_count() {
    let left = Arc::new(Mutex::new(Vec::new()));
    let running = Wire::Net.run_echo(handler({
        let left = Arc::clone(&left);
        move |request: Request<Msg>| {
            let deadline = request.deadline().unwrap();
            left.lock().unwrap().push(deadline - Instant::now());
            async { Err(Status::unavailable("not now")) }
        }
    }));
    let service = tower::ServiceBuilder::new()
        .retry(Again)
        .service(running.channel.clone());
    let begun = Instant::now();
    let call = EchoClient::new(service).say(within(Duration::from_millis(35)));
    let status = call.await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed(), Duration::from_millis(35));
    let expected = [35, 25, 15, 5].map(Duration::from_millis);
    assert_eq!(*left.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_the_wait_for_a_layer_to_be_ready() {
    let running = Wire::Net.run_echo(handler(async |_| pending().await));
    let limited = tower::ServiceBuilder::new()
        .concurrency_limit(1)
        .service(running.channel.clone());
    let buffered = tower::ServiceBuilder::new()
        .buffer(1)
        .service(limited.clone());
    let holds_the_place = tokio::spawn(EchoClient::new(limited.clone()).say(Msg::default()));
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let timeout = Duration::from_millis(20);
    let status = EchoClient::new(limited).say(within(timeout)).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    let status = EchoClient::new(buffered).say(within(timeout)).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed(), 2 * timeout);
    assert_eq!(running.client.stats().requests_sent, 1);
    holds_the_place.abort();
}
