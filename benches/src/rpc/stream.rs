//! The loads that stream.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::load::{Calls, Measured};
use super::scenario::{SMALL_BYTES, Stream};

/// Small items whose time is taken together: a look at the clock per item would count.
const RUN: u32 = 100;

/// What a server sends in one call.
pub(crate) trait Items: Send + 'static {
    /// Bytes of the next item; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<usize>, String>> + Send;
}

/// Runs `load` for `duration`. Items that come later are not counted.
///
/// # Errors
/// The first failure.
pub(crate) async fn run(
    calls: impl Calls,
    load: Stream,
    duration: Duration,
) -> Result<Measured, String> {
    let end = Instant::now() + duration;
    let mut measured = match load {
        Stream::Items { bytes } => flood(calls, bytes, end).await?,
        Stream::FirstItem => first_items(calls, end).await?,
        Stream::PingPong => ping_pong(calls, end).await?,
    };
    measured.took = duration;
    Ok(measured)
}

/// One call, whose items are read until `end`.
async fn flood(mut calls: impl Calls, bytes: usize, end: Instant) -> Result<Measured, String> {
    let run = if bytes == SMALL_BYTES { RUN } else { 1 };
    let mut measured = Measured::default();
    let mut items = calls.items(u64::MAX, bytes).await?;
    let mut begin = Instant::now();
    loop {
        for _ in 0..run {
            expect(&mut items, bytes).await?;
        }
        let now = Instant::now();
        if now > end {
            return Ok(measured);
        }
        measured.calls += run as usize;
        measured.times.push((now - begin) / run);
        measured.bytes += bytes * run as usize;
        begin = now;
    }
}

/// Calls of one item each, one after the other.
async fn first_items(mut calls: impl Calls, end: Instant) -> Result<Measured, String> {
    let mut measured = Measured::default();
    loop {
        let begin = Instant::now();
        let mut items = calls.items(1, SMALL_BYTES).await?;
        expect(&mut items, SMALL_BYTES).await?;
        let now = Instant::now();
        if let Some(bytes) = items.next().await? {
            return Err(format!("expected one item, got another of {bytes} bytes"));
        }
        if now > end {
            return Ok(measured);
        }
        measured.count(now - begin);
        measured.bytes += SMALL_BYTES;
    }
}

/// One call: an item there and back, then the next one.
async fn ping_pong(mut calls: impl Calls, end: Instant) -> Result<Measured, String> {
    let body = Bytes::from(vec![7; SMALL_BYTES]);
    let mut measured = Measured::default();
    let (there, sent) = mpsc::channel(1);
    let mut back = calls.ping_pong(sent).await?;
    loop {
        let begin = Instant::now();
        let gone = there.send(body.clone()).await.is_err();
        if gone {
            return Err("the stream to the server ended".to_owned());
        }
        expect(&mut back, SMALL_BYTES).await?;
        let now = Instant::now();
        if now > end {
            return Ok(measured);
        }
        measured.count(now - begin);
        measured.bytes += SMALL_BYTES;
    }
}

/// Reads one item of `bytes` bytes.
async fn expect(items: &mut impl Items, bytes: usize) -> Result<(), String> {
    match items.next().await? {
        Some(got) if got == bytes => Ok(()),
        Some(got) => Err(format!("expected an item of {bytes} bytes, got {got}")),
        None => Err("the stream ended early".to_owned()),
    }
}
