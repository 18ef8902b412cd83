//! A server of streams, and who sends it frames made by hand.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of a test")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use homa_rpc::{Server, Streaming};
use homa_transport::RpcError;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use crate::streaming::{Closures, Item, StreamsClient};
use crate::support::frames::{self, Raw, RawReply};
use crate::support::{Running, Wire, run};

pub const RECORD: &[u8] = b"/test.streams.Streams/Record";
pub const CHAT: &[u8] = b"/test.streams.Streams/Chat";
pub const LIST: &[u8] = b"/test.streams.Streams/List";

pub const OK: u8 = 0;
pub const DEADLINE_EXCEEDED: u8 = 4;
pub const INTERNAL: u8 = 13;
pub const UNAVAILABLE: u8 = 14;

/// An empty item.
pub const EMPTY: &[u8] = b"";

/// A server, and who sends it frames.
pub struct Peer {
    pub running: Running,
}

impl Peer {
    pub fn new(wire: Wire, closures: Closures) -> Self {
        let server = Server::builder().add_service(closures.server());
        Self {
            running: run(server, wire.pair()),
        }
    }

    /// Sends a frame. The reply is awaited by whoever wants it.
    pub async fn send(&self, frame: Raw) -> JoinHandle<Result<RawReply, RpcError>> {
        let client = Arc::clone(&self.running.client);
        let server = self.running.server.local_addr();
        let reply = async move { frames::send(&client, server, frame.bytes()).await };
        let reply = tokio::spawn(reply);
        yield_now().await;
        reply
    }

    pub async fn ask(&self, frame: Raw) -> RawReply {
        self.send(frame).await.await.unwrap().unwrap()
    }

    pub fn stats(&self) -> homa_rpc::ServerStats {
        self.running.monitor.stats()
    }

    /// Waits until no call is in progress.
    pub async fn all_done(&self) {
        while self.stats().calls_in_progress > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// The server knows nothing of this call any more.
    pub async fn assert_forgotten(&self, call_id: u64) {
        let reply = self.ask(Raw::pull(call_id, 0)).await;
        assert_eq!(reply.code, UNAVAILABLE, "call {call_id}: {reply:?}");
        assert!(reply.has(frames::UNKNOWN_CALL | frames::END));
    }
}

/// A stream that goes on beside what the test does.
pub struct Beside {
    sender: mpsc::Sender<Item>,
    echoed: Streaming<Item>,
    next: u64,
}

impl Beside {
    pub async fn open(peer: &Peer) -> Self {
        let client = StreamsClient::new(peer.running.channel.clone());
        let (sender, mut receiver) = mpsc::channel(1);
        let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let echoed = client.chat(requests).await.unwrap().into_inner();
        let mut beside = Self {
            sender,
            echoed,
            next: 0,
        };
        beside.goes_on().await;
        beside
    }

    pub async fn goes_on(&mut self) {
        for _ in 0..3 {
            let item = Item::number(self.next);
            self.sender.send(item.clone()).await.unwrap();
            assert_eq!(self.echoed.message().await.unwrap(), Some(item));
            self.next += 1;
        }
    }

    pub async fn end(mut self) {
        self.goes_on().await;
        drop(self.sender);
        assert_eq!(self.echoed.message().await.unwrap(), None);
    }
}
