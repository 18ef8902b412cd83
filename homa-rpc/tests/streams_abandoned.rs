//! Clients that open streams and then do nothing, and those that are merely slow.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/peer.rs"]
mod peer;
#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::time::Duration;

use futures_util::{StreamExt, stream};
use homa_rpc::{Request, Response, Streaming};
use peer::{Beside, DEADLINE_EXCEEDED, EMPTY, LIST, OK, Peer, RECORD};
use streaming::{Closures, Item, StreamsClient};
use support::Wire;
use support::frames::{self, Raw};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// Tells when a handler is dropped.
struct Dropped(mpsc::Sender<Instant>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _gone = self.0.try_send(Instant::now());
    }
}

/// Opens calls that then do nothing, and measures how long their handlers live. `is_broken` if that breaks off a
/// request.
async fn abandoned(is_broken: bool, open: impl AsyncFn(&Peer, u64)) -> Duration {
    const CALLS: u64 = 100;
    let (told, mut dropped) = mpsc::channel(1_000);
    let closures = Closures::default()
        .record({
            let told = told.clone();
            move |request: Request<Streaming<Item>>| {
                let guard = Dropped(told.clone());
                async move {
                    let mut requests = request.into_inner();
                    while requests.message().await?.is_some() {}
                    drop(guard);
                    Ok(Response::new(Item::default()))
                }
            }
        })
        .list(move |_| {
            let guard = Dropped(told.clone());
            async move {
                let endless = stream::repeat_with(move || {
                    let _held = &guard;
                    Ok(Item::long(100))
                });
                Ok(Response::new(endless.boxed()))
            }
        });
    let peer = Peer::new(Wire::Net, closures);
    let mut beside = Beside::open(&peer).await;
    let begun = Instant::now();
    for id in 1..=CALLS {
        open(&peer, id).await;
    }
    let mut lasted = Duration::ZERO;
    for _ in 0..CALLS {
        lasted = dropped.recv().await.unwrap() - begun;
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(peer.stats().calls_in_progress, 1, "the stream beside");
    let broken = if is_broken { CALLS } else { 0 };
    assert_eq!(peer.stats().calls_broken, broken);
    beside.goes_on().await;
    beside.end().await;
    for id in 1..=CALLS {
        peer.assert_forgotten(id).await;
    }
    lasted
}

fn assert_about(lasted: Duration, secs: u64) {
    let expected = Duration::from_secs(secs);
    assert!(
        lasted >= expected && lasted < expected + Duration::from_secs(1),
        "{lasted:?}"
    );
}

/// The reply after 15 s says that nobody is there: no further frame comes for 10 s.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_opened_and_left_alone_is_gone_after_25_seconds() {
    let lasted = abandoned(false, async |peer, id| {
        peer.send(Raw::open(id, RECORD, 1_000)).await;
    });
    assert_about(lasted.await, 25);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_never_pulls_is_gone_after_10_seconds() {
    let lasted = abandoned(false, async |peer, id| {
        let call = Raw {
            flags: frames::MESSAGE | frames::END,
            ..Raw::open(id, LIST, 1_000)
        };
        let reply = peer.ask(call).await;
        assert!((900..=1_000).contains(&reply.message.len()), "{reply:?}");
    });
    assert_about(lasted.await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_begun_and_left_alone_is_gone_after_10_seconds() {
    let lasted = abandoned(true, async |peer, id| {
        let call = peer.send(Raw::open(id, RECORD, 1_000)).await;
        let ack = peer.ask(Raw::fragment(id, 1, &[0; 10], 0, 2_000_000)).await;
        assert_eq!(ack.code, OK);
        tokio::spawn(async move {
            let reply = call.await.unwrap().unwrap();
            assert_eq!(reply.code, DEADLINE_EXCEEDED, "{reply:?}");
            assert!(reply.status_message.contains("10 seconds"), "{reply:?}");
        });
    });
    assert_about(lasted.await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_is_never_filled_is_gone_after_10_seconds() {
    let lasted = abandoned(true, async |peer, id| {
        peer.send(Raw::open(id, RECORD, 1_000)).await;
        let ack = peer.ask(Raw::items(id, 5, &[EMPTY])).await;
        assert_eq!(ack.code, OK);
    });
    assert_about(lasted.await, 10);
}

/// A client that shows itself every 15 seconds is not gone, however long nothing is said.
#[tokio::test(start_paused = true)]
async fn an_idle_stream_lives_for_an_hour() {
    let peer = Peer::new(Wire::Net, Closures::default());
    let mut beside = Beside::open(&peer).await;
    for pause in [9, 10, 11, 14, 15, 16, 24, 25, 26, 3_600] {
        sleep(Duration::from_secs(pause)).await;
        beside.goes_on().await;
    }
    let sent = peer.running.client.stats().requests_sent;
    sleep(Duration::from_secs(3_600)).await;
    let renewals = peer.running.client.stats().requests_sent - sent;
    assert!((230..=250).contains(&renewals), "{renewals} in an hour");
    beside.end().await;
}

/// A reader that is busy for a minute in the middle of a long message.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_does_not_break_a_long_message() {
    let closures = Closures::default().record(async |request: Request<Streaming<Item>>| {
        let mut requests = request.into_inner();
        sleep(Duration::from_secs(60)).await;
        let mut number = 0;
        while let Some(item) = requests.message().await? {
            number += item.data.len() as u64;
            sleep(Duration::from_secs(20)).await;
        }
        Ok(Response::new(Item::number(number)))
    });
    let peer = Peer::new(Wire::Net, closures);
    let client = StreamsClient::new(peer.running.channel.clone());
    let requests = stream::iter([3_000_000, 1_000, 2_000_000]).map(Item::long);
    let reply = client.record(requests).await.unwrap();
    assert_eq!(reply.get_ref().number, 5_001_000);
}
