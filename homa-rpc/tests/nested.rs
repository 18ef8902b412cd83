//! Calls made inside handlers: they inherit the deadline, and end with the call they are made for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::time::Duration;

use homa_rpc::{CallContext, Code, Request, Response, Status, detached};
use support::{EchoClient, EchoServer, Handle, Msg, Running, Wire, handler};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

fn within(millis: u64) -> Request<Msg> {
    let mut request = Request::new(Msg::default());
    request.set_timeout(Duration::from_millis(millis));
    request
}

/// Answers with the time that is left, in milliseconds.
fn left() -> EchoServer<Handle> {
    handler(async |request: Request<Msg>| {
        let text = match request.deadline() {
            Some(deadline) => (deadline - Instant::now()).as_millis().to_string(),
            None => "none".to_owned(),
        };
        Ok(Response::new(Msg::of(&text)))
    })
}

/// A server whose handler makes a call to `inner` by `call`, after 10 ms.
fn calling<F, Fut>(inner: &Running, call: F) -> Running
where
    F: Fn(EchoClient) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Msg>, Status>> + Send + 'static,
{
    let echo = inner.echo();
    Wire::Net.run_echo(handler(move |_| {
        let echo = echo.clone();
        async move {
            sleep(Duration::from_millis(10)).await;
            call(echo).await
        }
    }))
}

async fn ask(outer: &Running, request: Request<Msg>) -> String {
    let reply = outer.echo().say(request).await.unwrap();
    reply.get_ref().text().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_nested_call_inherits_what_is_left_of_the_deadline() {
    let inner = Wire::Net.run_echo(left());
    let outer = calling(&inner, |echo| echo.say(Msg::default()));
    assert_eq!(ask(&outer, within(100)).await, "90");
    assert_eq!(ask(&outer, Request::new(Msg::default())).await, "none");
}

#[tokio::test(start_paused = true)]
async fn of_inherited_and_own_deadline_the_earlier_one_counts() {
    let inner = Wire::Net.run_echo(left());
    let outer = calling(&inner, |echo| echo.say(within(40)));
    assert_eq!(ask(&outer, within(100)).await, "40");
    assert_eq!(ask(&outer, within(30)).await, "20");
}

#[tokio::test(start_paused = true)]
async fn a_spawned_call_inherits_only_in_the_scope_of_the_context() {
    let inner = Wire::Net.run_echo(left());
    let spawned = calling(&inner, |echo| async move {
        tokio::spawn(echo.say(Msg::default())).await.unwrap()
    });
    assert_eq!(ask(&spawned, within(100)).await, "none");
    let scoped = calling(&inner, |echo| async move {
        let call = CallContext::current().scope(echo.say(Msg::default()));
        tokio::spawn(call).await.unwrap()
    });
    assert_eq!(ask(&scoped, within(100)).await, "90");
}

#[tokio::test(start_paused = true)]
async fn a_detached_call_inherits_nothing() {
    let inner = Wire::Net.run_echo(left());
    let outer = calling(&inner, |echo| detached(echo.say(Msg::default())));
    assert_eq!(ask(&outer, within(100)).await, "none");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_stub_on_the_channel_inherits_as_well() {
    use homa_rpc::Body;
    use tower::ServiceExt;
    let inner = Wire::Net.run_echo(left());
    let channel = inner.channel.clone();
    let outer = Wire::Net.run_echo(handler(move |_| {
        let channel = channel.clone();
        async move {
            let mut request = http::Request::new(Body::request(bytes::Bytes::new()));
            *request.uri_mut() = "/test.Echo/Say".parse().unwrap();
            let response = channel.oneshot(request).await?;
            let message = response.into_body().message().unwrap().clone();
            Ok(Response::new(prost::Message::decode(message).unwrap()))
        }
    }));
    assert_eq!(ask(&outer, within(100)).await, "100");
}

#[tokio::test(start_paused = true)]
async fn deadline_exceeded_goes_up_a_chain_of_servers_and_ends_all_handlers() {
    let (service, mut events) = never();
    let third = Wire::Net.run_echo(service);
    let second = calling(&third, |echo| echo.say(Msg::default()));
    let first = calling(&second, |echo| echo.say(Msg::default()));
    let begun = Instant::now();
    let status = first.echo().say(within(50)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed(), Duration::from_millis(50));
    assert_eq!(events.recv().await, Some(Event::Begun));
    assert_eq!(events.recv().await, Some(Event::Dropped));
}

/// What a handler reports.
#[derive(Debug, PartialEq)]
enum Event {
    Begun,
    Dropped,
}

struct Report(mpsc::Sender<Event>);

impl Drop for Report {
    fn drop(&mut self) {
        self.0.try_send(Event::Dropped).unwrap();
    }
}

/// A service that never answers, and reports when a handler begins and is dropped.
fn never() -> (EchoServer<Handle>, mpsc::Receiver<Event>) {
    let (sender, events) = mpsc::channel(100);
    let service = handler(move |_| {
        let report = Report(sender.clone());
        async move {
            report.0.try_send(Event::Begun).unwrap();
            pending().await
        }
    });
    (service, events)
}

async fn dropping_a_call_ends_the_handlers_of_its_nested_calls(wire: Wire) {
    let (service, mut events) = never();
    let third = wire.run_echo(service);
    let inner = third.echo();
    let second = wire.run_echo(handler(move |request| inner.say(request.into_inner())));
    let inner = second.echo();
    let first = wire.run_echo(handler(move |request| inner.say(request.into_inner())));
    let call = tokio::spawn(first.echo().say(Msg::default()));
    assert_eq!(events.recv().await, Some(Event::Begun));
    call.abort();
    assert_eq!(events.recv().await, Some(Event::Dropped));
    for server in [&first, &second, &third] {
        // The handler is dropped before it is counted.
        while server.monitor.stats().calls_cancelled == 0 {
            tokio::task::yield_now().await;
        }
    }
}

on_every_wire!(dropping_a_call_ends_the_handlers_of_its_nested_calls,);
