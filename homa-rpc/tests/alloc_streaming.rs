//! How often an item of a stream allocates, between a client and a server in one process.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod counting;
#[path = "support/streaming.rs"]
mod streaming;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use homa_rpc::{Request, Response};
use streaming::{Closures, Item, numbers};

const ITEMS: u64 = 1_000;

/// Items are put behind one another and read where they are: what allocates is a run of them, about 24 kB.
#[tokio::test]
async fn alloc_an_item_of_100_bytes_takes_less_than_a_thirtieth_of_an_allocation() {
    let client = Closures::default()
        .list(async |request: Request<Item>| {
            let items = stream::iter(0..request.get_ref().number).map(|number| {
                let data = Bytes::from_static(&[7; 100]);
                Ok(Item { data, number })
            });
            Ok(Response::new(items.boxed()))
        })
        .client();
    let read = async |count: u64| {
        let mut items = client.list(Item::number(count)).await.unwrap().into_inner();
        while items.message().await.unwrap().is_some() {}
    };
    let empty = counting::per_call(|| read(0)).await;
    let full = counting::per_call(|| read(ITEMS)).await;
    let per_item = (full - empty) / ITEMS as f64;
    assert!(per_item < 0.03, "{per_item} allocations per item");
    // A stream itself is no great thing either.
    assert!(empty <= 12.0, "{empty} allocations of an empty stream");
    let mut items = client.list(Item::number(ITEMS)).await.unwrap().into_inner();
    assert_eq!(numbers(&mut items).await.unwrap().len() as u64, ITEMS);
}
