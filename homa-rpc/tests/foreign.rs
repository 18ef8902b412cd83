//! Stubs and services that are not ours: gRPC as HTTP, with bodies of any type.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use homa_rpc::codegen::BoxFuture;
use homa_rpc::server::NamedService;
use homa_rpc::{Body, Channel, Code, Request, Response, Server, Status};
use http_body_util::{BodyExt, BodyStream, Full};
use streaming::{Closures, Item, StreamsClient};
use support::{Msg, Running, Wire, echo, frames, handler, run};
use tower::{Service, ServiceExt};

/// A message of no bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\0";

fn grpc_request(body: &'static [u8]) -> http::Request<Full<Bytes>> {
    http::Request::post("/test.Echo/Say")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("k", "v")
        .body(Full::new(Bytes::from_static(body)))
        .unwrap()
}

async fn a_foreign_stub_gets_grpc_as_http(wire: Wire) {
    let running = wire.run_echo(handler(async |request: Request<Msg>| {
        assert!(!request.metadata().contains_key("te"));
        let metadata = request.metadata().clone();
        let mut response = Response::new(request.into_inner());
        *response.trailing_metadata_mut() = metadata;
        Ok(response)
    }));
    let request = grpc_request(b"\0\0\0\0\x04\x0a\x02hi");
    let response = running.channel.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::OK);
    assert!(response.headers().get("grpc-status").is_none());
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().unwrap().clone();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["k"], "v");
    assert_eq!(body.to_bytes(), b"\0\0\0\0\x04\x0a\x02hi".as_slice());
}

async fn a_foreign_stub_gets_errors_in_the_headers(wire: Wire) {
    let running = wire.run_echo(echo());
    let mut request = grpc_request(b"\0\0\0\0\0");
    *request.uri_mut() = "/test.Echo/Missing".parse().unwrap();
    let response = running.channel.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
    assert!(response.headers().contains_key("grpc-message"));
    let body = response.into_body().collect().await.unwrap();
    assert!(body.trailers().is_none());
    assert!(body.to_bytes().is_empty());
}

/// How a call ended, whoever says so.
async fn outcome<B>(response: http::Response<B>) -> Code
where
    B: http_body::Body<Error = Status>,
{
    let (parts, body) = response.into_parts();
    let body = match body.collect().await {
        Ok(body) => body,
        Err(status) => return status.code(),
    };
    let trailers = body.trailers().unwrap_or(&parts.headers);
    let code = trailers["grpc-status"].to_str().unwrap().parse().unwrap();
    Code::new(code).unwrap()
}

/// What is no gRPC body is an error of the channel, and nothing is sent, not even that the call was given up.
async fn foreign_requests_cut_short_are_errors_of_the_channel(wire: Wire) {
    let running = wire.run_echo(echo());
    for body in [b"\0\0\0".as_slice(), b"\0\0\0\0\x01"] {
        let call = running.channel.clone().oneshot(grpc_request(body));
        let status = call.await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{body:?}: {status}");
        assert_eq!(status.delivery(), homa_rpc::Delivery::NotSent);
    }
    assert!(running.echo().say(Msg::of("x")).await.is_ok());
    assert_eq!(running.server.stats().requests_received, 1);
}

/// A channel does not know which methods stream, so that the server says what it expected.
async fn foreign_requests_of_another_number_of_messages_are_refused_by_the_server(wire: Wire) {
    let running = wire.run_echo(echo());
    for (body, code) in [
        (b"".as_slice(), Code::Unimplemented),
        (b"\0\0\0\0\0\0\0\0\0\0", Code::Unimplemented),
        // Compressed.
        (b"\x01\0\0\0\0", Code::Unimplemented),
        (b"\0\0\0\0\0", Code::Ok),
    ] {
        let call = running.channel.clone().oneshot(grpc_request(body));
        assert_eq!(outcome(call.await.unwrap()).await, code, "{body:?}");
    }
    assert_eq!(running.monitor.stats().handlers_spawned, 4);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_foreign_stub_is_enforced_and_passed_on() {
    let (client, server) = Wire::Net.pair();
    let mut taken = frames::silent(&server);
    let uri = format!("homa+udp://{}", server.local_addr());
    let channel = Channel::builder().socket(client).build(&uri).unwrap();
    let mut request = grpc_request(b"\0\0\0\0\0");
    let timeout = http::HeaderValue::from_static("25m");
    request.headers_mut().insert("grpc-timeout", timeout);
    let begun = tokio::time::Instant::now();
    let status = channel.oneshot(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains(&uri), "{status}");
    assert!(begun.elapsed() >= Duration::from_millis(25));
    assert!(begun.elapsed() < Duration::from_millis(30));
    let frame = taken.recv().await.unwrap().message;
    let left = u64::from_be_bytes(frame[24..32].try_into().unwrap());
    assert!((20_000_000..=25_000_000).contains(&left), "{left} ns");
}

type Respond = fn() -> http::Response<Full<Bytes>>;

/// A service that always answers the same, and is ready at the second asking only.
#[derive(Clone)]
struct Foreign {
    asked: bool,
    respond: Respond,
}

impl NamedService for Foreign {
    const NAME: &'static str = "test.Echo";
}

impl Service<http::Request<Body>> for Foreign {
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !self.asked {
            self.asked = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: http::Request<Body>) -> Self::Future {
        assert!(self.asked, "called before it was ready");
        let response = (self.respond)();
        Box::pin(async move { Ok(response) })
    }
}

async fn foreign_services_are_served_and_their_outcome_understood(wire: Wire) {
    let cases: [(Respond, Code); 4] = [
        (
            || {
                let response = http::Response::builder().header("grpc-status", "7");
                response.body(Full::default()).unwrap()
            },
            Code::PermissionDenied,
        ),
        // No trailers, so nobody knows how it ended.
        (
            || http::Response::new(Full::new(Bytes::from_static(b"\0\0\0\0\0"))),
            Code::Unknown,
        ),
        (
            || http::Response::new(Full::new(Bytes::from_static(b"\0\0"))),
            Code::Internal,
        ),
        (
            || {
                let response = http::Response::builder().status(401);
                response.body(Full::default()).unwrap()
            },
            Code::Unauthenticated,
        ),
    ];
    for (respond, code) in cases {
        let service = Foreign {
            asked: false,
            respond,
        };
        let running = run(Server::builder().add_service(service), wire.pair());
        let status = running.echo().say(Msg::default()).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
    }
}

/// A service whose response never ends, as a watch that has told the state and waits for the next.
#[derive(Clone)]
struct Watch;

struct FirstOnly(Option<Bytes>);

impl http_body::Body for FirstOnly {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(message) => Poll::Ready(Some(Ok(http_body::Frame::data(message)))),
            None => Poll::Pending,
        }
    }
}

impl NamedService for Watch {
    const NAME: &'static str = "test.Echo";
}

impl Service<http::Request<Body>> for Watch {
    type Response = http::Response<FirstOnly>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: http::Request<Body>) -> Self::Future {
        let first = Bytes::from_static(b"\0\0\0\0\0");
        std::future::ready(Ok(http::Response::new(FirstOnly(Some(first)))))
    }
}

async fn a_response_that_does_not_end_is_a_stream_and_unimplemented_where_one_message_was_expected(
    wire: Wire,
) {
    let running = run(Server::builder().add_service(Watch), wire.pair());
    let status = running.echo().say(Msg::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    assert!(status.message().contains("a stream came"), "{status}");
    all_done(&running).await;
    // A stub that knows nothing of the kind sees what has come, and that there may be more.
    let call = running.channel.clone().oneshot(grpc_request(MESSAGE));
    let mut body = call.await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), MESSAGE);
    assert!(!http_body::Body::is_end_stream(&body));
    let next = tokio::time::timeout(Duration::from_millis(50), body.frame());
    assert!(next.await.is_err(), "the watch waits");
    drop(body);
    all_done(&running).await;
}

async fn a_request_that_does_not_end_is_unimplemented_where_one_message_was_expected(wire: Wire) {
    let running = wire.run_echo(echo());
    let request = http::Request::post("/test.Echo/Say");
    let request = request.body(FirstOnly(Some(Bytes::from_static(MESSAGE))));
    let response = running.channel.clone().oneshot(request.unwrap()).await;
    let code = outcome(response.unwrap()).await;
    assert_eq!(code, Code::Unimplemented);
    all_done(&running).await;
}

/// A body of these frames, each of which comes a while after the one before.
fn slow_body(
    chunks: Vec<Bytes>,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let frames = stream::iter(chunks).then(|chunk| async {
        tokio::task::yield_now().await;
        Ok(http_body::Frame::data(chunk))
    });
    http_body_util::StreamBody::new(Box::pin(frames))
}

/// Stubs that know of a channel only what tower says, as those that tonic generates.
async fn a_foreign_stub_streams_both_ways(wire: Wire) {
    let service = Closures::default().server();
    let running = run(Server::builder().add_service(service), wire.pair());
    let mut content = BytesMut::new();
    for len in [0, 1, 300, 40_000, 1_200_000, 2] {
        let item = prost::Message::encode_to_vec(&Item::long(len));
        content.put_u8(0);
        content.put_u32(u32::try_from(item.len()).unwrap());
        content.extend_from_slice(&item);
    }
    let content = content.freeze();
    for cut in [7, 50_000, content.len()] {
        // The first three items for the finest cut.
        let end = if cut == 7 {
            3 * 5 + 3 + 303
        } else {
            content.len()
        };
        let sent = content.slice(..end);
        let chunks = sent.chunks(cut).map(Bytes::copy_from_slice).collect();
        let request = http::Request::post("/test.streams.Streams/Chat");
        let request = request.body(slow_body(chunks)).unwrap();
        let response = running.channel.clone().oneshot(request).await.unwrap();
        assert!(response.headers().get("grpc-status").is_none());
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert!(body.to_bytes() == sent, "cut each {cut} bytes");
    }
}

/// A service of which nothing is known but its name, that lists what it was asked with.
#[derive(Clone)]
struct ForeignStreams;

impl NamedService for ForeignStreams {
    const NAME: &'static str = "test.streams.Streams";
}

impl Service<http::Request<Body>> for ForeignStreams {
    type Response = http::Response<http_body_util::combinators::BoxBody<Bytes, Status>>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let frames = BodyStream::new(request.into_body()).map_ok(|frame| {
                let data = frame.into_data().unwrap_or_default();
                http_body::Frame::data(data)
            });
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let trailers = stream::iter([Ok(http_body::Frame::trailers(trailers))]);
            let body = http_body_util::StreamBody::new(frames.chain(trailers));
            Ok(http::Response::new(BodyExt::boxed(body)))
        })
    }
}

async fn a_foreign_service_streams_to_stubs_of_ours(wire: Wire) {
    let server = Server::builder().add_service(ForeignStreams);
    let running = run(server, wire.pair());
    let client = StreamsClient::new(running.channel.clone());
    let lens = [0, 300, 1_200_000, 5];
    let requests = stream::iter(lens).map(Item::long);
    let mut echoed = client.chat(requests).await.unwrap().into_inner();
    for len in lens {
        let item = echoed.message().await.unwrap();
        assert!(item == Some(Item::long(len)), "{len}");
    }
    assert_eq!(echoed.message().await.unwrap(), None);
    let mut list = client.list(Item::number(3)).await.unwrap().into_inner();
    assert_eq!(list.message().await.unwrap(), Some(Item::number(3)));
    assert_eq!(list.message().await.unwrap(), None);
    let reply = client.record(stream::iter([Item::number(4)])).await;
    assert_eq!(reply.unwrap().into_inner(), Item::number(4));
    let two = stream::iter([1, 2]).map(Item::number);
    let status = client.record(two).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

/// Waits until the server has no call in progress any more.
async fn all_done(running: &Running) {
    while running.monitor.stats().calls_in_progress > 0 {
        tokio::task::yield_now().await;
    }
}

on_every_wire!(
    a_foreign_stub_streams_both_ways,
    a_foreign_service_streams_to_stubs_of_ours,
    a_foreign_stub_gets_grpc_as_http,
    a_foreign_stub_gets_errors_in_the_headers,
    foreign_requests_cut_short_are_errors_of_the_channel,
    foreign_requests_of_another_number_of_messages_are_refused_by_the_server,
    foreign_services_are_served_and_their_outcome_understood,
    a_response_that_does_not_end_is_a_stream_and_unimplemented_where_one_message_was_expected,
    a_request_that_does_not_end_is_unimplemented_where_one_message_was_expected,
);
