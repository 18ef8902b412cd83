//! Streams and long messages over every wire.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use homa_rpc::{Code, Request, Response, Server, Status};
use streaming::{Closures, Item, StreamsClient, items, numbers};
use support::{Running, Wire, run};
use tokio::sync::mpsc;

/// A frame and its header have this many bytes at most.
const FRAME_MAX: usize = 1_000_000;

fn serve(wire: Wire, closures: Closures) -> (Running, StreamsClient) {
    let running = run(
        Server::builder().add_service(closures.server()),
        wire.pair(),
    );
    let client = StreamsClient::new(running.channel.clone());
    (running, client)
}

on_every_wire! {
    all_kinds,
    ping_pong,
    many_streams_at_once,
    the_server_speaks_first,
    headers_come_before_the_first_item,
    a_silent_server_takes_what_the_window_holds,
    errors_come_behind_the_items,
    a_handler_is_dropped_with_the_stream,
    messages_around_the_length_of_a_frame,
    long_items_both_ways,
    a_deadline_ends_a_stream_at_both_ends,
    the_client_may_end_last,
    a_panic_in_a_stream_ends_it,
}

async fn all_kinds(wire: Wire) {
    let (_running, client) = serve(wire, Closures::default());
    let reply = client.say(Item::number(7)).await.unwrap();
    assert_eq!(reply.get_ref().number, 7);
    for count in [0, 1, 2, 1_000] {
        let mut list = client.list(Item::number(count)).await.unwrap().into_inner();
        let expected: Vec<u64> = (0..count).collect();
        assert_eq!(numbers(&mut list).await.unwrap(), expected);
        let count = usize::try_from(count).unwrap();
        let requests = stream::iter(0..count).map(|_| Item::long(100));
        let last = client.record(requests).await.unwrap().into_inner();
        assert_eq!(last.number, count as u64);
        let requests = stream::iter(expected.clone()).map(Item::number);
        let mut echoed = client.chat(requests).await.unwrap().into_inner();
        assert_eq!(numbers(&mut echoed).await.unwrap(), expected);
    }
}

async fn ping_pong(wire: Wire) {
    let (_running, client) = serve(wire, Closures::default());
    let (sender, mut receiver) = mpsc::channel(1);
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut echoed = client.chat(requests).await.unwrap().into_inner();
    for number in 0..100 {
        sender.send(Item::number(number)).await.unwrap();
        assert_eq!(echoed.message().await.unwrap(), Some(Item::number(number)));
    }
    drop(sender);
    assert_eq!(echoed.message().await.unwrap(), None);
}

async fn many_streams_at_once(wire: Wire) {
    let (_running, client) = serve(wire, Closures::default());
    let mut tasks = Vec::new();
    for _ in 0..1_000 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let requests = stream::iter(0..20).map(Item::number);
            let mut echoed = client.chat(requests).await.unwrap().into_inner();
            assert_eq!(numbers(&mut echoed).await.unwrap().len(), 20);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn the_server_speaks_first(wire: Wire) {
    let closures = Closures::default().chat(async |request: Request<_>| {
        let requests: homa_rpc::Streaming<Item> = request.into_inner();
        let first = stream::iter([Ok(Item::number(99))]);
        Ok(Response::new(first.chain(requests).boxed()))
    });
    let (_running, client) = serve(wire, closures);
    let (sender, mut receiver) = mpsc::channel(1);
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let mut echoed = client.chat(requests).await.unwrap().into_inner();
    assert_eq!(echoed.message().await.unwrap(), Some(Item::number(99)));
    sender.send(Item::number(1)).await.unwrap();
    assert_eq!(echoed.message().await.unwrap(), Some(Item::number(1)));
}

async fn headers_come_before_the_first_item(wire: Wire) {
    let closures = Closures::default().chat(async |request: Request<_>| {
        let requests: homa_rpc::Streaming<Item> = request.into_inner();
        let mut response = Response::new(requests.boxed());
        response.metadata_mut().insert("k", "v").unwrap();
        Ok(response)
    });
    let (_running, client) = serve(wire, closures);
    let (sender, mut receiver) = mpsc::channel(1);
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let response = client.chat(requests).await.unwrap();
    assert_eq!(response.metadata().get("k"), Some("v"));
    let mut echoed = response.into_inner();
    sender.send(Item::number(1)).await.unwrap();
    assert_eq!(echoed.message().await.unwrap(), Some(Item::number(1)));
}

/// The client writes far more than the server reads before it has written all of it.
async fn a_silent_server_takes_what_the_window_holds(wire: Wire) {
    let go = Arc::new(tokio::sync::Notify::new());
    let waits = Arc::clone(&go);
    let closures = Closures::default().record(move |request: Request<_>| {
        let waits = Arc::clone(&waits);
        async move {
            let mut requests: homa_rpc::Streaming<Item> = request.into_inner();
            waits.notified().await;
            let mut number = 0;
            while requests.message().await?.is_some() {
                number += 1;
            }
            Ok(Response::new(Item::number(number)))
        }
    });
    let (_running, client) = serve(wire, closures);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let requests = stream::iter(0..10_000).map(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Item::long(1_000)
    });
    let call = tokio::spawn(client.record(requests));
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = asked.load(Ordering::Relaxed);
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    assert!(
        before < 400,
        "{before} items of 1,000 bytes are on their way"
    );
    go.notify_one();
    let reply = call.await.unwrap().unwrap();
    assert_eq!(reply.get_ref().number, 10_000);
}

async fn errors_come_behind_the_items(wire: Wire) {
    let closures = Closures::default().list(async |_| {
        let mut status = Status::aborted("enough");
        status.metadata_mut().insert("why", "because").unwrap();
        let failure = stream::iter([Err(status)]);
        Ok(Response::new(items(0..5).chain(failure).boxed()))
    });
    let (_running, client) = serve(wire, closures);
    let mut list = client.list(Item::number(1)).await.unwrap().into_inner();
    for number in 0..5 {
        assert_eq!(list.message().await.unwrap(), Some(Item::number(number)));
    }
    let status = list.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "enough"));
    assert_eq!(status.metadata().get("why"), Some("because"));
}

/// Says that it is gone.
struct Dropped(mpsc::Sender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _gone = self.0.try_send(());
    }
}

async fn a_handler_is_dropped_with_the_stream(wire: Wire) {
    let (told, mut dropped) = mpsc::channel(10);
    let closures = Closures::default().list(move |_| {
        let guard = Dropped(told.clone());
        async move {
            let endless = stream::iter([Ok(Item::number(0))]).chain(stream::pending());
            let endless = endless.map(move |item| {
                let _held = &guard;
                item
            });
            Ok(Response::new(endless.boxed()))
        }
    });
    let (running, client) = serve(wire, closures);
    let mut list = client.list(Item::number(1)).await.unwrap().into_inner();
    assert!(list.message().await.unwrap().is_some());
    drop(list);
    dropped.recv().await.unwrap();
    // Before the response is there.
    let call = tokio::time::timeout(Duration::from_millis(1), client.list(Item::number(1)));
    drop(call.await);
    drop(client);
    dropped.recv().await.unwrap();
    while running.monitor.stats().calls_in_progress > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn messages_around_the_length_of_a_frame(wire: Wire) {
    let (_running, client) = serve(wire, Closures::default());
    // The tag and the length of the field come on top, then the header of the frame and its path.
    for around in [65_536, FRAME_MAX - 64 - 40, FRAME_MAX] {
        for len in around - 30..around + 30 {
            if wire != Wire::Mem && len % 7 != 0 {
                continue;
            }
            let item = Item::long(len);
            let reply = client.say(item.clone()).await.unwrap();
            assert!(reply.into_inner() == item, "{len}");
        }
    }
}

async fn long_items_both_ways(wire: Wire) {
    let (_running, client) = serve(wire, Closures::default());
    let client = client.max_decoding_message_size(8 << 20);
    let lens = [3_000_000, 10, 4_000_000, 0, 1_500_000];
    let requests = stream::iter(lens).map(Item::long);
    let mut echoed = client.chat(requests).await.unwrap().into_inner();
    for len in lens {
        let item = echoed.message().await.unwrap().unwrap();
        assert!(item == Item::long(len), "{len}");
    }
    assert_eq!(echoed.message().await.unwrap(), None);
    let item = Item {
        number: 1,
        data: Bytes::from(vec![9; 4_000_000]),
    };
    let reply = client.say(item.clone()).await.unwrap();
    assert!(reply.into_inner() == item);
}

async fn a_deadline_ends_a_stream_at_both_ends(wire: Wire) {
    let (told, mut dropped) = mpsc::channel(10);
    let closures = Closures::default().list(move |_| {
        let guard = Dropped(told.clone());
        async move {
            let slow = stream::iter(0..56).then(move |number| {
                let _held = &guard;
                async move {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok(Item::number(number))
                }
            });
            Ok(Response::new(slow.boxed()))
        }
    });
    let (running, client) = serve(wire, closures);
    let mut request = Request::new(Item::number(1));
    request.set_timeout(Duration::from_millis(50));
    let response = client.list(request).await;
    let status = match response {
        Ok(list) => numbers(&mut list.into_inner()).await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    dropped.recv().await.unwrap();
    while running.monitor.stats().calls_in_progress > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn the_client_may_end_last(wire: Wire) {
    let closures = Closures::default().chat(async |_| Ok(Response::new(items(0..3).boxed())));
    let (running, client) = serve(wire, closures);
    let mut list = client.chat(stream::pending()).await.unwrap().into_inner();
    assert_eq!(numbers(&mut list).await.unwrap(), [0, 1, 2]);
    while running.monitor.stats().calls_in_progress > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn a_panic_in_a_stream_ends_it(wire: Wire) {
    let closures = Closures::default().list(async |_| {
        let panics = stream::iter(0..3).map(|number| {
            assert!(number < 2, "on purpose");
            Ok(Item::number(number))
        });
        Ok(Response::new(panics.boxed()))
    });
    let (_running, client) = serve(wire, closures);
    let response = client.list(Item::number(1)).await;
    let status = match response {
        Ok(list) => numbers(&mut list.into_inner()).await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::Unknown, "{status}");
}
