//! Interceptors: before and after calls, on both sides.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use homa_rpc::layer::{Call, Interceptor, Next, around, interceptor};
use homa_rpc::{Body, Code, Request, Response, Server, Status, final_status};
use support::{EchoClient, EchoServer, Handle, Msg, Wire, echo, handler, net, run};
use tower::Layer;

/// What an interceptor has seen: paths and codes.
type Seen = Arc<Mutex<Vec<(String, Code)>>>;

/// Adds a key to requests and notes how calls end.
struct Noting {
    key: &'static str,
    seen: Seen,
}

impl Interceptor for Noting {
    fn before(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().append("seen-by", self.key).unwrap();
        Ok(request)
    }

    fn after(&self, call: &Call, outcome: Result<(), &Status>) {
        let code = outcome.map_or_else(Status::code, |()| Code::Ok);
        self.seen
            .lock()
            .unwrap()
            .push((call.path().to_owned(), code));
    }
}

fn noting(key: &'static str) -> (Noting, Seen) {
    let seen = Seen::default();
    let noting = Noting {
        key,
        seen: Arc::clone(&seen),
    };
    (noting, seen)
}

/// Answers with what the key `seen-by` says, or fails with the code that the message names.
fn answering() -> EchoServer<Handle> {
    handler(
        async |request: Request<Msg>| match request.get_ref().text() {
            "fail" => Err(Status::not_found("nothing there")),
            "panic" => panic!("on purpose"),
            "hang" => pending().await,
            _ => {
                let seen: Vec<_> = request.metadata().get_all("seen-by").collect();
                Ok(Response::new(Msg::of(&seen.join(" "))))
            }
        },
    )
}

async fn an_interceptor_changes_requests_and_sees_every_final_status_on_both_sides(wire: Wire) {
    let (on_server, server_seen) = noting("server");
    let (on_client, client_seen) = noting("client");
    let server = Server::builder()
        .layer(interceptor(on_server))
        .add_service(answering());
    let running = run(server, wire.pair());
    let echo = EchoClient::new(interceptor(on_client).layer(running.channel.clone()));
    let reply = echo.say(Msg::of("")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "client server");
    assert_eq!(
        echo.say(Msg::of("fail")).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        echo.missing(Msg::of("")).await.unwrap_err().code(),
        Code::Unimplemented
    );
    let expected = [
        ("/test.Echo/Say".to_owned(), Code::Ok),
        ("/test.Echo/Say".to_owned(), Code::NotFound),
        ("/test.Echo/Missing".to_owned(), Code::Unimplemented),
    ];
    assert_eq!(*client_seen.lock().unwrap(), expected);
    assert_eq!(*server_seen.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_sees_deadlines_and_calls_that_are_given_up() {
    let (on_server, server_seen) = noting("server");
    let (on_client, client_seen) = noting("client");
    let server = Server::builder()
        .layer(interceptor(on_server))
        .add_service(answering());
    let running = run(server, net::pair());
    let echo = EchoClient::new(interceptor(on_client).layer(running.channel.clone()));
    let mut request = Request::new(Msg::of("hang"));
    request.set_timeout(Duration::from_millis(20));
    assert_eq!(
        echo.say(request).await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    let wait_for = async |calls| {
        while running.monitor.stats().calls_in_progress != calls {
            tokio::task::yield_now().await;
        }
    };
    wait_for(0).await;
    let call = tokio::spawn(echo.say(Msg::of("hang")));
    wait_for(1).await;
    call.abort();
    wait_for(0).await;
    let codes = |seen: &Seen| seen.lock().unwrap().iter().map(|(_, code)| *code).collect();
    let client: Vec<Code> = codes(&client_seen);
    assert_eq!(client, [Code::DeadlineExceeded, Code::Cancelled]);
    let server: Vec<Code> = codes(&server_seen);
    assert_eq!(server, [Code::DeadlineExceeded, Code::Cancelled]);
}

#[tokio::test]
async fn an_interceptor_of_a_server_sees_panics_and_shutdown() {
    let (noting, seen) = noting("server");
    let server = Server::builder()
        .drain_timeout(Duration::ZERO)
        .layer(interceptor(noting))
        .add_service(answering());
    let mut running = run(server, net::pair());
    let status = running.echo().say(Msg::of("panic")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    let call = tokio::spawn(running.echo().say(Msg::of("hang")));
    while running.monitor.stats().handlers_spawned < 2 {
        tokio::task::yield_now().await;
    }
    running.stop();
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let codes: Vec<Code> = seen.lock().unwrap().iter().map(|(_, code)| *code).collect();
    assert_eq!(codes, [Code::Unknown, Code::Unavailable]);
    let stats = running.monitor.stats();
    assert_eq!((stats.handlers_panicked, stats.calls_stopped), (1, 1));
}

async fn a_function_is_an_interceptor_and_can_refuse_calls(wire: Wire) {
    let guard = |request: Request<()>| match request.metadata().get("token") {
        Some("good") => Ok(request),
        _ => Err(Status::unauthenticated("a good token is needed")),
    };
    let server = Server::builder()
        .layer(interceptor(guard))
        .add_service(echo());
    let running = run(server, wire.pair());
    let status = running.echo().say(Msg::of("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "a good token is needed");
    let with_token = interceptor(|mut request: Request<()>| {
        request.metadata_mut().insert("token", "good").unwrap();
        Ok(request)
    });
    let echo = EchoClient::new(with_token.layer(running.channel.clone()));
    assert!(echo.say(Msg::of("x")).await.is_ok());
    // On a client a refused call is not sent.
    let before = running.client.stats().requests_sent;
    let closed = interceptor(|_: Request<()>| Err(Status::failed_precondition("closed")));
    let echo = EchoClient::new(closed.layer(running.channel.clone()));
    let status = echo.say(Msg::of("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(running.client.stats().requests_sent, before);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_set_by_an_interceptor_is_enforced_and_passed_on() {
    let running = Wire::Net.run_echo(answering());
    let limited = interceptor(|mut request: Request<()>| {
        request.set_timeout(Duration::from_millis(30));
        Ok(request)
    });
    let echo = EchoClient::new(limited.layer(running.channel.clone()));
    let begun = tokio::time::Instant::now();
    let status = echo.say(Msg::of("hang")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed(), Duration::from_millis(30));
}

async fn an_async_interceptor_waits_changes_and_sees_the_final_status(wire: Wire) {
    let seen = Seen::default();
    let layer = {
        let seen = Arc::clone(&seen);
        around(move |mut request: http::Request<Body>, next: Next| {
            let seen = Arc::clone(&seen);
            async move {
                // What a look-up of a token would be.
                tokio::task::yield_now().await;
                let value = http::HeaderValue::from_static("async");
                request.headers_mut().append("seen-by", value);
                let path = request.uri().path().to_owned();
                let response = next.run(request).await?;
                let outcome = final_status(&response).unwrap();
                let code = outcome.map_or_else(|status| status.code(), |()| Code::Ok);
                seen.lock().unwrap().push((path, code));
                Ok(response)
            }
        })
    };
    let server = Server::builder()
        .layer(layer.clone())
        .add_service(answering());
    let running = run(server, wire.pair());
    let echo = EchoClient::new(layer.layer(running.channel.clone()));
    let reply = echo.say(Msg::of("")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "async async");
    assert_eq!(
        echo.say(Msg::of("fail")).await.unwrap_err().code(),
        Code::NotFound
    );
    let codes: Vec<Code> = seen.lock().unwrap().iter().map(|(_, code)| *code).collect();
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::NotFound, Code::NotFound]);
}

async fn an_async_interceptor_can_answer_itself_on_either_side(wire: Wire) {
    let refusing = around(async |_: http::Request<Body>, _: Next| {
        Err(Status::resource_exhausted("not today"))
    });
    let server = Server::builder()
        .layer(refusing.clone())
        .add_service(echo());
    let running = run(server, wire.pair());
    let status = running.echo().say(Msg::of("")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let before = running.client.stats().requests_sent;
    let echo = EchoClient::new(refusing.layer(running.channel.clone()));
    assert_eq!(
        echo.say(Msg::of("")).await.unwrap_err().message(),
        "not today"
    );
    assert_eq!(running.client.stats().requests_sent, before);
}

async fn a_panic_of_an_interceptor_on_a_server_is_unknown_and_the_server_lives_on(wire: Wire) {
    let touchy = |request: Request<()>| {
        assert!(!request.metadata().contains_key("touch"), "on purpose");
        Ok(request)
    };
    let server = Server::builder()
        .layer(interceptor(touchy))
        .add_service(echo());
    let running = run(server, wire.pair());
    let mut request = Request::new(Msg::default());
    request.metadata_mut().insert("touch", "").unwrap();
    let status = running.echo().say(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert!(running.echo().say(Msg::default()).await.is_ok());
}

async fn layers_and_handlers_know_the_method_called(wire: Wire) {
    let method: Arc<Mutex<Option<&'static str>>> = Arc::default();
    let layer = {
        let method = Arc::clone(&method);
        around(move |request: http::Request<Body>, next: Next| {
            let info = request.body().info();
            *method.lock().unwrap() = info.method.map(homa_rpc::MethodDescriptor::method);
            next.run(request)
        })
    };
    let service = handler(async |request: Request<Msg>| {
        let method = request.method().unwrap();
        assert!(request.remote_addr().is_some());
        Ok(Response::new(Msg::of(method.path())))
    });
    let server = Server::builder().layer(layer.clone()).add_service(service);
    let running = run(server, wire.pair());
    let reply = running.echo().say(Msg::default()).await.unwrap();
    assert_eq!(reply.get_ref().text(), "/test.Echo/Say");
    assert_eq!(method.lock().unwrap().take(), Some("Say"));
    let echo = EchoClient::new(layer.layer(running.channel.clone()));
    let _unimplemented = echo.missing(Msg::default()).await.unwrap_err();
    // The server doesn't know it; the client, which was asked first, did.
    assert_eq!(*method.lock().unwrap(), None);
}

async fn an_interceptor_can_be_that_of_one_service_alone(wire: Wire) {
    let (noting, seen) = noting("one");
    let refusing = around(async |_: http::Request<Body>, _: Next| {
        Err(Status::resource_exhausted("not today"))
    });
    let other = support::other_handler(async |_| Err(Status::aborted("reached")));
    let server = Server::builder()
        .add_service(interceptor(noting).layer(answering()))
        .add_service(refusing.layer(other));
    let running = run(server, wire.pair());
    let reply = running.echo().say(Msg::of("")).await.unwrap();
    assert_eq!(reply.get_ref().text(), "one");
    let other = support::other_client::OtherClient::new(running.channel.clone());
    let status = other.say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

async fn extensions_and_options_of_a_call_reach_layers_and_handlers(wire: Wire) {
    #[derive(Clone, Debug, PartialEq)]
    struct User(&'static str);
    let who = interceptor(|mut request: Request<()>| {
        request
            .extensions_mut()
            .insert(User("from the server's layer"));
        Ok(request)
    });
    let service = handler(async |request: Request<Msg>| {
        let user = request.extensions().get::<User>().unwrap();
        Ok(Response::new(Msg::of(user.0)))
    });
    let server = Server::builder().layer(who).add_service(service);
    let running = run(server, wire.pair());
    type Seen = Vec<(Option<User>, Option<bool>)>;
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let client = {
        let seen = Arc::clone(&seen);
        around(move |request: http::Request<Body>, next: Next| {
            let user = request.extensions().get::<User>().cloned();
            let idempotent = request.body().info().idempotent;
            seen.lock().unwrap().push((user, idempotent));
            next.run(request)
        })
    };
    let echo = EchoClient::new(client.layer(running.channel.clone()));
    let mut request = Request::new(Msg::default());
    request.extensions_mut().insert(User("of the call"));
    request.set_idempotent(true);
    let reply = echo.say(request).await.unwrap();
    assert_eq!(reply.get_ref().text(), "from the server's layer");
    echo.say(Msg::default()).await.unwrap();
    let expected = [(Some(User("of the call")), Some(true)), (None, None)];
    assert_eq!(*seen.lock().unwrap(), expected);
}

on_every_wire!(
    an_interceptor_can_be_that_of_one_service_alone,
    extensions_and_options_of_a_call_reach_layers_and_handlers,
    an_interceptor_changes_requests_and_sees_every_final_status_on_both_sides,
    a_function_is_an_interceptor_and_can_refuse_calls,
    an_async_interceptor_waits_changes_and_sees_the_final_status,
    an_async_interceptor_can_answer_itself_on_either_side,
    a_panic_of_an_interceptor_on_a_server_is_unknown_and_the_server_lives_on,
    layers_and_handlers_know_the_method_called,
);
