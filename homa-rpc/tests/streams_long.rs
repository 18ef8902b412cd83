//! Long streams and long messages over every wire: their lengths, their limits, and what waits.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use homa_rpc::{Code, Request, Response, Server, Status, Streaming};
use prost::Message;
use streaming::{Closures, Item, StreamsClient, numbers};
use support::{Running, Wire, run};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Limit of messages unless told otherwise.
const LIMIT: usize = 4 << 20;

on_every_wire! {
    items_of_four_megabytes_one_after_the_other,
    messages_of_64_megabytes_where_the_limits_allow_them,
    messages_at_their_limit_in_each_direction_and_kind,
    a_reader_that_stops_stops_the_server,
    a_thousand_idle_streams_are_all_there_when_they_go_on,
    a_client_that_ends_first_still_gets_all,
}

fn serve(wire: Wire, closures: Closures) -> (Running, StreamsClient) {
    let running = run(
        Server::builder().add_service(closures.server()),
        wire.pair(),
    );
    let client = StreamsClient::new(running.channel.clone());
    (running, client)
}

/// An item that is recognised.
fn numbered(number: u64, len: usize) -> Item {
    let byte = u8::try_from(number % 251).unwrap();
    let data = Bytes::from(vec![byte; len]);
    Item { data, number }
}

/// `HOMA_TEST_LONG_ITEMS=100` sends as many each way.
fn long_items() -> u64 {
    let count = std::env::var("HOMA_TEST_LONG_ITEMS");
    count.map_or(10, |count| count.parse().unwrap())
}

async fn items_of_four_megabytes_one_after_the_other(wire: Wire) {
    const LEN: usize = 4_000_000;
    let count = long_items();
    let closures = Closures::default()
        .list(move |_| async move {
            let items = stream::iter(0..count).map(|number| Ok(numbered(number, LEN)));
            Ok(Response::new(items.boxed()))
        })
        .record(move |request: Request<Streaming<Item>>| async move {
            let mut requests = request.into_inner();
            for number in 0..count {
                let item = requests.message().await?;
                assert!(item == Some(numbered(number, LEN)), "request {number}");
            }
            assert_eq!(requests.message().await?, None);
            Ok(Response::new(Item::number(count)))
        });
    let (_running, client) = serve(wire, closures);
    let mut list = client.list(Item::default()).await.unwrap().into_inner();
    for number in 0..count {
        let item = list.message().await.unwrap();
        assert!(item == Some(numbered(number, LEN)), "response {number}");
    }
    assert_eq!(list.message().await.unwrap(), None);
    let requests = stream::iter(0..count).map(|number| numbered(number, LEN));
    let reply = client.record(requests).await.unwrap();
    assert_eq!(reply.get_ref().number, count);
}

async fn messages_of_64_megabytes_where_the_limits_allow_them(wire: Wire) {
    const LEN: usize = 64 << 20;
    let service = Closures::default().server();
    let service = service.max_decoding_message_size(LEN + 64);
    let running = run(Server::builder().add_service(service), wire.pair());
    let client = StreamsClient::new(running.channel.clone());
    let client = client.max_decoding_message_size(LEN + 64);
    let item = numbered(3, LEN);
    let reply = client.say(item.clone()).await.unwrap();
    assert!(reply.into_inner() == item);
    let mut echoed = client
        .chat(stream::iter([item.clone()]))
        .await
        .unwrap()
        .into_inner();
    assert!(echoed.message().await.unwrap() == Some(item));
    assert_eq!(echoed.message().await.unwrap(), None);
}

/// An item that is `len` bytes long when encoded.
fn encoded(len: usize) -> Item {
    let mut item = Item::long(len);
    while item.encoded_len() > len {
        item = Item::long(item.data.len() + len - item.encoded_len());
    }
    assert_eq!(item.encoded_len(), len);
    item
}

/// Each method gives back the last item.
fn echoing() -> Closures {
    Closures::default()
        .list(async |request: Request<Item>| {
            let items = [Ok(Item::default()), Ok(request.into_inner())];
            Ok(Response::new(stream::iter(items).boxed()))
        })
        .record(async |request: Request<Streaming<Item>>| {
            let mut requests = request.into_inner();
            let mut last = Item::default();
            while let Some(item) = requests.message().await? {
                last = item;
            }
            Ok(Response::new(last))
        })
}

async fn messages_at_their_limit_in_each_direction_and_kind(wire: Wire) {
    for limit in [1_000, 70_000, 990_000, 1_500_000, LIMIT] {
        let more = 2 * limit;
        for option in ["decoding", "encoding"] {
            for at_client in [true, false] {
                // Of all four limits only one is so low.
                let limit_of = |side, what| match side == at_client && what == option {
                    true => limit,
                    false => more,
                };
                let service = echoing().server();
                let service = service.max_decoding_message_size(limit_of(false, "decoding"));
                let service = service.max_encoding_message_size(limit_of(false, "encoding"));
                let running = run(Server::builder().add_service(service), wire.pair());
                let client = StreamsClient::new(running.channel.clone());
                let client = client.max_decoding_message_size(limit_of(true, "decoding"));
                let client = client.max_encoding_message_size(limit_of(true, "encoding"));
                check_limit(&client, limit, option).await;
            }
        }
    }
}

/// Messages of `limit` and one byte less pass in each kind, one of a byte more does not.
async fn check_limit(client: &StreamsClient, limit: usize, option: &str) {
    let all = async |outcome: Result<Response<Streaming<Item>>, Status>| {
        numbers(&mut outcome?.into_inner()).await.map(drop)
    };
    for len in [limit - 1, limit, limit + 1] {
        let what = format!("{len} bytes with a limit of {limit} for {option}");
        let item = encoded(len);
        let requests = || stream::iter([Item::long(limit / 2), item.clone()]);
        let outcomes = [
            ("say", client.say(item.clone()).await.map(drop)),
            ("list", all(client.list(item.clone()).await).await),
            ("record", client.record(requests()).await.map(drop)),
            ("chat", all(client.chat(requests()).await).await),
        ];
        for (kind, outcome) in outcomes {
            check_outcome(outcome, len <= limit, option, &format!("{kind}, {what}"));
        }
    }
}

fn check_outcome(outcome: Result<(), Status>, fits: bool, option: &str, what: &str) {
    match (outcome, fits) {
        (Ok(()), true) => {}
        (Err(status), false) => {
            assert_eq!(status.code(), Code::ResourceExhausted, "{what}: {status}");
            let option = format!("max_{option}_message_size");
            assert!(status.message().contains(&option), "{what}: {status}");
        }
        (outcome, _) => panic!("{what}: {outcome:?}"),
    }
}

/// A client that has read much at speed and then reads nothing.
async fn a_reader_that_stops_stops_the_server(wire: Wire) {
    const LEN: usize = 1_000;
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let closures = Closures::default().list(move |_| {
        let counted = Arc::clone(&counted);
        async move {
            let items = stream::repeat_with(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(Item::long(LEN))
            });
            Ok(Response::new(items.take(20_000).boxed()))
        }
    });
    let (_running, client) = serve(wire, closures);
    let mut list = client.list(Item::default()).await.unwrap().into_inner();
    let mut read = 0;
    for count in [0, 1, 5_000, 1, 5_000] {
        for _ in 0..count {
            assert!(list.message().await.unwrap().is_some());
        }
        read += count;
        let mut before = 0;
        // Until it stands still.
        loop {
            sleep(Duration::from_millis(50)).await;
            let now = written.load(Ordering::Relaxed);
            if now == before {
                break;
            }
            before = now;
        }
        let held = (before - read) * LEN;
        assert!(held < 2_500_000, "{held} bytes wait behind {read} items");
    }
    while list.message().await.unwrap().is_some() {
        read += 1;
    }
    assert_eq!(read, 20_000);
}

async fn a_thousand_idle_streams_are_all_there_when_they_go_on(wire: Wire) {
    let (running, client) = serve(wire, Closures::default());
    let mut streams = Vec::new();
    for number in 0..1_000 {
        let (sender, mut receiver) = mpsc::channel(1);
        let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let mut echoed = client.chat(requests).await.unwrap().into_inner();
        sender.send(Item::number(number)).await.unwrap();
        assert_eq!(echoed.message().await.unwrap(), Some(Item::number(number)));
        streams.push((sender, echoed));
    }
    assert_eq!(running.monitor.stats().calls_in_progress, 1_000);
    // Calls beside them are as ever.
    assert!(client.say(Item::number(7)).await.is_ok());
    for (number, (sender, echoed)) in (1_000..).zip(&mut streams) {
        sender.send(Item::number(number)).await.unwrap();
        assert_eq!(echoed.message().await.unwrap(), Some(Item::number(number)));
    }
    for (sender, mut echoed) in streams {
        drop(sender);
        assert_eq!(echoed.message().await.unwrap(), None);
    }
    while running.monitor.stats().calls_in_progress > 0 {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Half-close at once: the server answers when the client has long ended.
async fn a_client_that_ends_first_still_gets_all(wire: Wire) {
    let closures = Closures::default().chat(async |request: Request<Streaming<Item>>| {
        let mut requests = request.into_inner();
        let read = numbers(&mut requests).await?;
        let items = stream::iter(read).then(async |number| {
            tokio::task::yield_now().await;
            Ok(Item::number(number))
        });
        Ok(Response::new(items.boxed()))
    });
    let (_running, client) = serve(wire, closures);
    for count in [0, 1, 100, 20_000] {
        let requests = stream::iter(0..count).map(Item::number);
        let mut echoed = client.chat(requests).await.unwrap().into_inner();
        let expected: Vec<u64> = (0..count).collect();
        assert_eq!(numbers(&mut echoed).await.unwrap(), expected);
    }
}
