//! tower's middleware on clients and servers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use homa_rpc::server::Router;
use homa_rpc::{Body, Code, Request, Response, Server, Status};
use homa_rpc::{final_status, try_clone_request};
use support::echo_client::EchoClient;
use support::{EchoServer, Handle, Msg, Wire, echo, gated, handler, run};
use tokio::sync::Notify;
use tokio::time::Instant;
use tower::balance::p2c::Balance;
use tower::buffer::{Buffer, BufferLayer};
use tower::discover::ServiceList;
use tower::layer::layer_fn;
use tower::limit::{ConcurrencyLimitLayer, RateLimitLayer};
use tower::load::{CompleteOnResponse, PendingRequests};
use tower::load_shed::LoadShedLayer;
use tower::retry::RetryLayer;
use tower::retry::budget::{Budget, TpsBudget};
use tower::steer::Steer;
use tower::timeout::TimeoutLayer;
use tower::{Service, ServiceBuilder};

type HttpRequest = http::Request<Body>;

#[tokio::test(start_paused = true)]
async fn timeout_is_deadline_exceeded_on_either_side() {
    let running = Wire::Net.run_echo(handler(async |_| pending().await));
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(Duration::from_millis(10)))
        .service(running.channel.clone());
    let status = EchoClient::new(service).say(Msg::default()).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);

    let server = Server::builder()
        .layer(TimeoutLayer::new(Duration::from_millis(10)))
        .add_service(handler(async |_| pending().await));
    let running = run(server, Wire::Net.pair());
    let status = running.echo().say(Msg::default()).await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
}

async fn load_shed_over_a_concurrency_limit_is_resource_exhausted_on_the_client(wire: Wire) {
    let (go, come) = (Arc::default(), Arc::default());
    let running = wire.run_echo(gated(&go, &come));
    let service = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .service(running.channel.clone());
    let echo = EchoClient::new(service);
    let first = tokio::spawn(echo.say(Msg::of("first")));
    come.notified().await;
    let status = echo.say(Msg::of("second")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    go.notify_one();
    assert!(first.await.unwrap().is_ok());
}

async fn load_shed_over_a_concurrency_limit_is_resource_exhausted_on_the_server(wire: Wire) {
    let (go, come) = (Arc::default(), Arc::default());
    let server = Server::builder()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(1))
        .add_service(gated(&go, &come));
    let running = run(server, wire.pair());
    let first = tokio::spawn(running.echo().say(Msg::of("first")));
    come.notified().await;
    let status = running.echo().say(Msg::of("second")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    go.notify_one();
    assert!(first.await.unwrap().is_ok());
}

async fn concurrency_limit_makes_calls_wait_on_the_client(wire: Wire) {
    let (go, come): (Arc<Notify>, Arc<Notify>) = (Arc::default(), Arc::default());
    let running = wire.run_echo(gated(&go, &come));
    let service = ServiceBuilder::new()
        .layer(ConcurrencyLimitLayer::new(1))
        .service(running.channel.clone());
    let echo = EchoClient::new(service);
    let first = tokio::spawn(echo.say(Msg::of("first")));
    come.notified().await;
    let second = tokio::spawn(echo.say(Msg::of("second")));
    assert_eq!(running.server.stats().requests_received, 1);
    go.notify_one();
    assert!(first.await.unwrap().is_ok());
    come.notified().await;
    go.notify_one();
    assert_eq!(second.await.unwrap().unwrap().get_ref().text(), "second");
}

async fn concurrency_limit_makes_calls_wait_on_the_server(wire: Wire) {
    let (go, come): (Arc<Notify>, Arc<Notify>) = (Arc::default(), Arc::default());
    let server = Server::builder()
        .layer(ConcurrencyLimitLayer::new(1))
        .add_service(gated(&go, &come));
    let running = run(server, wire.pair());
    let first = tokio::spawn(running.echo().say(Msg::of("first")));
    come.notified().await;
    let second = tokio::spawn(running.echo().say(Msg::of("second")));
    go.notify_one();
    assert!(first.await.unwrap().is_ok());
    come.notified().await;
    go.notify_one();
    assert_eq!(second.await.unwrap().unwrap().get_ref().text(), "second");
}

/// Makes five calls one after the other; the time that took.
async fn five_calls<T: homa_rpc::client::CallService>(echo: EchoClient<T>) -> Duration {
    let begun = Instant::now();
    for _ in 0..5 {
        assert!(echo.say(Msg::of("x")).await.is_ok());
    }
    begun.elapsed()
}

/// Two at once, two after a second, the last one after another second.
const TWO_PER_SECOND: std::ops::Range<Duration> = Duration::from_secs(2)..Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn rate_limit_behind_a_buffer_spreads_calls_on_the_client() {
    let running = Wire::Net.run_echo(echo());
    let service = ServiceBuilder::new()
        .layer(BufferLayer::<HttpRequest>::new(8))
        .layer(RateLimitLayer::new(2, Duration::from_secs(1)))
        .service(running.channel.clone());
    let took = five_calls(EchoClient::new(service)).await;
    assert!(TWO_PER_SECOND.contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn rate_limit_behind_a_buffer_spreads_calls_on_the_server() {
    let server = Server::builder()
        .layer(BufferLayer::<HttpRequest>::new(8))
        .layer(RateLimitLayer::new(2, Duration::from_secs(1)))
        .add_service(echo());
    let running = run(server, Wire::Net.pair());
    let took = five_calls(running.echo()).await;
    assert!(TWO_PER_SECOND.contains(&took), "{took:?}");
}

/// A service that fails calls of `fail`.
fn failing() -> EchoServer<Handle> {
    handler(async |request: Request<Msg>| {
        if request.get_ref().text() == "fail" {
            return Err(Status::with_details(Code::NotFound, "nothing", "det"));
        }
        Ok(Response::new(request.into_inner()))
    })
}

async fn buffer_passes_calls_and_failures_on_the_client(wire: Wire) {
    let running = wire.run_echo(failing());
    let service = ServiceBuilder::new()
        .layer(BufferLayer::<HttpRequest>::new(8))
        .service(running.channel.clone());
    let echo = EchoClient::new(service);
    assert!(echo.say(Msg::of("x")).await.is_ok());
    let status = echo.say(Msg::of("fail")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "nothing")
    );
    assert_eq!(status.details(), "det");
}

async fn buffer_passes_calls_and_failures_on_the_server(wire: Wire) {
    let server = Server::builder()
        .layer(BufferLayer::<HttpRequest>::new(8))
        .add_service(failing());
    let running = run(server, wire.pair());
    assert!(running.echo().say(Msg::of("x")).await.is_ok());
    let status = running.echo().say(Msg::of("fail")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "nothing")
    );
    assert_eq!(status.details(), "det");
}

/// Retries what is UNAVAILABLE, as far as the budget goes.
#[derive(Clone)]
struct RetryUnavailable(Arc<TpsBudget>);

impl RetryUnavailable {
    /// So many retries at first.
    fn new(retries: u32) -> Self {
        let second = Duration::from_secs(1);
        Self(Arc::new(TpsBudget::new(second, retries, 0.0)))
    }
}

impl<E> tower::retry::Policy<HttpRequest, http::Response<Body>, E> for RetryUnavailable {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _request: &mut HttpRequest,
        result: &mut Result<http::Response<Body>, E>,
    ) -> Option<Self::Future> {
        let outcome = final_status(result.as_ref().ok()?)?;
        match outcome {
            Err(status) if status.code() == Code::Unavailable => {
                self.0.withdraw().then(|| std::future::ready(()))
            }
            _ => {
                self.0.deposit();
                None
            }
        }
    }

    fn clone_request(&mut self, request: &HttpRequest) -> Option<HttpRequest> {
        try_clone_request(request)
    }
}

/// A service that is UNAVAILABLE the first two times.
fn third_time_lucky(calls: &Arc<AtomicUsize>) -> EchoServer<Handle> {
    let calls = Arc::clone(calls);
    handler(move |request: Request<Msg>| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move {
            if call < 2 {
                return Err(Status::unavailable("not yet"));
            }
            assert_eq!(request.metadata().get("k"), Some("v"));
            Ok(Response::new(request.into_inner()))
        }
    })
}

fn request_with_metadata() -> Request<Msg> {
    let mut request = Request::new(Msg::of("again"));
    request.metadata_mut().insert("k", "v").unwrap();
    request
}

async fn retry_sees_the_final_status_and_sends_the_same_request_again_on_the_client(wire: Wire) {
    for (retries, calls_made) in [(5, 3), (1, 2)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let running = wire.run_echo(third_time_lucky(&calls));
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryUnavailable::new(retries)))
            .service(running.channel.clone());
        let result = EchoClient::new(service).say(request_with_metadata()).await;
        match result {
            Ok(reply) => assert_eq!((reply.get_ref().text(), retries), ("again", 5)),
            Err(status) => assert_eq!((status.message(), retries), ("not yet", 1)),
        }
        assert_eq!(calls.load(Ordering::SeqCst), calls_made);
    }
}

async fn retry_sees_the_final_status_and_sends_the_same_request_again_on_the_server(wire: Wire) {
    let calls = Arc::new(AtomicUsize::new(0));
    let server = Server::builder()
        .layer(RetryLayer::new(RetryUnavailable::new(5)))
        .add_service(third_time_lucky(&calls));
    let running = run(server, wire.pair());
    let reply = running.echo().say(request_with_metadata()).await.unwrap();
    assert_eq!(reply.get_ref().text(), "again");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(running.server.stats().requests_received, 1);
}

/// Sends each request to the one of two services that has fewer in progress.
fn balance<S>(
    services: [S; 2],
) -> impl Service<
    HttpRequest,
    Response = http::Response<Body>,
    Error = tower::BoxError,
    Future: Send + 'static,
> + Clone
+ Send
+ Sync
+ 'static
where
    S: Service<HttpRequest, Response = http::Response<Body>> + Send + 'static,
    S::Error: Into<tower::BoxError>,
    S::Future: Send + 'static,
{
    let services = services.map(|one| PendingRequests::new(one, CompleteOnResponse::default()));
    let list = ServiceList::new::<HttpRequest>(services);
    Buffer::new(Balance::<_, HttpRequest>::new(list), 8)
}

async fn balance_behind_a_buffer_sends_to_the_less_loaded_server(wire: Wire) {
    let gates: [(Arc<Notify>, Arc<Notify>); 2] = Default::default();
    let servers = [0, 1].map(|n| wire.run_echo(gated(&gates[n].0, &gates[n].1)));
    let service = balance([0, 1].map(|n: usize| servers[n].channel.clone()));
    let echo = EchoClient::new(service);
    let calls = ["x", "y"].map(|text| tokio::spawn(echo.say(Msg::of(text))));
    // One call has come to each.
    for (_, come) in &gates {
        come.notified().await;
    }
    for (go, _) in &gates {
        go.notify_one();
    }
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    for server in servers {
        assert_eq!(server.server.stats().requests_received, 1);
    }
}

async fn balance_behind_a_buffer_works_on_the_server(wire: Wire) {
    let server = Server::builder()
        .layer(layer_fn(|router: Router| balance([router.clone(), router])))
        .add_service(failing());
    let running = run(server, wire.pair());
    assert!(running.echo().say(Msg::of("x")).await.is_ok());
    let status = running.echo().say(Msg::of("fail")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "nothing")
    );
}

fn for_tenant(name: &str) -> Request<Msg> {
    let mut request = Request::new(Msg::default());
    request.metadata_mut().insert("tenant", name).unwrap();
    request
}

fn second_for_tenant_b<S>(request: &HttpRequest, _services: &[S]) -> usize {
    usize::from(
        request
            .headers()
            .get("tenant")
            .is_some_and(|name| name == "b"),
    )
}

async fn steer_picks_the_server_by_the_request(wire: Wire) {
    let servers = ["a", "b"]
        .map(|name| wire.run_echo(handler(async move |_| Ok(Response::new(Msg::of(name))))));
    let channels = [0, 1].map(|n: usize| servers[n].channel.clone());
    let echo = EchoClient::new(Steer::new(channels, second_for_tenant_b));
    for name in ["a", "b", "a"] {
        let reply = echo.say(for_tenant(name)).await.unwrap();
        assert_eq!(reply.get_ref().text(), name);
    }
}

async fn steer_picks_the_stack_by_the_request_on_the_server(wire: Wire) {
    let marked = |router: Router, mark: &'static str| {
        tower::util::MapRequest::new(router, move |mut request: HttpRequest| {
            let mark = http::HeaderValue::from_static(mark);
            request.headers_mut().insert("stack", mark);
            request
        })
    };
    let server = Server::builder()
        .layer(layer_fn(move |router: Router| {
            let stacks = [marked(router.clone(), "a"), marked(router, "b")];
            Steer::<_, _, HttpRequest>::new(stacks, second_for_tenant_b)
        }))
        .add_service(handler(async |request: Request<Msg>| {
            Ok(Response::new(Msg::of(
                request.metadata().get("stack").unwrap(),
            )))
        }));
    let running = run(server, wire.pair());
    for name in ["a", "b", "a"] {
        let reply = running.echo().say(for_tenant(name)).await.unwrap();
        assert_eq!(reply.get_ref().text(), name);
    }
}

/// A service around a channel, written as tonic's users write them.
#[derive(Clone)]
struct Around {
    inner: homa_rpc::Channel,
    seen: Arc<AtomicUsize>,
}

impl Service<http::Request<Body>> for Around {
    type Response = http::Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = homa_rpc::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let seen = Arc::clone(&self.seen);
        Box::pin(async move {
            seen.fetch_add(1, Ordering::SeqCst);
            let response = inner.call(request).await?;
            Ok(response)
        })
    }
}

async fn a_service_around_a_channel_is_one_for_clients(wire: Wire) {
    let running = wire.run_echo(echo());
    let seen = Arc::new(AtomicUsize::new(0));
    let around = Around {
        inner: running.channel.clone(),
        seen: Arc::clone(&seen),
    };
    let around = homa_rpc::layer::InterceptedService::new(around, |request: Request<()>| {
        Ok::<_, Status>(request)
    });
    let echo = EchoClient::new(around);
    let reply = echo.say(Msg::of("through both")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "through both");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

async fn failures_of_a_channel_can_be_responses_for_foreign_stubs(_wire: Wire) {
    let channel = homa_rpc::Channel::new("homa+mem://nobody-listens-here").unwrap();
    let mut told = ServiceBuilder::new()
        .map_result(|result: Result<http::Response<Body>, Status>| {
            Ok::<_, Status>(result.unwrap_or_else(Status::into_http))
        })
        .service(channel);
    let request = http::Request::post("/test.Echo/Say");
    let request = request.body(http_body_util::Full::from("\0\0\0\0\0"));
    let response = told.call(request.unwrap()).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
}

on_every_wire!(
    load_shed_over_a_concurrency_limit_is_resource_exhausted_on_the_client,
    load_shed_over_a_concurrency_limit_is_resource_exhausted_on_the_server,
    concurrency_limit_makes_calls_wait_on_the_client,
    concurrency_limit_makes_calls_wait_on_the_server,
    buffer_passes_calls_and_failures_on_the_client,
    buffer_passes_calls_and_failures_on_the_server,
    retry_sees_the_final_status_and_sends_the_same_request_again_on_the_client,
    retry_sees_the_final_status_and_sends_the_same_request_again_on_the_server,
    balance_behind_a_buffer_sends_to_the_less_loaded_server,
    balance_behind_a_buffer_works_on_the_server,
    steer_picks_the_server_by_the_request,
    steer_picks_the_stack_by_the_request_on_the_server,
    a_service_around_a_channel_is_one_for_clients,
    failures_of_a_channel_can_be_responses_for_foreign_stubs,
);
