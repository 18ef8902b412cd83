//! Messages of all sizes, one by one and many at once.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use homa_transport::{Delivery, RpcError};
use tokio::task::JoinSet;

use super::{Failure, ends};
use crate::echo::{EchoClient, request};

/// Sizes of messages that are tried, in bytes: around the limits of single packets (MTU 1500 and 9000),
/// of what is sent without grants (10,000 and 40,000), and of messages.
pub const SIZES: [usize; 27] = [
    1, 2, 7, 8, 100, 1_000, 1_383, 1_384, 1_392, 1_393, 1_412, 1_413, 1_420, 1_421, 1_500, 3_000,
    8_900, 9_000, 10_000, 10_001, 40_000, 40_001, 65_535, 65_536, 100_000, 500_000, 1_000_000,
];

/// Calls of [`concurrency`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Calls in all.
    pub calls: usize,
    /// Calls in progress at a time.
    pub outstanding: usize,
    /// Longest message, in bytes.
    pub size_max: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            calls: 1_000,
            outstanding: 1_000,
            size_max: 1_000_000,
        }
    }
}

/// Every size up to `size_max` and exactly that one, and those that are refused: 0 and one byte too many.
/// Returns the number of calls.
///
/// # Errors
/// The first that is not as it should be.
pub async fn sizes(client: &EchoClient, size_max: usize) -> Result<usize, Failure> {
    let limit = client.transport().message_bytes_max();
    let size_max = size_max.min(limit);
    let mut calls = 0;
    for len in SIZES
        .into_iter()
        .filter(|len| *len < size_max)
        .chain([size_max])
    {
        echo(client, next_id(), len).await?;
        calls += 1;
    }
    refused(client, Bytes::new(), "EmptyMessage", |error| {
        matches!(error, RpcError::EmptyMessage)
    })
    .await?;
    refused(
        client,
        request(next_id(), limit + 1),
        "MessageTooLong",
        |error| matches!(error, RpcError::MessageTooLong { .. }),
    )
    .await?;
    Ok(calls)
}

async fn refused(
    client: &EchoClient,
    request: Bytes,
    expected: &str,
    is_expected: impl Fn(&RpcError) -> bool,
) -> Result<(), Failure> {
    let len = request.len();
    match ends(client.call(request)).await? {
        Err(error) if is_expected(&error) && error.delivery() == Delivery::NotSent => Ok(()),
        result => Err(Failure::unexpected(
            format!("{expected}, not sent, for a message of {len} bytes"),
            format!("{:?}", result.map(|response| response.len())),
        )),
    }
}

/// Many calls at once, most of them short. Returns the ids of their requests.
///
/// # Errors
/// The first that is not as it should be.
pub async fn concurrency(client: &EchoClient, load: Load) -> Result<Vec<u64>, Failure> {
    let outcomes = run(client, load, Result::is_ok).await?;
    outcomes
        .into_iter()
        .map(|(id, outcome)| outcome.map(|()| id))
        .collect()
}

/// The id and the outcome of each call of a load, up to the first with whose outcome it does not `go_on`.
pub(super) async fn run(
    client: &EchoClient,
    load: Load,
    go_on: impl Fn(&Result<(), Failure>) -> bool,
) -> Result<Vec<(u64, Result<(), Failure>)>, Failure> {
    let size_max = load.size_max.min(client.transport().message_bytes_max());
    let mut running = JoinSet::new();
    let mut outcomes = Vec::with_capacity(load.calls);
    for index in 0..load.calls {
        if running.len() >= load.outstanding.max(1)
            && let Some(outcome) = running.join_next().await
        {
            outcomes.push(outcome?);
        }
        if outcomes.last().is_some_and(|(_, outcome)| !go_on(outcome)) {
            return Ok(outcomes);
        }
        let (client, id) = (client.clone(), next_id());
        let len = mixed_size(index).min(size_max);
        running.spawn(async move { (id, echo(&client, id, len).await) });
    }
    while let Some(outcome) = running.join_next().await {
        outcomes.push(outcome?);
        if outcomes.last().is_some_and(|(_, outcome)| !go_on(outcome)) {
            break;
        }
    }
    Ok(outcomes)
}

/// Of a thousand messages 891 of up to 1.4 kB, 99 of up to 14 kB, 9 of up to 140 kB, one of up to 1.4 MB,
/// all long enough for an id.
fn mixed_size(index: usize) -> usize {
    let scale = match index + 1 {
        n if n % 1000 == 0 => 1_000,
        n if n % 100 == 0 => 100,
        n if n % 10 == 0 => 10,
        _ => 1,
    };
    scale * (8 + (index * 37) % 1_400)
}

/// One call, whose response has to be its request.
pub(super) async fn echo(client: &EchoClient, id: u64, len: usize) -> Result<(), Failure> {
    let sent = request(id, len);
    let received = ends(client.call(sent.clone())).await?;
    let received = received.map_err(|error| Failure::Call { len, error })?;
    if received == sent {
        return Ok(());
    }
    let same = received
        .iter()
        .zip(&sent)
        .take_while(|(a, b)| a == b)
        .count();
    Err(Failure::Bytes {
        len,
        got: received.len(),
        same,
    })
}

/// An id that no other request of this process has.
pub(super) fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use homa_transport::Config;

    use super::*;
    use crate::echo::EchoServer;
    use crate::wire::Uri;

    #[tokio::test]
    async fn a_load_ends_with_the_first_call_that_fails() {
        let uri: Uri = "homa+mem://a_load_ends".parse().unwrap();
        let config = Config::default();
        let server = EchoServer::open(&uri, &config).await.unwrap();
        let client = EchoClient::open(&uri, &config).await.unwrap();
        server.stop();
        let load = Load {
            calls: 1_000,
            outstanding: 10,
            size_max: 100,
        };
        let error = concurrency(&client, load).await.unwrap_err();
        assert!(matches!(error, Failure::Call { .. }), "{error}");
        assert_eq!(client.transport().stats().requests_sent, 10);
    }
}
