//! How streams end before their time: deadlines, cancellation, limits, wrong numbers of messages.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use homa_rpc::client::Caller;
use homa_rpc::{
    BoxStream, CallContext, Code, MethodDescriptor, ProstCodec, Request, Response, Streaming,
};
use streaming::{Closures, Item, StreamsClient, items, numbers};
use tokio::time::{Instant, sleep};

/// An item every 10 ms, without end.
fn ticking() -> BoxStream<Item> {
    stream::unfold(0, async |number| {
        sleep(Duration::from_millis(10)).await;
        Some((Ok(Item::number(number)), number + 1))
    })
    .boxed()
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

const MS_50: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn one_deadline_holds_for_the_whole_stream() {
    let client = Closures::default()
        .list(async |_| Ok(Response::new(ticking().take(56).boxed())))
        .client();
    let begun = Instant::now();
    let call = client.list(within(MS_50, Item::default()));
    let mut items = call.await.unwrap().into_inner();
    for number in 0..4 {
        assert_eq!(items.message().await.unwrap(), Some(Item::number(number)));
    }
    let status = items.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        status.message().contains("/test.streams.Streams/List"),
        "{status}"
    );
    assert!(status.message().contains("50ms"), "{status}");
    assert_eq!(begun.elapsed(), MS_50);
    assert_eq!(items.message().await.unwrap(), None);
    // With time enough it ends well.
    let call = client.list(within(Duration::from_millis(561), Item::default()));
    let mut items = call.await.unwrap().into_inner();
    assert_eq!(numbers(&mut items).await.unwrap().len(), 56);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_wins_over_items_that_are_there_and_over_the_end() {
    let client = Closures::default().client();
    let call = client.list(within(MS_50, Item::number(100)));
    let mut items = call.await.unwrap().into_inner();
    assert_eq!(items.message().await.unwrap(), Some(Item::number(0)));
    tokio::time::advance(MS_50).await;
    let status = items.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_calls_with_streams_of_requests_passes_whoever_is_slow() {
    let client = Closures::default()
        .chat(async |requests: Request<Streaming<Item>>| {
            sleep(Duration::from_millis(100)).await;
            Ok(Response::new(requests.into_inner().boxed()))
        })
        .client();
    let never = within(MS_50, stream::pending());
    let status = client.record(never).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "the client is slow");
    let at_once = within(MS_50, stream::iter([Item::default()]));
    let status = client.chat(at_once).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "the server is slow");
    let begun = Instant::now();
    let half = within(2 * MS_50 + MS_50, ticking().map(Result::unwrap));
    let mut echoed = client.chat(half).await.unwrap().into_inner();
    let status = numbers(&mut echoed).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "both talk for ever");
    assert_eq!(begun.elapsed(), 3 * MS_50);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_nothing_calls_nobody() {
    let client = Closures::default()
        .list(async |_| panic!("called"))
        .record(async |_| panic!("called"))
        .client();
    let nothing = Duration::ZERO;
    let list = client.list(within(nothing, Item::default())).await;
    assert_eq!(list.unwrap_err().code(), Code::DeadlineExceeded);
    let record = client.record(within(nothing, stream::empty())).await;
    assert_eq!(record.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn calls_made_by_a_handler_and_within_its_stream_inherit_the_deadline() {
    let inner = Closures::default()
        .list(async |_| Ok(Response::new(ticking())))
        .client();
    let outer = Closures::default()
        .list(move |_| {
            let inner = inner.clone();
            async move {
                assert!(CallContext::current().deadline().is_some());
                // The call is made while the response is read.
                let nested = stream::once(async move {
                    assert!(CallContext::current().deadline().is_some());
                    inner.list(Item::default()).await.unwrap().into_inner()
                });
                Ok(Response::new(nested.flatten().boxed()))
            }
        })
        .client();
    let deadline = Instant::now() + MS_50;
    let call = outer.list(within(MS_50, Item::default()));
    let mut items = call.await.unwrap().into_inner();
    let status = numbers(&mut items).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(Instant::now(), deadline);

    // Requests are made in the context of the call, too.
    let client = Closures::default().client();
    let requests = stream::once(async {
        assert!(CallContext::current().deadline().is_some());
        Item::default()
    });
    client.record(within(MS_50, requests)).await.unwrap();
    assert_eq!(CallContext::current(), CallContext::default());
}

/// Tells when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn flag() -> (Flag, impl Fn() -> bool) {
    let set = Arc::new(AtomicBool::new(false));
    let flag = Flag(Arc::clone(&set));
    (flag, move || set.load(Ordering::SeqCst))
}

/// The same stream, with something to be dropped with it.
fn with<S: stream::Stream>(flag: Flag, inner: S) -> impl stream::Stream<Item = S::Item> {
    inner.map(move |item| {
        let _held = &flag;
        item
    })
}

/// A service whose stream of responses holds a flag.
fn flagged(flag: Flag) -> StreamsClient<impl homa_rpc::client::CallService> {
    let flag = std::sync::Mutex::new(Some(flag));
    Closures::default()
        .chat(move |requests| {
            let flag = flag.lock().unwrap().take().unwrap();
            let echo = requests.into_inner();
            async move { Ok(Response::new(with(flag, echo).boxed())) }
        })
        .client()
}

#[tokio::test]
async fn dropping_the_stream_of_responses_drops_both_sides() {
    let (response, response_dropped) = flag();
    let (request, request_dropped) = flag();
    let client = flagged(response);
    let requests = stream::iter([Item::number(1)]).chain(stream::pending());
    let mut echoed = client
        .chat(with(request, requests))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(echoed.message().await.unwrap(), Some(Item::number(1)));
    assert!(!response_dropped() && !request_dropped());
    drop(echoed);
    assert!(response_dropped() && request_dropped());
}

#[tokio::test]
async fn dropping_the_future_of_a_call_drops_its_requests() {
    let client = Closures::default().client();
    let (request, dropped) = flag();
    let mut call = Box::pin(client.record(with(request, stream::pending())));
    assert!(
        tokio::time::timeout(Duration::ZERO, &mut call)
            .await
            .is_err()
    );
    assert!(!dropped());
    drop(call);
    assert!(dropped());
}

#[tokio::test(start_paused = true)]
async fn a_passed_deadline_and_an_error_drop_both_sides_though_the_stream_is_kept() {
    let (response, response_dropped) = flag();
    let (request, request_dropped) = flag();
    let client = flagged(response);
    let requests = within(MS_50, with(request, stream::pending()));
    let mut echoed = client.chat(requests).await.unwrap().into_inner();
    echoed.message().await.unwrap_err();
    assert!(response_dropped() && request_dropped());

    let (response, response_dropped) = flag();
    let client = flagged(response).max_decoding_message_size(10);
    let requests = stream::iter([Item::long(100)]).chain(stream::pending());
    let mut echoed = client.chat(requests).await.unwrap().into_inner();
    let status = echoed.message().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(response_dropped());
    assert_eq!(echoed.message().await.unwrap(), None);
}

#[tokio::test]
async fn sources_are_dropped_once_they_have_ended() {
    let (request, dropped) = flag();
    let client = Closures::default()
        .record(async |request: Request<Streaming<Item>>| {
            let mut requests = request.into_inner();
            while requests.message().await?.is_some() {}
            // Kept, and yet nothing is held behind it.
            let response = Response::new(Item::default());
            std::mem::forget(requests);
            Ok(response)
        })
        .client();
    client.record(with(request, stream::empty())).await.unwrap();
    assert!(dropped());
}

/// Length of the encoding of [`Item::long`] with this much data, from 128 bytes to 16 kB.
const fn encoded(data: usize) -> usize {
    data + 3
}

#[tokio::test]
async fn items_of_the_limit_pass_and_longer_ones_end_the_stream_on_whichever_side() {
    let max = encoded(1_000);
    let fine = || stream::iter([Item::long(1_000), Item::long(0)]);
    let long = || stream::iter([Item::long(1_000), Item::long(1_001), Item::default()]);
    let server = || Closures::default().server();
    let clients = [
        (
            "client encodes",
            StreamsClient::new(server()).max_encoding_message_size(max),
        ),
        (
            "server decodes",
            StreamsClient::new(server().max_decoding_message_size(max)),
        ),
        (
            "server encodes",
            StreamsClient::new(server().max_encoding_message_size(max)),
        ),
        (
            "client decodes",
            StreamsClient::new(server()).max_decoding_message_size(max),
        ),
    ];
    for (who, client) in clients {
        let mut echoed = client.chat(fine()).await.unwrap().into_inner();
        assert_eq!(numbers(&mut echoed).await.unwrap().len(), 2, "{who}");
        let mut echoed = client.chat(long()).await.unwrap().into_inner();
        assert_eq!(
            echoed.message().await.unwrap(),
            Some(Item::long(1_000)),
            "{who}"
        );
        let status = echoed.message().await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{who}: {status}");
        let text = status.message();
        assert!(
            text.contains("1004 bytes") && text.contains("1003 bytes"),
            "{who}: {text}"
        );
        assert_eq!(echoed.message().await.unwrap(), None, "{who}");
    }
}

#[tokio::test]
async fn limits_of_one_call_hold_for_its_items() {
    let client = Closures::default().client();
    let items = || stream::iter([Item::long(1_000), Item::long(1_001)]);
    let mut request = Request::new(items());
    request.set_max_decoding_message_size(encoded(1_000));
    let mut echoed = client.chat(request).await.unwrap().into_inner();
    assert!(echoed.message().await.unwrap().is_some());
    assert!(echoed.message().await.is_err());
    let mut request = Request::new(items());
    request.set_max_encoding_message_size(encoded(1_000));
    let status = client.record(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let mut request = Request::new(Item::long(1_001));
    request.set_max_encoding_message_size(encoded(1_000));
    let status = client.list(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.delivery(), homa_rpc::Delivery::NotSent);
}

/// Calls a method as if it were of another kind, as a client with another version of the schema does.
fn misread(path: &'static str) -> &'static MethodDescriptor {
    Box::leak(Box::new(MethodDescriptor::unary(
        "test.streams.Streams",
        "?",
        path,
    )))
}

type Items = ProstCodec<Item, Item>;

#[tokio::test]
async fn a_wrong_number_of_messages_is_an_error_that_says_what_was_expected_and_came() {
    let server = Closures::default()
        .list(async |request: Request<Item>| {
            Ok(Response::new(items(0..request.get_ref().number).boxed()))
        })
        .server();
    let caller = Caller::new(server);
    let two = || stream::iter([Item::default(), Item::default()]);

    // Streams where one message is expected.
    let list = misread("/test.streams.Streams/List");
    let call = |number| Request::new(Item::number(number));
    let reply = caller.unary(call(1), list, Items::default()).await.unwrap();
    assert_eq!(reply.get_ref().number, 0);
    for (number, came) in [(0, "no message"), (2, "a stream came")] {
        let status = caller
            .unary(call(number), list, Items::default())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(status.message().contains(came), "{status}");
        let one = Request::new(stream::iter([Item::number(number)]));
        let status = caller
            .client_streaming(one, list, Items::default())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(status.message().contains(came), "{status}");
    }
    let say = misread("/test.streams.Streams/Say");
    let expected = [
        (Request::new(two().take(0)), "no message"),
        (Request::new(two().take(2)), "a stream came"),
    ];
    for (requests, came) in expected {
        let call = caller.client_streaming(requests, say, Items::default());
        let status = call.await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(status.message().contains(came), "{status}");
    }
    for count in [0, 2] {
        let requests = Request::new(two().take(count));
        let call = caller.bidi_streaming(requests, list, Items::default());
        let status = call.await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
    }

    // One message where streams are expected: a stream of one.
    let record = misread("/test.streams.Streams/Record");
    let reply = caller
        .unary(call(7), record, Items::default())
        .await
        .unwrap();
    assert_eq!(reply.get_ref().number, 1);
    let call = caller.server_streaming(call(7), say, Items::default());
    let mut reply = call.await.unwrap().into_inner();
    assert_eq!(numbers(&mut reply).await.unwrap(), [7]);
}
