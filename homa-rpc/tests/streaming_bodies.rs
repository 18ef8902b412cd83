//! What the bodies of streams look like to those who read them as gRPC, and bodies of others that stream.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use homa_rpc::{Body, Code, Request, Response, Status, Streaming};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use streaming::{Closures, Item, StreamsClient, items, numbers};
use tower::{Service, ServiceExt};

/// The data frames of a response to `List` with these items, and its trailers.
async fn list(lengths: &[usize]) -> (Vec<Bytes>, http::HeaderMap) {
    let lengths = lengths.to_vec();
    let server = Closures::default().list(move |_| {
        let items = stream::iter(lengths.clone()).map(|len| Ok(Item::long(len)));
        async move { Ok(Response::new(items.boxed())) }
    });
    let request = http::Request::post("/test.streams.Streams/List");
    let request = request.body(Body::request(Bytes::new())).unwrap();
    let response = server.server().oneshot(request).await.unwrap();
    assert!(response.headers().is_empty());
    let mut body = response.into_body();
    let mut data = Vec::new();
    loop {
        let frame = body.frame().await.unwrap().unwrap();
        match frame.into_data() {
            Ok(more) => data.push(more),
            Err(frame) => {
                assert!(http_body::Body::is_end_stream(&body));
                assert!(body.frame().await.is_none());
                return (data, frame.into_trailers().unwrap());
            }
        }
    }
}

fn framed(item: &Item) -> Vec<u8> {
    let message = item.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

#[tokio::test]
async fn items_that_are_ready_are_one_data_frame() {
    let (data, trailers) = list(&[1, 0, 2]).await;
    let expected: Vec<u8> = [1, 0, 2].map(|len| framed(&Item::long(len))).concat();
    assert_eq!(data, [Bytes::from(expected)]);
    assert_eq!(trailers["grpc-status"], "0");
    let (data, _) = list(&[]).await;
    assert!(data.is_empty());
}

#[tokio::test]
async fn a_data_frame_is_a_run_of_whole_items_of_at_most_32_kb() {
    for len in [0, 1, 100, 1_000, 8_000] {
        let (data, _) = list(&vec![len; 3_000]).await;
        let item = framed(&Item::long(len)).len();
        let (last, full) = data.split_last().unwrap();
        assert_eq!(last.len() % item, 0);
        for run in full {
            assert_eq!(run.len() % item, 0, "whole items");
            assert!(
                (24 * 1024..=32 * 1024 + 5).contains(&run.len()),
                "{}",
                run.len()
            );
        }
    }
}

#[tokio::test]
async fn a_long_item_is_two_data_frames_behind_what_was_before_it() {
    let (data, _) = list(&[1, 100_000, 2, 9_000]).await;
    let long = [100_000, 9_000].map(|len| framed(&Item::long(len)));
    let expected = [
        framed(&Item::long(1)),
        long[0][..5].to_vec(),
        long[0][5..].to_vec(),
        framed(&Item::long(2)),
        long[1][..5].to_vec(),
        long[1][5..].to_vec(),
    ];
    assert_eq!(data, expected.map(Bytes::from));
}

#[tokio::test]
async fn an_item_leaves_at_once_if_the_next_is_not_there() {
    let server = Closures::default()
        .list(async |_| Ok(Response::new(items(0..3).chain(stream::pending()).boxed())))
        .server();
    let request = http::Request::post("/test.streams.Streams/List");
    let request = request.body(Body::request(Bytes::new())).unwrap();
    let mut body = server.oneshot(request).await.unwrap().into_body();
    let run = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let expected: Vec<u8> = [0, 1, 2].map(|n| framed(&Item::number(n))).concat();
    assert_eq!(run, expected);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let next = http_body::Body::poll_frame(Pin::new(&mut body), &mut cx);
    assert!(next.is_pending());
}

/// A body of these frames, one for each poll.
fn frames(
    frames: impl IntoIterator<Item = Frame<Bytes>, IntoIter: Send + 'static>,
) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static {
    StreamBody::new(stream::iter(frames).map(Ok))
}

fn trailers(status: &'static str) -> Frame<Bytes> {
    let value = http::HeaderValue::from_static(status);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", value);
    trailers.insert("k", http::HeaderValue::from_static("v"));
    Frame::trailers(trailers)
}

/// A service that answers all calls with the same response.
#[derive(Clone)]
struct Foreign<F>(F);

impl<F, B> Service<http::Request<Body>> for Foreign<F>
where
    F: Fn() -> http::Response<B>,
{
    type Response = http::Response<B>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: http::Request<Body>) -> Self::Future {
        std::future::ready(Ok((self.0)()))
    }
}

/// Reads the response of a foreign service to the end.
async fn read<B>(
    respond: impl Fn() -> http::Response<B> + Clone + Send + 'static,
) -> (Vec<u64>, Result<Option<homa_rpc::Metadata>, Status>)
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let client = StreamsClient::new(Foreign(respond));
    let mut stream = match client.list(Item::default()).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (Vec::new(), Err(status)),
    };
    let mut read = Vec::new();
    let end = loop {
        match stream.message().await {
            Ok(Some(item)) => read.push(item.number),
            Ok(None) => break stream.trailers().await,
            Err(status) => break Err(status),
        }
    };
    (read, end)
}

#[tokio::test]
async fn responses_of_others_may_be_cut_at_every_two_bytes() {
    let all: Vec<u8> = [0, 1, 300, 0].map(|n| framed(&Item::number(n))).concat();
    for first in 0..=all.len() {
        for second in first..=all.len() {
            let parts = [&all[..first], &all[first..second], &all[second..]]
                .map(|part| Frame::data(Bytes::copy_from_slice(part)));
            let parts = std::sync::Arc::new(parts);
            let (read, end) = read(move || {
                let data: Vec<_> = parts
                    .iter()
                    .map(|f| f.data_ref().unwrap().clone())
                    .collect();
                let data = data.into_iter().map(Frame::data);
                http::Response::new(frames(data.chain([trailers("0")])))
            })
            .await;
            assert_eq!(read, [0, 1, 300, 0], "{first}, {second}");
            assert_eq!(end.unwrap().unwrap().get("k"), Some("v"));
        }
    }
}

#[tokio::test]
async fn requests_of_others_may_be_cut_at_every_byte() {
    let all: Vec<u8> = [7, 0, 300].map(|n| framed(&Item::number(n))).concat();
    let mut cuts: Vec<Vec<&[u8]>> = (0..=all.len())
        .map(|cut| vec![&all[..cut], &all[cut..]])
        .collect();
    cuts.push(all.chunks(1).collect());
    for parts in cuts {
        let parts: Vec<_> = parts
            .into_iter()
            .map(|part| Frame::data(Bytes::copy_from_slice(part)))
            .collect();
        let request = http::Request::post("/test.streams.Streams/Record");
        let request = request.body(frames(parts)).unwrap();
        let response = Closures::default().server().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), framed(&Item::number(3)));
    }
}

#[tokio::test]
async fn responses_that_are_trailers_only_are_understood() {
    let only = |status: &'static str| {
        move || {
            let response = http::Response::builder().header("grpc-status", status);
            response.body(frames([])).unwrap()
        }
    };
    let (read_items, end) = read(only("0")).await;
    assert_eq!(
        (read_items.len(), end.unwrap()),
        (0, None),
        "no items, success"
    );
    let (_, end) = read(only("5")).await;
    assert_eq!(end.unwrap_err().code(), Code::NotFound);
    // In trailers without a message.
    let (_, end) = read(|| http::Response::new(frames([trailers("5")]))).await;
    let status = end.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.metadata().get("k"), Some("v"));
    // By HTTP.
    let (_, end) = read(|| {
        let response = http::Response::builder().status(503);
        response.body(frames([])).unwrap()
    })
    .await;
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn responses_that_are_cut_off_or_malformed_are_errors_behind_what_was_good() {
    let good = framed(&Item::number(7));
    let cases: [(&[u8], Option<&'static str>, Code); 7] = [
        (b"", None, Code::Unknown),
        (b"\0", None, Code::Internal),
        (b"\0\0\0\0\x02\x10", None, Code::Internal),
        (b"\0\0\0\0\x02\x10", Some("0"), Code::Internal),
        // The server's word counts for more.
        (b"\0\0\0\0\x02\x10", Some("8"), Code::ResourceExhausted),
        (b"\x01\0\0\0\0", Some("0"), Code::Unimplemented),
        (b"\0\0\0\0\x01\xff", Some("0"), Code::Internal),
    ];
    for (bad, status, code) in cases {
        let data = [&good, bad].concat();
        let (read, end) = read(move || {
            let data = Frame::data(Bytes::from(data.clone()));
            let end = status.map(trailers);
            http::Response::new(frames([data].into_iter().chain(end)))
        })
        .await;
        assert_eq!(read, [7]);
        assert_eq!(end.unwrap_err().code(), code, "{bad:?}, {status:?}");
    }
}

#[tokio::test]
async fn requests_that_are_cut_off_or_malformed_are_errors_of_the_stream() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let codes = std::sync::Arc::clone(&seen);
    let server = Closures::default()
        .record(move |request: Request<Streaming<Item>>| {
            let codes = std::sync::Arc::clone(&codes);
            async move {
                let error = numbers(&mut request.into_inner()).await.unwrap_err();
                codes.lock().unwrap().push(error.code());
                Err(error)
            }
        })
        .server();
    let cases: [(&'static [u8], Code); 4] = [
        (b"\0\0\0", Code::Internal),
        (b"\0\0\0\0\x01", Code::Internal),
        (b"\x01\0\0\0\0", Code::Unimplemented),
        (b"\0\xff\xff\xff\xff", Code::ResourceExhausted),
    ];
    for (body, code) in cases {
        let request = http::Request::post("/test.streams.Streams/Record");
        let data = Frame::data(Bytes::from_static(body));
        let request = request.body(frames([data])).unwrap();
        let response = server.clone().oneshot(request).await.unwrap();
        let status = homa_rpc::final_status(&response).unwrap().unwrap_err();
        assert_eq!(status.code(), code, "{body:?}");
        assert_eq!(seen.lock().unwrap().pop(), Some(code));
    }
}

#[tokio::test]
async fn a_method_that_is_not_there_is_unimplemented_whatever_the_body() {
    let request = http::Request::post("/test.streams.Streams/Missing");
    let request = request.body(Body::request(Bytes::new())).unwrap();
    let response = Closures::default().server().oneshot(request).await.unwrap();
    let status = homa_rpc::final_status(&response).unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("/Missing"), "{status}");
}
