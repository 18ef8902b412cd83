//! The memory of a stream of many items, client and server together. What is measured is that of the whole
//! process, so there is one test here.
//!
//! `HOMA_TEST_ITEMS=10000000` sends as many each way; use a release build for it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/streaming.rs"]
mod streaming;
mod support;

use std::fs;

use futures_util::{StreamExt, stream};
use homa_rpc::{Server, Streaming};
use streaming::{Closures, Item, StreamsClient};
use support::{Wire, run};

/// Growth of the process, in bytes.
const GROWTH_MAX: usize = 8 << 20;
/// Items of a stream that come before the measuring begins.
const WARM_UP: u64 = 50_000;

/// Pages of this process that are in memory, in bytes. Source: proc_pid_statm(5).
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

/// How far the memory of this process has grown at most.
struct Growth {
    begin: usize,
    most: usize,
}

impl Growth {
    fn look(&mut self) {
        self.most = self.most.max(resident());
    }

    fn check(&self, what: &str) {
        let growth = self.most.saturating_sub(self.begin);
        println!("{what}: grown by {growth} bytes at most");
        assert!(growth <= GROWTH_MAX, "{what}: {growth} bytes");
    }
}

/// Reads all items, which are numbered.
async fn read(mut items: Streaming<Item>, count: u64, what: &str) {
    let mut growth = None;
    for number in 0..count {
        let item = items.message().await.unwrap().unwrap();
        assert_eq!(item.number, number);
        if number == WARM_UP {
            let begin = resident();
            growth = Some(Growth { begin, most: begin });
        }
        if let Some(growth) = &mut growth
            && number % 10_000 == 0
        {
            growth.look();
        }
    }
    assert_eq!(items.message().await.unwrap(), None);
    growth.unwrap().check(what);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_many_items_takes_no_memory_for_each() {
    let count = match std::env::var("HOMA_TEST_ITEMS") {
        Ok(count) => count.parse().unwrap(),
        Err(_) => 300_000,
    };
    for wire in [Wire::Net, Wire::Udp, Wire::Mem] {
        let service = Closures::default().server();
        let running = run(Server::builder().add_service(service), wire.pair());
        let client = StreamsClient::new(running.channel.clone());

        let list = client.list(Item::number(count)).await.unwrap();
        read(list.into_inner(), count, &format!("{wire:?}, down")).await;

        let begin = resident();
        let mut growth = Growth { begin, most: begin };
        let requests = stream::iter(0..count).map(Item::number);
        let reply = client.record(requests).await.unwrap();
        growth.look();
        assert_eq!(reply.get_ref().number, count);
        growth.check(&format!("{wire:?}, up"));

        let requests = stream::iter(0..count).map(Item::number);
        let echoed = client.chat(requests).await.unwrap();
        read(echoed.into_inner(), count, &format!("{wire:?}, both")).await;
    }
}
