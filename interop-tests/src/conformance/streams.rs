//! Streams of homa-rpc: all kinds, and peers that vanish.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use homa_rpc::{Code, Status, Streaming};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::{Ends, Failure, STUCK_AFTER, on, patient};
use crate::network::Network;
use crate::streams::{Item, StreamServer, StreamsClient, client, open_streams};

/// A client knows after this time that nothing is heard of its server any more.
const CLIENT_LEARNS: Duration = Duration::from_secs(5);
/// A server drops the handlers of a client that is gone after this time.
const SERVER_LEARNS: Duration = Duration::from_secs(30);
/// Streams of a check that are open at the same time.
const AT_ONCE: u64 = 100;

/// Numbers and lengths of the items of a stream.
const SHAPES: [(u64, usize); 5] = [
    (0, 1),
    (1, 10),
    (10_000, 100),
    (100, 20_000),
    (2, 1_200_000),
];

/// All kinds of calls with messages of many lengths; a stream that is dropped ends at the server.
///
/// # Errors
/// If anything fails, or comes otherwise than it was sent.
pub async fn streams(ends: &Ends) -> Result<(), Failure> {
    let server = serve(ends).await?;
    let uri = server.uri().clone();
    let client = async move { Ok::<_, Failure>(client(&uri, &patient())?) };
    let client = ends.at_client(client).await?;
    streams_through(ends, client).await
}

/// The same with a client that is there.
///
/// # Errors
/// As [`streams`].
pub async fn streams_through(ends: &Ends, client: StreamsClient) -> Result<(), Failure> {
    let check = async move {
        long_messages(&client).await?;
        downloads(&client).await?;
        uploads(&client).await?;
        ping_pong(&client, 100).await?;
        at_once(&client).await?;
        dropped(&client).await
    };
    ends.at_client(check).await
}

async fn serve(ends: &Ends) -> Result<StreamServer, Failure> {
    let uri = ends.uri.clone();
    let open = async move { StreamServer::open(&uri, &patient()).await };
    on(&ends.server, open).await
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, got: T) -> Result<(), Failure> {
    match expected == got {
        true => Ok(()),
        false => Err(Failure::unexpected(
            format!("{what}: {expected:?}"),
            format!("{got:?}"),
        )),
    }
}

/// An item, without printing all of its bytes.
fn expect_item(expected: Item, got: Option<Item>) -> Result<(), Failure> {
    let brief = |item: &Item| (item.number, item.data.len(), item.data.first().copied());
    let what = "number, length and first byte of an item";
    expect(what, Some(brief(&expected)), got.as_ref().map(brief))?;
    expect("equal bytes", true, got == Some(expected))
}

async fn long_messages(client: &StreamsClient) -> Result<(), Failure> {
    for len in [0, 1, 70_000, 999_900, 1_000_000, 1_500_000] {
        let item = Item::of(0, len);
        let reply = client.say(item.clone()).await?.into_inner();
        expect_item(item, Some(reply))?;
    }
    Ok(())
}

async fn downloads(client: &StreamsClient) -> Result<(), Failure> {
    for (count, len) in SHAPES {
        let request = Item::of(count, len);
        let mut items = client.list(request.clone()).await?.into_inner();
        for number in 0..count {
            let expected = Item {
                number,
                ..request.clone()
            };
            expect_item(expected, items.message().await?)?;
        }
        expect("the end", None, items.message().await?)?;
    }
    Ok(())
}

async fn uploads(client: &StreamsClient) -> Result<(), Failure> {
    for (count, len) in SHAPES {
        let requests = stream::iter(0..count).map(move |number| Item::of(number, len));
        let reply = client.record(requests).await?.into_inner();
        expect("the number of requests", count, reply.number)?;
    }
    Ok(())
}

/// A stream of requests that are sent one by one.
async fn chat(client: &StreamsClient) -> Result<(mpsc::Sender<Item>, Streaming<Item>), Status> {
    let (sender, mut receiver) = mpsc::channel(1);
    let requests = stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let items = client.chat(requests).await?.into_inner();
    Ok((sender, items))
}

async fn ping_pong(client: &StreamsClient, count: u64) -> Result<(), Failure> {
    let (sender, mut items) = chat(client).await?;
    for number in 0..count {
        let item = Item::of(number, 100);
        // A stream that has failed says so below.
        let _closed = sender.send(item.clone()).await;
        expect_item(item, items.message().await?)?;
    }
    drop(sender);
    expect("the end", None, items.message().await?)
}

async fn at_once(client: &StreamsClient) -> Result<(), Failure> {
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { ping_pong(&client, 10).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Waits until the server has no stream open any more.
async fn none_open(client: &StreamsClient, limit: Duration) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        match open_streams(client).await? {
            0 => return Ok(()),
            open if begun.elapsed() > limit => {
                let got = format!("{open} after {limit:?}");
                return Err(Failure::unexpected("no stream open at the server", got));
            }
            _ => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn dropped(client: &StreamsClient) -> Result<(), Failure> {
    let idle = chat(client).await?;
    let mut flood = client.list(Item::of(u64::MAX, 1_000)).await?.into_inner();
    for _ in 0..100 {
        flood.message().await?;
    }
    expect("streams open", 2, open_streams(client).await?)?;
    drop((idle, flood));
    none_open(client, STUCK_AFTER).await
}

/// Streams, idle and busy, whose ends are cut off from each other by taking a host away: both notice.
///
/// # Errors
/// If one of them does not in time.
pub async fn stream_death(ends: &Ends, network: &Network, host: usize) -> Result<(), Failure> {
    let server = serve(ends).await?;
    let uri = server.uri().clone();
    let client = async move {
        let client = client(&uri, &patient())?;
        let idle = chat(&client).await?;
        let mut flood = client.list(Item::of(u64::MAX, 1_000)).await?.into_inner();
        flood.message().await?;
        Ok::<_, Failure>((client, idle, flood))
    };
    let (client, (sender, idle), flood) = ends.at_client(client).await?;
    expect("streams open", 2, server.open_streams())?;
    network.cut(host)?;
    let client_learns = async move {
        for mut items in [idle, flood] {
            match timeout(CLIENT_LEARNS, failure(&mut items)).await {
                Ok(status) => expect("a failure", Code::Unavailable, status.code())?,
                Err(_) => return Err(Failure::Stuck(CLIENT_LEARNS)),
            }
        }
        drop(sender);
        Ok(())
    };
    let begun = Instant::now();
    let learned = ends.client.spawn(client_learns).await?;
    while server.open_streams() > 0 && begun.elapsed() < SERVER_LEARNS {
        sleep(Duration::from_millis(10)).await;
    }
    network.mend(host)?;
    learned?;
    expect("streams left at the server", 0, server.open_streams())?;
    // Both are found again.
    ends.at_client(async move { ping_pong(&client, 3).await })
        .await
}

/// How a stream fails, whatever comes before.
async fn failure(items: &mut Streaming<Item>) -> Status {
    loop {
        match items.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::internal("the stream has ended well"),
            Err(status) => return status,
        }
    }
}
