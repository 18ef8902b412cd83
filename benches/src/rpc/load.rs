//! Makes the calls of a scenario and takes their times. Those that stream are in [`super::stream`].

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::scenario::{SMALL_BYTES, Scenario};
use super::stream::{self, Items};

/// Makes calls. Clones share what is behind them.
pub(crate) trait Calls: Clone + Send + 'static {
    /// Sends `body` and returns how many bytes came back.
    fn echo(&mut self, body: Bytes) -> impl Future<Output = Result<usize, String>> + Send;

    /// Sends `body` and returns how many bytes the server has seen.
    fn upload(&mut self, body: Bytes) -> impl Future<Output = Result<usize, String>> + Send;

    /// What a server sends in one call.
    type Items: Items;

    /// Has the server send `count` items of `bytes` bytes.
    fn items(
        &mut self,
        count: u64,
        bytes: usize,
    ) -> impl Future<Output = Result<Self::Items, String>> + Send;

    /// Has the server send back each item that comes out of `there`.
    fn ping_pong(
        &mut self,
        there: mpsc::Receiver<Bytes>,
    ) -> impl Future<Output = Result<Self::Items, String>> + Send;
}

/// What came of one round.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Calls that count, or items of a stream.
    pub(crate) calls: usize,
    /// Their times; of many items, the mean of each run of them.
    pub(crate) times: Vec<Duration>,
    /// Bytes that calls of all kinds carried to the server.
    pub(crate) bytes: usize,
    pub(crate) took: Duration,
}

impl Measured {
    /// Counts a call.
    pub(crate) fn count(&mut self, time: Duration) {
        self.calls += 1;
        self.times.push(time);
    }

    /// Time within which `share` of the calls ended, in microseconds. Sorts the times.
    pub(crate) fn quantile_us(&mut self, share: f64) -> f64 {
        self.times.sort_unstable();
        let last = self.times.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of calls"
        )]
        let index = (last as f64 * share).round() as usize;
        self.times
            .get(index)
            .map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }
}

/// Runs `scenario` for `duration`. Calls still in progress then are waited for and not counted.
///
/// # Errors
/// The first call that failed.
pub(crate) async fn run(
    calls: &impl Calls,
    scenario: Scenario,
    duration: Duration,
) -> Result<Measured, String> {
    if let Some(load) = scenario.stream {
        return stream::run(calls.clone(), load, duration).await;
    }
    let small = Bytes::from(vec![7; SMALL_BYTES]);
    let bulk = Bytes::from(vec![7; scenario.bulk_bytes]);
    let mut tasks = JoinSet::new();
    let end = Instant::now() + duration;
    for _ in 0..scenario.small {
        let (calls, body) = (calls.clone(), small.clone());
        tasks.spawn(async move { (true, repeat(calls, Kind::Echo, body, end).await) });
    }
    for _ in 0..scenario.bulk {
        let (calls, body) = (calls.clone(), bulk.clone());
        let counts = scenario.small == 0;
        tasks.spawn(async move { (counts, repeat(calls, Kind::Upload, body, end).await) });
    }
    let mut measured = Measured {
        took: duration,
        ..Measured::default()
    };
    while let Some(ended) = tasks.join_next().await {
        let (counts, part) = ended.map_err(|error| format!("a client task failed: {error}"))?;
        let part = part?;
        measured.bytes += part.bytes;
        if counts {
            measured.calls += part.calls;
            measured.times.extend(part.times);
        }
    }
    Ok(measured)
}

#[derive(Clone, Copy)]
enum Kind {
    Echo,
    Upload,
}

/// One call after the other until `end`.
async fn repeat(
    mut calls: impl Calls,
    kind: Kind,
    body: Bytes,
    end: Instant,
) -> Result<Measured, String> {
    let mut measured = Measured::default();
    let mut begin = Instant::now();
    loop {
        let bytes = match kind {
            Kind::Echo => calls.echo(body.clone()).await?,
            Kind::Upload => calls.upload(body.clone()).await?,
        };
        if bytes != body.len() {
            return Err(format!("{} bytes were sent, {bytes} counted", body.len()));
        }
        let now = Instant::now();
        if now > end {
            return Ok(measured);
        }
        measured.count(now - begin);
        measured.bytes += bytes;
        begin = now;
    }
}
