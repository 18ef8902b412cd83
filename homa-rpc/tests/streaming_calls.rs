//! Calls of all four kinds through generated code: a client over a server, with nothing between the two.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;

use futures_util::StreamExt;
use futures_util::stream;
use streaming::{Closures, Item, numbers};

#[tokio::test]
async fn one_for_one() {
    let client = Closures::default().client();
    let reply = client.say(Item::number(7)).await.unwrap();
    assert_eq!(reply.get_ref().number, 7);
}

#[tokio::test]
async fn many_for_one() {
    let client = Closures::default().client();
    let mut items = client.list(Item::number(3)).await.unwrap().into_inner();
    assert_eq!(numbers(&mut items).await.unwrap(), [0, 1, 2]);
    assert_eq!(items.message().await.unwrap(), None);
}

#[tokio::test]
async fn one_for_many() {
    let client = Closures::default().client();
    let items = stream::iter([5, 4, 3]).map(|number| Item {
        number: 0,
        ..Item::long(number)
    });
    let last = client.record(items).await.unwrap().into_inner();
    assert_eq!((last.number, last.data.len()), (3, 3));
}

#[tokio::test]
async fn many_for_many() {
    let client = Closures::default().client();
    let items = stream::iter(0..100).map(Item::number);
    let mut echoed = client.chat(items).await.unwrap().into_inner();
    let expected: Vec<u64> = (0..100).collect();
    assert_eq!(numbers(&mut echoed).await.unwrap(), expected);
}
