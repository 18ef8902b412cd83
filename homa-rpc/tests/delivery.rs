//! What is known of a failed call's delivery, and layers that act on it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use homa_rpc::{
    Body, Code, Delivery, Request, Response, Server, Status, final_status, try_clone_request,
};
use support::frames::{self, Raw};
use support::{EchoClient, EchoServer, Handle, Msg, Wire, handler, run};
use tokio::sync::Notify;
use tower::ServiceBuilder;
use tower::retry::Policy;

/// Calls again what provably was not executed.
#[derive(Clone)]
struct IfNotSent {
    attempts: usize,
    refusals: Arc<AtomicUsize>,
    refused: Arc<Notify>,
}

impl Policy<http::Request<Body>, http::Response<Body>, Status> for IfNotSent {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        _request: &mut http::Request<Body>,
        result: &mut Result<http::Response<Body>, Status>,
    ) -> Option<Self::Future> {
        let status = match result {
            Ok(response) => final_status(response)?.err()?,
            Err(status) => status.clone(),
        };
        if status.delivery() != Delivery::NotSent || self.attempts == 0 {
            return None;
        }
        self.attempts -= 1;
        self.refusals
            .fetch_add(usize::from(status.is_refused()), Ordering::SeqCst);
        self.refused.notify_one();
        Some(Box::pin(tokio::task::yield_now()))
    }

    fn clone_request(&mut self, request: &http::Request<Body>) -> Option<http::Request<Body>> {
        try_clone_request(request)
    }
}

impl IfNotSent {
    fn new(attempts: usize) -> Self {
        Self {
            attempts,
            refusals: Arc::default(),
            refused: Arc::default(),
        }
    }
}

async fn a_call_refused_before_dispatch_is_repeated_by_a_layer_and_executed_once(wire: Wire) {
    let (go, come): (Arc<Notify>, Arc<Notify>) = (Arc::default(), Arc::default());
    let service = handler({
        let (go, come) = (Arc::clone(&go), Arc::clone(&come));
        move |request: Request<Msg>| {
            let (go, come) = (Arc::clone(&go), Arc::clone(&come));
            async move {
                come.notify_one();
                if request.get_ref().text() == "holds the place" {
                    go.notified().await;
                }
                Ok(Response::new(request.into_inner()))
            }
        }
    });
    let server = Server::builder().concurrency_limit(1).add_service(service);
    let running = run(server, wire.pair());
    let first = tokio::spawn(running.echo().say(Msg::of("holds the place")));
    come.notified().await;
    let policy = IfNotSent::new(usize::MAX);
    let (refusals, refused) = (Arc::clone(&policy.refusals), Arc::clone(&policy.refused));
    let service = ServiceBuilder::new()
        .retry(policy)
        .service(running.channel.clone());
    let second = tokio::spawn(EchoClient::new(service).say(Msg::of("comes again")));
    refused.notified().await;
    go.notify_one();
    assert!(first.await.unwrap().is_ok());
    assert_eq!(
        second.await.unwrap().unwrap().get_ref().text(),
        "comes again"
    );
    assert!(refusals.load(Ordering::SeqCst) > 0);
    let stats = running.monitor.stats();
    assert_eq!(stats.handlers_spawned, 2);
    assert_eq!(stats.calls_refused, refusals.load(Ordering::SeqCst) as u64);
}

async fn a_failure_that_may_have_been_executed_is_not_repeated(wire: Wire) {
    let executed = Arc::new(AtomicUsize::new(0));
    let service = handler({
        let executed = Arc::clone(&executed);
        move |_| {
            executed.fetch_add(1, Ordering::SeqCst);
            async { Err(Status::unavailable("by the handler")) }
        }
    });
    let running = run(Server::builder().add_service(service), wire.pair());
    let service = ServiceBuilder::new()
        .retry(IfNotSent::new(5))
        .service(running.channel.clone());
    let status = EchoClient::new(service)
        .say(Msg::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.delivery(), Delivery::Unknown);
    assert!(!status.is_refused());
    assert_eq!(executed.load(Ordering::SeqCst), 1);
}

async fn a_nested_refusal_says_nothing_about_the_outer_call(wire: Wire) {
    let inner = run(
        Server::builder()
            .concurrency_limit(0)
            .add_service(support::echo()),
        wire.pair(),
    );
    let echo = inner.echo();
    let outer = wire.run_echo(handler(move |request| echo.say(request.into_inner())));
    let status = outer.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        status.delivery(),
        Delivery::Unknown,
        "the outer handler ran"
    );
    assert!(!status.is_refused());
}

/// Never answers, and counts how often it is called.
fn never() -> (EchoServer<Handle>, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let service = handler({
        let calls = Arc::clone(&calls);
        move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            pending()
        }
    });
    (service, calls)
}

async fn a_refusal_stands_on_the_wire(wire: Wire) {
    let (service, calls) = never();
    let server = Server::builder().concurrency_limit(0).add_service(service);
    let running = run(server, wire.pair());
    let reply = frames::send(
        &running.client,
        running.server.local_addr(),
        Raw::call().bytes(),
    );
    let reply = reply.await.unwrap();
    assert_eq!(reply.code, Code::ResourceExhausted.number());
    assert_ne!(reply.flags & frames::REFUSED, 0);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

async fn an_expired_call_has_an_unknown_fate_once_it_was_sent(wire: Wire) {
    let mut timeout = Duration::from_millis(3);
    loop {
        let (service, calls) = never();
        let running = run(Server::builder().add_service(service), wire.pair());
        let mut request = Request::new(Msg::default());
        request.set_timeout(timeout);
        let status = running.echo().say(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        if calls.load(Ordering::SeqCst) == 1 {
            return assert_eq!(status.delivery(), Delivery::Unknown);
        }
        // The machine was too busy for the call to get there, or to be sent at all.
        timeout *= 2;
    }
}

on_every_wire!(
    a_call_refused_before_dispatch_is_repeated_by_a_layer_and_executed_once,
    a_failure_that_may_have_been_executed_is_not_repeated,
    a_nested_refusal_says_nothing_about_the_outer_call,
    a_refusal_stands_on_the_wire,
    an_expired_call_has_an_unknown_fate_once_it_was_sent,
);
