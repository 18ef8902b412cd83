//! Interceptors and tower layers around calls that stream, on either side.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use homa_rpc::client::CallService;
use homa_rpc::layer::{Call, Interceptor, Next, around};
use homa_rpc::{Body, Code, Request, Response, Status, final_status, try_clone_request};
use http_body_util::BodyExt;
use streaming::{Closures, Item, StreamsClient, StreamsServer, items, numbers};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceBuilder};

/// What an interceptor has seen: paths and how the calls ended.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(String, Code)>>>);

impl Seen {
    fn take(&self) -> Vec<(String, Code)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Adds metadata, may set a timeout, and notes how calls end.
#[derive(Clone, Default)]
struct Watching {
    timeout: Option<Duration>,
    seen: Seen,
}

impl Interceptor for Watching {
    fn before(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("seen", "yes").unwrap();
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        Ok(request)
    }

    fn after(&self, call: &Call, outcome: Result<(), &Status>) {
        let code = outcome.err().map_or(Code::Ok, Status::code);
        let mut seen = self.seen.0.lock().unwrap();
        seen.push((call.path().to_owned(), code));
    }
}

/// Lists items until the number asked for and then fails, if the metadata says that an interceptor was there.
fn failing() -> StreamsServer<Closures> {
    Closures::default()
        .list(async |request: Request<Item>| {
            assert_eq!(request.metadata().get("seen"), Some("yes"));
            let count = request.get_ref().number;
            let end = stream::iter([Err(Status::aborted("enough"))]);
            Ok(Response::new(items(0..count).chain(end).boxed()))
        })
        .server()
}

/// A client of `server` with the interceptor in between.
fn watched(
    watching: &Watching,
    server: &StreamsServer<Closures>,
) -> StreamsClient<impl CallService + use<>> {
    StreamsClient::with_interceptor(server.clone(), watching.clone())
}

#[tokio::test]
async fn an_interceptor_sees_the_end_of_a_stream_once_and_not_before() {
    let watching = Watching::default();
    let path = "/test.streams.Streams/List".to_owned();
    let client = watched(&watching, &failing());
    let mut items = client.list(Item::number(3)).await.unwrap().into_inner();
    for _ in 0..3 {
        assert!(items.message().await.unwrap().is_some());
        assert!(watching.seen.take().is_empty());
    }
    assert_eq!(items.message().await.unwrap_err().code(), Code::Aborted);
    drop(items);
    assert_eq!(watching.seen.take(), [(path.clone(), Code::Aborted)]);

    let items = client.list(Item::number(3)).await.unwrap();
    drop(items);
    assert_eq!(watching.seen.take(), [(path, Code::Cancelled)]);

    let client = watched(&watching, &Closures::default().server());
    let mut echoed = client
        .chat(stream::iter([Item::default()]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(numbers(&mut echoed).await.unwrap().len(), 1);
    client.record(stream::empty()).await.unwrap();
    let codes: Vec<_> = watching
        .seen
        .take()
        .into_iter()
        .map(|(_, code)| code)
        .collect();
    assert_eq!(codes, [Code::Ok, Code::Ok]);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_an_interceptor_sets_holds_for_the_stream() {
    fn ticking() -> impl stream::Stream<Item = Result<Item, Status>> + Send {
        stream::unfold((), async |()| {
            sleep(Duration::from_millis(10)).await;
            Some((Ok(Item::default()), ()))
        })
    }
    let timeout = Duration::from_millis(55);
    let watching = Watching {
        timeout: Some(timeout),
        ..Watching::default()
    };
    let server = Closures::default()
        .list(async |_| Ok(Response::new(ticking().boxed())))
        .server();
    let client = watched(&watching, &server);
    let begun = Instant::now();
    let mut items = client.list(Item::default()).await.unwrap().into_inner();
    for _ in 0..5 {
        assert!(items.message().await.unwrap().is_some());
    }
    let status = items.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(begun.elapsed(), timeout);
    let codes: Vec<_> = watching
        .seen
        .take()
        .into_iter()
        .map(|(_, code)| code)
        .collect();
    assert_eq!(codes, [Code::DeadlineExceeded]);
    // A stream that is always ready does not get over it either.
    let server = Closures::default()
        .list(async |_| Ok(Response::new(stream::repeat(Ok(Item::long(9_000))).boxed())))
        .server();
    let client = watched(&watching, &server);
    let mut items = client.list(Item::default()).await.unwrap().into_inner();
    assert!(items.message().await.unwrap().is_some());
    tokio::time::advance(timeout).await;
    // What was on its way may still come.
    let end = items.by_ref().take(3).filter_map(async |item| item.err());
    let ends: Vec<_> = end.collect().await;
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn an_async_function_around_a_call_sees_that_it_streams() {
    let seen: Arc<Mutex<Vec<Option<Code>>>> = Arc::default();
    let codes = Arc::clone(&seen);
    let layer = around(move |request: http::Request<Body>, next: Next| {
        let codes = Arc::clone(&codes);
        async move {
            assert!(
                try_clone_request(&request).is_none(),
                "a stream of requests"
            );
            let response = next.run(request).await?;
            let outcome = final_status(&response);
            let code = outcome.map(|outcome| outcome.err().map_or(Code::Ok, |s| s.code()));
            codes.lock().unwrap().push(code);
            Ok(response)
        }
    });
    let client = StreamsClient::new(layer.layer(Closures::default().server()));
    client.record(stream::empty()).await.unwrap();
    let mut echoed = client.chat(stream::empty()).await.unwrap().into_inner();
    assert_eq!(echoed.message().await.unwrap(), None);
    // One response is a whole message; a stream's end is not known before it has come.
    assert_eq!(*seen.lock().unwrap(), [Some(Code::Ok), None]);
}

#[tokio::test]
async fn layers_that_wrap_bodies_and_hand_calls_to_other_tasks_pass_streams_on() {
    let wrapped = ServiceBuilder::new()
        .buffer(4)
        .map_request(|request: http::Request<Body>| request.map(Body::boxed_unsync))
        .map_response(|response: http::Response<Body>| response.map(Body::boxed_unsync))
        .service(Closures::default().server());
    let client = StreamsClient::new(wrapped);
    let numbers_of = |count| stream::iter(0..count).map(Item::number);
    let mut echoed = client.chat(numbers_of(10_000)).await.unwrap().into_inner();
    assert_eq!(numbers(&mut echoed).await.unwrap().len(), 10_000);
    let last = client.record(numbers_of(5)).await.unwrap().into_inner();
    assert_eq!(last.number, 5);
    let mut items = client.list(Item::number(5)).await.unwrap().into_inner();
    assert_eq!(numbers(&mut items).await.unwrap().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_timeout_layer_of_tower_ends_what_does_not_answer() {
    let server = Closures::default()
        .chat(async |_| {
            sleep(Duration::from_secs(1)).await;
            Ok(Response::new(items(0..1).boxed()))
        })
        .server();
    let service = ServiceBuilder::new()
        .timeout(Duration::from_millis(10))
        .service(server);
    let client = StreamsClient::new(service);
    let status = client.chat(stream::pending()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}
