//! tower-http's middleware on clients and servers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use homa_rpc::codegen::BoxFuture;
use homa_rpc::{Body, Code, Request, Response, Server, Status, final_status};
use http::{HeaderName, StatusCode};
use support::echo_client::EchoClient;
use support::{EchoServer, Handle, Msg, Wire, echo, handler, run};
use tower::ServiceBuilder;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tower_http::auth::{AddAuthorizationLayer, AsyncRequireAuthorizationLayer};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::classify::GrpcFailureClass;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveHeadersLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

type HttpRequest = http::Request<Body>;

/// A service that fails calls of `fail`, panics at `panic`, and else echoes with its metadata.
fn service() -> EchoServer<Handle> {
    handler(async |request: Request<Msg>| {
        match request.get_ref().text() {
            "fail" => return Err(Status::not_found("nothing")),
            "panic" => panic!("told to"),
            _ => {}
        }
        let metadata = request.metadata().clone();
        let mut response = Response::new(request.into_inner());
        *response.metadata_mut() = metadata;
        Ok(response)
    })
}

/// What a trace layer has seen.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// The trace layer for gRPC, with its outcomes noted.
macro_rules! trace {
    ($seen:expr) => {{
        let (ended, failed) = ($seen.clone(), $seen.clone());
        TraceLayer::new_for_grpc()
            .on_eos(
                move |trailers: Option<&http::HeaderMap>, _: Duration, _: &tracing::Span| {
                    if let Some(trailers) = trailers {
                        ended.note(format!("end {}", trailers["grpc-status"].to_str().unwrap()));
                    }
                },
            )
            .on_failure(
                move |class: GrpcFailureClass, _: Duration, _: &tracing::Span| {
                    failed.note(format!("failure {class}"));
                },
            )
    }};
}

#[tokio::test]
async fn trace_sees_the_outcome_of_grpc_on_both_sides() {
    let (client, server) = (Seen::default(), Seen::default());
    let builder = Server::builder()
        .layer(trace!(server))
        .add_service(service());
    let running = run(builder, Wire::Mem.pair());
    let layered = ServiceBuilder::new()
        .layer(trace!(client))
        .service(running.channel.clone());
    let echo = EchoClient::new(layered);
    assert!(echo.say(Msg::of("x")).await.is_ok());
    assert_eq!(server.take(), ["end 0"]);
    assert_eq!(client.take(), ["end 0"]);
    let status = echo.say(Msg::of("fail")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "nothing")
    );
    for seen in [server.take(), client.take()] {
        assert_eq!(seen, ["failure Status: NotFound: nothing"]);
    }
}

#[tokio::test]
async fn trace_does_not_hide_from_an_outer_layer_that_a_call_was_refused() {
    let builder = Server::builder().concurrency_limit(0).add_service(echo());
    let running = run(builder, Wire::Mem.pair());
    let seen = Seen::default();
    let outer = MapResponseLayer::new({
        let seen = seen.clone();
        move |response: http::Response<_>| {
            let status = final_status(&response).unwrap().unwrap_err();
            seen.note(format!(
                "{} refused: {}",
                status.code(),
                status.is_refused()
            ));
            response
        }
    });
    let layered = ServiceBuilder::new()
        .layer(outer)
        .layer(TraceLayer::new_for_grpc())
        .service(running.channel.clone());
    let status = EchoClient::new(layered).say(Msg::default()).await;
    assert!(status.unwrap_err().is_refused());
    assert_eq!(seen.take(), ["RESOURCE_EXHAUSTED refused: true"]);
}

/// Lets `Bearer good` pass, forbids `Bearer bad`, and asks others who they are.
fn authorize(request: HttpRequest) -> BoxFuture<HttpRequest, http::Response<Body>> {
    let token = request.headers().get("authorization");
    let token = token.map(|token| token.as_bytes().to_vec());
    let refusal = match token.as_deref() {
        Some(b"Bearer good") => return Box::pin(async { Ok(request) }),
        Some(b"Bearer bad") => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let response = http::Response::builder().status(refusal);
    Box::pin(async move { Err(response.body(Body::empty()).unwrap()) })
}

#[tokio::test]
async fn auth_401_is_unauthenticated_and_403_permission_denied_on_the_server() {
    let builder = Server::builder()
        .layer(AsyncRequireAuthorizationLayer::new(authorize))
        .add_service(service());
    let running = run(builder, Wire::Mem.pair());
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let with_token = |token| {
        let layered = ServiceBuilder::new()
            .layer(AddAuthorizationLayer::bearer(token))
            .service(running.channel.clone());
        EchoClient::new(layered).say(Msg::default())
    };
    let status = with_token("bad").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let reply = with_token("good").await.unwrap();
    assert_eq!(reply.metadata().get("authorization"), Some("Bearer good"));
}

#[tokio::test]
async fn auth_401_is_unauthenticated_and_403_permission_denied_on_the_client() {
    let running = Wire::Mem.run_echo(service());
    let layered = ServiceBuilder::new()
        .layer(AsyncRequireAuthorizationLayer::new(authorize))
        .service(running.channel.clone());
    let echo = EchoClient::new(layered);
    for (token, code) in [
        ("Bearer bad", Some(Code::PermissionDenied)),
        ("other", Some(Code::Unauthenticated)),
        ("Bearer good", None),
    ] {
        let mut request = Request::new(Msg::default());
        request
            .metadata_mut()
            .insert("authorization", token)
            .unwrap();
        let result = echo.say(request).await;
        assert_eq!(result.err().map(|status| status.code()), code, "{token}");
    }
    assert_eq!(running.server.stats().requests_received, 1);
}

#[tokio::test]
async fn request_id_is_the_same_at_client_and_server_and_comes_back() {
    let at_server = Seen::default();
    let note = {
        let seen = at_server.clone();
        move |request: HttpRequest| {
            let id = request.headers().get("x-request-id").unwrap();
            seen.note(id.to_str().unwrap());
            request
        }
    };
    // A server gives an id to calls that have none, and keeps that of others.
    let builder = Server::builder()
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(MapRequestLayer::new(note))
        .add_service(handler(async |request: Request<Msg>| {
            if request.get_ref().text() == "fail" {
                return Err(Status::aborted("lost"));
            }
            Ok(Response::new(Msg::default()))
        }));
    let running = run(builder, Wire::Mem.pair());
    let reply = running.echo().say(Msg::default()).await.unwrap();
    let id = reply.metadata().get("x-request-id").unwrap();
    assert_eq!(at_server.take(), [id]);

    let layered = ServiceBuilder::new()
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(PropagateRequestIdLayer::x_request_id())
        .service(running.channel.clone());
    let echo = EchoClient::new(layered);
    let reply = echo.say(Msg::default()).await.unwrap();
    let id = reply.metadata().get("x-request-id").unwrap();
    assert_eq!(at_server.take(), [id]);
    let status = echo.say(Msg::of("fail")).await.unwrap_err();
    let id = status.metadata().get("x-request-id").unwrap();
    assert_eq!(at_server.take(), [id]);
}

#[tokio::test]
async fn catch_panic_is_unknown_on_the_server_which_lives_on() {
    let builder = Server::builder()
        .layer(CatchPanicLayer::new())
        .add_service(service());
    let running = run(builder, Wire::Mem.pair());
    let status = running.echo().say(Msg::of("panic")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert!(status.message().contains("500"), "{status}");
    assert!(running.echo().say(Msg::of("x")).await.is_ok());
}

#[tokio::test]
async fn catch_panic_with_an_answer_of_its_own_keeps_code_and_message() {
    let answer = |_: Box<dyn std::any::Any + Send>| Status::internal("sorry").into_http();
    let builder = Server::builder()
        .layer(CatchPanicLayer::custom(answer))
        .add_service(service());
    let running = run(builder, Wire::Mem.pair());
    let status = running.echo().say(Msg::of("panic")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "sorry"));
}

#[tokio::test]
async fn catch_panic_is_unknown_on_the_client() {
    let running = Wire::Mem.run_echo(service());
    let layered = ServiceBuilder::new()
        .layer(CatchPanicLayer::new())
        .layer(MapRequestLayer::new(|request: HttpRequest| {
            assert!(request.headers().is_empty(), "told to");
            request
        }))
        .service(running.channel.clone());
    let echo = EchoClient::new(layered);
    assert!(echo.say(Msg::default()).await.is_ok());
    let mut request = Request::new(Msg::default());
    request.metadata_mut().insert("k", "v").unwrap();
    let status = echo.say(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
}

/// A message that is so many bytes as a body: a prefix of five, a tag and a length of one each.
fn body_of(len: usize) -> Msg {
    Msg {
        data: Bytes::from(vec![7; len - 7]),
    }
}

#[tokio::test]
async fn body_limit_is_resource_exhausted_on_the_server() {
    let builder = Server::builder()
        .layer(RequestBodyLimitLayer::new(100))
        .add_service(service());
    let running = run(builder, Wire::Mem.pair());
    let echo = running.echo();
    let reply = echo.say(body_of(100)).await.unwrap();
    assert_eq!(reply.get_ref(), &body_of(100));
    let status = echo.say(body_of(101)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    // With a length that is announced the layer answers 413 at once.
    let mut request = Request::new(body_of(101));
    request
        .metadata_mut()
        .insert("content-length", "101")
        .unwrap();
    let status = echo.say(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("413"), "{status}");
}

#[tokio::test]
async fn body_limit_is_resource_exhausted_on_the_client() {
    let running = Wire::Mem.run_echo(service());
    let layered = ServiceBuilder::new()
        .layer(RequestBodyLimitLayer::new(100))
        .service(running.channel.clone());
    let echo = EchoClient::new(layered);
    assert!(echo.say(body_of(100)).await.is_ok());
    let status = echo.say(body_of(101)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(running.server.stats().requests_received, 1);
}

#[tokio::test]
async fn sensitive_headers_are_not_shown_on_either_side() {
    const SECRET: HeaderName = HeaderName::from_static("secret");
    let at_server = Seen::default();
    let builder = Server::builder()
        .layer(SetSensitiveHeadersLayer::new([SECRET]))
        .add_service(handler({
            let seen = at_server.clone();
            move |request: Request<Msg>| {
                seen.note(format!("{request:?}"));
                let value = request.metadata().get("secret").unwrap().to_owned();
                let mut response = Response::new(Msg::default());
                response.metadata_mut().insert("secret", &value).unwrap();
                async move { Ok(response) }
            }
        }));
    let running = run(builder, Wire::Mem.pair());
    let sent = Seen::default();
    let layered = ServiceBuilder::new()
        .layer(SetSensitiveHeadersLayer::new([SECRET]))
        .layer(MapRequestLayer::new({
            let sent = sent.clone();
            move |request: HttpRequest| {
                sent.note(format!("{request:?}"));
                request
            }
        }))
        .service(running.channel.clone());
    let mut request = Request::new(Msg::default());
    request.metadata_mut().insert("secret", "hunter2").unwrap();
    let reply = EchoClient::new(layered).say(request).await.unwrap();
    assert_eq!(reply.metadata().get("secret"), Some("hunter2"));
    for shown in [&at_server.take()[0], &sent.take()[0], &format!("{reply:?}")] {
        assert!(
            shown.contains("Sensitive") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_408_is_deadline_exceeded_on_either_side() {
    let timeout =
        || TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_millis(10));
    let never = || handler(async |_| pending().await);
    let running = run(
        Server::builder().layer(timeout()).add_service(never()),
        Wire::Net.pair(),
    );
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");

    let running = Wire::Net.run_echo(never());
    let layered = ServiceBuilder::new()
        .layer(timeout())
        .service(running.channel.clone());
    let status = EchoClient::new(layered)
        .say(Msg::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn all_of_them_at_once_on_both_sides() {
    macro_rules! stack {
        () => {
            ServiceBuilder::new()
                .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
                .layer(TraceLayer::new_for_grpc())
                .layer(PropagateRequestIdLayer::x_request_id())
                .layer(SetSensitiveHeadersLayer::new([http::header::AUTHORIZATION]))
                .layer(TimeoutLayer::with_status_code(
                    StatusCode::REQUEST_TIMEOUT,
                    Duration::from_secs(60),
                ))
                .layer(RequestBodyLimitLayer::new(1_000))
        };
    }
    let builder = Server::builder()
        .layer(stack!().layer(CatchPanicLayer::new()).into_inner())
        .add_service(service());
    let running = run(builder, Wire::Mem.pair());
    let layered = stack!()
        .layer(CatchPanicLayer::new())
        .service(running.channel.clone());
    let echo = EchoClient::new(layered);
    let mut request = Request::new(Msg::of("x"));
    request
        .metadata_mut()
        .insert_bin("k-bin", b"\0\xff")
        .unwrap();
    let reply = echo.say(request).await.unwrap();
    assert_eq!(reply.get_ref().text(), "x");
    let back = reply.metadata().get_bin("k-bin").unwrap().unwrap();
    assert_eq!(back, b"\0\xff".as_slice());
    assert!(reply.metadata().contains_key("x-request-id"));
    for (text, code) in [("fail", Code::NotFound), ("panic", Code::Unknown)] {
        let status = echo.say(Msg::of(text)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
    let status = echo.say(body_of(1_001)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}
