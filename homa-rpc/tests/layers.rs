//! Tower layers on clients and servers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use homa_rpc::{Body, BoxError, Code, Request, Response, Server, Status};
use homa_rpc::{final_status, try_clone_request};
use support::echo_client::EchoClient;
use support::{Msg, Wire, echo, handler, run};
use tokio::sync::Notify;
use tower::buffer::BufferLayer;
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::test(start_paused = true)]
async fn a_timeout_layer_is_deadline_exceeded_on_either_side() {
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

/// A service that waits for `go` and counts who has come.
fn gated(go: &Arc<Notify>, come: &Arc<Notify>) -> support::EchoServer<support::Handle> {
    let (go, come) = (Arc::clone(go), Arc::clone(come));
    handler(move |request: Request<Msg>| {
        let (go, come) = (Arc::clone(&go), Arc::clone(&come));
        async move {
            come.notify_one();
            go.notified().await;
            Ok(Response::new(request.into_inner()))
        }
    })
}

async fn shed_load_over_a_concurrency_limit_is_resource_exhausted_on_the_client(wire: Wire) {
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

async fn shed_load_over_a_concurrency_limit_is_resource_exhausted_on_the_server(wire: Wire) {
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

async fn a_concurrency_limit_alone_makes_calls_wait(wire: Wire) {
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

async fn a_buffer_passes_calls_and_errors(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        if request.get_ref().text() == "fail" {
            return Err(Status::not_found("nothing"));
        }
        Ok(Response::new(request.into_inner()))
    }));
    let service = ServiceBuilder::new()
        .layer(BufferLayer::<http::Request<Body>>::new(8))
        .service(running.channel.clone());
    let echo = EchoClient::new(service);
    assert!(echo.say(Msg::of("x")).await.is_ok());
    let status = echo.say(Msg::of("fail")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[derive(Clone)]
struct RetryUnavailable(usize);

impl tower::retry::Policy<http::Request<Body>, http::Response<Body>, Status> for RetryUnavailable {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _request: &mut http::Request<Body>,
        result: &mut Result<http::Response<Body>, Status>,
    ) -> Option<Self::Future> {
        let status = match result {
            Ok(response) => final_status(response)?.err()?,
            Err(status) => status.clone(),
        };
        self.0 = self.0.checked_sub(1)?;
        (status.code() == Code::Unavailable).then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &http::Request<Body>) -> Option<http::Request<Body>> {
        try_clone_request(request)
    }
}

async fn a_retry_layer_sees_statuses_and_sends_the_same_request_again(wire: Wire) {
    let calls = Arc::new(AtomicUsize::new(0));
    let running = wire.run_echo(handler({
        let calls = Arc::clone(&calls);
        move |request: Request<Msg>| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            async move {
                if call < 2 {
                    return Err(Status::unavailable("not yet"));
                }
                assert_eq!(request.metadata().get("k"), Some("v"));
                Ok(Response::new(request.into_inner()))
            }
        }
    }));
    let service = ServiceBuilder::new()
        .layer(tower::retry::RetryLayer::new(RetryUnavailable(5)))
        .service(running.channel.clone());
    let mut request = Request::new(Msg::of("again"));
    request.metadata_mut().insert("k", "v").unwrap();
    let reply = EchoClient::new(service).say(request).await.unwrap();
    assert_eq!(reply.get_ref().text(), "again");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

async fn the_first_layer_of_a_server_sees_a_call_first(wire: Wire) {
    let mark = |name: &'static str| {
        tower::util::MapRequestLayer::new(move |mut request: http::Request<Body>| {
            let value = http::HeaderValue::from_static(name);
            request.headers_mut().append("seen", value);
            request
        })
    };
    let server = Server::builder()
        .layer(mark("first"))
        .layer(mark("second"))
        .add_service(handler(async |request: Request<Msg>| {
            let seen: Vec<_> = request.metadata().get_all("seen").collect();
            Ok(Response::new(Msg::of(&seen.join(","))))
        }));
    let running = run(server, wire.pair());
    let reply = running.echo().say(Msg::default()).await.unwrap();
    assert_eq!(reply.get_ref().text(), "first,second");
}

async fn layers_that_wrap_bodies_work_on_both_sides(wire: Wire) {
    use http_body_util::BodyExt;
    use http_body_util::combinators::UnsyncBoxBody;

    type Wrapped = UnsyncBoxBody<bytes::Bytes, Status>;
    let server = Server::builder()
        .layer(tower::util::MapRequestLayer::new(
            |request: http::Request<Body>| request.map(|body| -> Wrapped { body.boxed_unsync() }),
        ))
        .layer(tower::util::MapResponseLayer::new(
            |response: http::Response<Body>| {
                response.map(|body| -> Wrapped { body.boxed_unsync() })
            },
        ))
        .add_service(handler(async |request: Request<Msg>| {
            if request.get_ref().text() == "fail" {
                return Err(Status::with_details(Code::Aborted, "a % b", "det"));
            }
            let metadata = request.metadata().clone();
            let mut response = Response::new(request.into_inner());
            *response.metadata_mut() = metadata;
            response.trailing_metadata_mut().insert("t", "1").unwrap();
            Ok(response)
        }));
    let running = run(server, wire.pair());
    let service = running
        .channel
        .clone()
        .map_request(|request: http::Request<Body>| {
            request.map(|body| -> Wrapped { body.boxed_unsync() })
        })
        .map_response(|response: http::Response<Body>| {
            response.map(|body| -> Wrapped { body.boxed_unsync() })
        });
    let echo = EchoClient::new(service);
    for text in ["", "hello"] {
        let mut request = Request::new(Msg::of(text));
        request.metadata_mut().insert_bin("k-bin", &[0]).unwrap();
        let reply = echo.say(request).await.unwrap();
        assert_eq!(reply.get_ref().text(), text);
        let back = reply.metadata().get_bin("k-bin").unwrap().unwrap();
        assert_eq!(back, [0].as_slice());
        assert_eq!(reply.trailing_metadata().unwrap().get("t"), Some("1"));
    }
    let status = echo.say(Msg::of("fail")).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(status.message(), "a % b");
    assert_eq!(status.details(), "det");
}

async fn an_http_error_of_a_layer_is_mapped_on_either_side(wire: Wire) {
    let forbid = |mut response: http::Response<Body>| {
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        response
    };
    let server = Server::builder()
        .layer(tower::util::MapResponseLayer::new(forbid))
        .add_service(echo());
    let running = run(server, wire.pair());
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);

    let running = wire.run_echo(echo());
    let service = ServiceBuilder::new()
        .layer(tower::util::MapResponseLayer::new(forbid))
        .service(running.channel.clone());
    let status = EchoClient::new(service).say(Msg::default()).await;
    assert_eq!(status.unwrap_err().code(), Code::PermissionDenied);
}

async fn errors_of_layers_keep_their_meaning(wire: Wire) {
    let fail = |_: http::Request<Body>| async {
        Err::<http::Response<Body>, BoxError>(Status::unauthenticated("who are you?").into())
    };
    let layer = tower::layer::layer_fn(move |_inner| tower::service_fn(fail));
    let server = Server::builder().layer(layer).add_service(echo());
    let running = run(server, wire.pair());
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "who are you?");
    let status = EchoClient::new(tower::service_fn(fail))
        .say(Msg::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

on_every_wire!(
    shed_load_over_a_concurrency_limit_is_resource_exhausted_on_the_client,
    shed_load_over_a_concurrency_limit_is_resource_exhausted_on_the_server,
    a_concurrency_limit_alone_makes_calls_wait,
    a_buffer_passes_calls_and_errors,
    a_retry_layer_sees_statuses_and_sends_the_same_request_again,
    the_first_layer_of_a_server_sees_a_call_first,
    layers_that_wrap_bodies_work_on_both_sides,
    an_http_error_of_a_layer_is_mapped_on_either_side,
    errors_of_layers_keep_their_meaning,
);
