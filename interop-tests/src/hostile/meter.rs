//! The good client: calls of 100 bytes at a steady rate, whose times are taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use homa_rpc::{Channel, Status};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::messages::bench_client::BenchClient;
use super::observed::echo;
use super::{BoxError, CALL_TIMEOUT};

/// Bytes of a call's message.
const BODY: &[u8] = &[b'g'; 100];
/// Time between calls.
const CALL_INTERVAL: Duration = Duration::from_millis(5);
/// Calls in progress at a time: more are made than end before their deadline, when none is answered.
const CALLS_MAX: usize = 4_000;

/// When a call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Before,
    During,
    After,
}

/// What came of the calls of a phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Calls answered as they should be.
    pub good: u64,
    /// Others.
    pub failed: u64,
    /// Why the first of them failed.
    pub first_failure: Option<String>,
    /// Median of their times, in microseconds.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

#[derive(Debug, Default)]
struct Taken {
    times: Vec<Duration>,
    failed: u64,
    first_failure: Option<String>,
}

/// The client, while it calls.
#[derive(Debug)]
pub(super) struct Meter {
    /// The present phase; `None` ends it.
    phase: watch::Sender<Option<Phase>>,
    /// The phase of the last call.
    called: watch::Receiver<Option<Phase>>,
    taken: Arc<Mutex<[Taken; 3]>>,
    task: JoinHandle<()>,
}

impl Meter {
    /// Begins to call `uri` from a runtime.
    pub(super) fn start(uri: &str, runtime: &Handle) -> Result<Self, BoxError> {
        let client = BenchClient::new(Channel::new(uri)?);
        let (phase, now) = watch::channel(Some(Phase::Before));
        let (last, called) = watch::channel(None);
        let taken: Arc<Mutex<[Taken; 3]>> = Arc::default();
        let task = runtime.spawn(call(client, now, last, Arc::clone(&taken)));
        Ok(Self {
            phase,
            called,
            taken,
            task,
        })
    }

    /// From now on calls belong to that phase. Waits until the one before has had a call, however long
    /// the machine takes.
    pub(super) async fn enter(&mut self, phase: Phase) -> Result<(), BoxError> {
        self.has_called().await?;
        self.phase.send_replace(Some(phase));
        Ok(())
    }

    /// Waits until a call of the present phase was made.
    async fn has_called(&mut self) -> Result<(), BoxError> {
        let phase = *self.phase.borrow();
        self.called.wait_for(|called| *called == phase).await?;
        Ok(())
    }

    /// Waits for the last answers, and says how the calls before, during and after went.
    pub(super) async fn stop(mut self) -> Result<[Calls; 3], BoxError> {
        self.has_called().await?;
        self.phase.send_replace(None);
        self.task.await?;
        let mut taken = lock(&self.taken);
        Ok(std::mem::take(&mut *taken).map(Taken::figures))
    }
}

fn lock(taken: &Mutex<[Taken; 3]>) -> MutexGuard<'_, [Taken; 3]> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn call(
    client: BenchClient,
    mut now: watch::Receiver<Option<Phase>>,
    last: watch::Sender<Option<Phase>>,
    taken: Arc<Mutex<[Taken; 3]>>,
) {
    let mut calls = JoinSet::new();
    let mut due = interval(CALL_INTERVAL);
    // A call counts from the time at which it should have been made.
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let start = tokio::select! {
            start = due.tick() => start,
            changed = now.changed() => match changed {
                Ok(()) if now.borrow().is_some() => continue,
                _ => break,
            },
        };
        let Some(phase) = *now.borrow() else { break };
        last.send_replace(Some(phase));
        while calls.try_join_next().is_some() {}
        if calls.len() >= CALLS_MAX {
            continue;
        }
        let (client, taken) = (client.clone(), Arc::clone(&taken));
        calls.spawn(async move {
            let result = echo(&client, &Bytes::from_static(BODY)).await;
            let time = start.elapsed();
            if let Some(taken) = lock(&taken).get_mut(phase as usize) {
                taken.count(result, time);
            }
        });
    }
    calls.join_all().await;
}

impl Taken {
    fn count(&mut self, result: Result<(), Status>, time: Duration) {
        match result {
            Ok(()) => self.times.push(time),
            Err(status) => {
                // As slow as can be, for the percentiles.
                self.times.push(time.max(CALL_TIMEOUT));
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| status.to_string());
            }
        }
    }

    fn figures(mut self) -> Calls {
        self.times.sort_unstable();
        let percentile = |percent: usize| {
            let last = self.times.len().saturating_sub(1);
            let time = self.times.get((last * percent).div_ceil(100));
            let micros = time.copied().unwrap_or_default().as_micros();
            u64::try_from(micros).unwrap_or(u64::MAX)
        };
        Calls {
            good: (self.times.len() as u64).saturating_sub(self.failed),
            failed: self.failed,
            p50_us: percentile(50),
            p99_us: percentile(99),
            max_us: percentile(100),
            first_failure: self.first_failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_all_calls_and_failed_ones_count_as_the_slowest() {
        let mut taken = Taken::default();
        for ms in (1..=99).rev() {
            taken.count(Ok(()), Duration::from_millis(ms));
        }
        taken.count(Err(Status::internal("no")), Duration::from_millis(1));
        let figures = taken.figures();
        assert_eq!((figures.good, figures.failed), (99, 1));
        assert_eq!((figures.p50_us, figures.p99_us), (51_000, 10_000_000));
        assert_eq!(figures.max_us, 10_000_000);
        assert!(figures.first_failure.unwrap().contains("no"));
        assert_eq!(Taken::default().figures(), Calls::default());
    }
}
