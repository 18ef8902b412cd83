//! Processes that are killed with SIGKILL while they have streams, busy and idle: the other end notices.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use homa_interop::conformance::patient;
use homa_interop::skip;
use homa_interop::streams::{Item, StreamServer, StreamsClient, client, open_streams};
use homa_interop::wire::{OpenError, Uri};
use homa_rpc::{Code, Streaming};
use tokio::time::{Instant, sleep, timeout};

/// What tells a process which part it has.
const URI: &str = "HOMA_TEST_URI";
/// What it says when it has begun.
const BEGUN: &str = "begun: ";
/// A client knows after this time that its server is gone.
const CLIENT_LEARNS: Duration = Duration::from_secs(5);
/// A server drops the handlers of a client that is gone after this time.
const SERVER_LEARNS: Duration = Duration::from_secs(30);

/// Streams of each sort that a client has.
const STREAMS: u64 = 3;

const WIRES: [&str; 2] = ["homa+udp://127.0.0.1:0", "homa://127.0.0.1:0"];

/// Streams in which nothing happens, in which items come as fast as they can, and in which they leave so.
async fn open(client: &StreamsClient) -> Vec<Streaming<Item>> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let idle = client.chat(stream::pending()).await.unwrap();
        streams.push(idle.into_inner());
        let download = client.list(Item::of(u64::MAX, 1_000)).await.unwrap();
        streams.push(download.into_inner());
        let upload = stream::repeat(Item::of(1, 1_000));
        let upload = client.chat(upload).await.unwrap();
        streams.push(upload.into_inner());
    }
    streams
}

/// Reads a stream until it fails.
async fn failure(mut items: Streaming<Item>) -> Code {
    loop {
        match items.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream has ended well"),
            Err(status) => return status.code(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the server process of the other tests, which start it"]
async fn server_process() {
    let uri: Uri = std::env::var(URI).unwrap().parse().unwrap();
    let server = StreamServer::open(&uri, &patient()).await.unwrap();
    println!("{BEGUN}{}", server.uri());
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the client process of the other tests, which start it"]
async fn client_process() {
    let uri: Uri = std::env::var(URI).unwrap().parse().unwrap();
    let client = client(&uri, &patient()).unwrap();
    let streams = open(&client).await;
    println!("{BEGUN}{uri}");
    let reading = streams.into_iter().map(failure);
    reading
        .collect::<stream::FuturesUnordered<_>>()
        .count()
        .await;
}

/// Another process. Dropped, it is killed.
struct Process {
    child: Child,
    uri: Uri,
}

impl Process {
    fn start(part: &str, uri: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", part, "--nocapture"])
            .env(URI, uri)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let uri = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once(BEGUN)?.1.parse().unwrap()))
            .expect("the process ended before it had begun");
        Self { child, uri }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The wires that this machine has.
async fn wires(test: &str) -> Vec<&'static str> {
    let mut there = Vec::new();
    for uri in WIRES {
        let parsed: Uri = uri.parse().unwrap();
        match parsed.listen(&patient()).await {
            Ok(_) => there.push(uri),
            Err(error) if OpenError::is_unavailable(&error) => {
                skip::report(&format!("{test} over {uri}"), error);
            }
            Err(error) => panic!("{error}"),
        }
    }
    there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_to_a_server_that_is_killed_fail() {
    for wire in wires("streams_to_a_server_that_is_killed_fail").await {
        let mut server = Process::start("server_process", wire);
        let client = client(&server.uri, &patient()).unwrap();
        let streams = open(&client).await;
        assert_eq!(open_streams(&client).await.unwrap(), 3 * STREAMS);
        server.kill();
        for items in streams {
            let code = timeout(CLIENT_LEARNS, failure(items)).await;
            assert_eq!(code.expect("the client does not learn"), Code::Unavailable);
        }
        // One that has come back on the port is called by the same client.
        let _next = Process::start("server_process", &server.uri.to_string());
        assert_eq!(open_streams(&client).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_a_client_that_is_killed_are_dropped() {
    for wire in wires("streams_of_a_client_that_is_killed_are_dropped").await {
        let uri: Uri = wire.parse().unwrap();
        let server = StreamServer::open(&uri, &patient()).await.unwrap();
        let mut client = Process::start("client_process", &server.uri().to_string());
        assert_eq!(server.open_streams(), 3 * STREAMS);
        client.kill();
        let killed = Instant::now();
        while server.open_streams() > 0 {
            let left = server.open_streams();
            assert!(killed.elapsed() < SERVER_LEARNS, "{left} streams are left");
            sleep(Duration::from_millis(10)).await;
        }
        println!("{wire}: dropped after {:?}", killed.elapsed());
    }
}
