//! What a server turned away goes to the log, once a second while that lasts.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::message::status::Status;

/// Time over which refusals are counted together.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why a call did not come to its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// `concurrency_limit`.
    Calls,
    /// `request_bytes_limit`.
    Bytes,
    /// `concurrency_limit_per_peer`.
    CallsOfPeer,
    /// `method_concurrency_limit`.
    CallsOfMethod,
    /// A layer that sheds load.
    Shed,
    /// The deadline had passed when the call came to its turn.
    Expired,
    /// The frame was no call.
    Malformed,
    /// The client had cancelled the call, or the server shuts down: no sign of overload.
    Usual,
}

/// Reasons that are told, by the name in the log, each with the number in one interval from which on it
/// is unusual.
const TOLD: [(Reason, &str, u64); 7] = [
    (Reason::Calls, "concurrency_limit", 1),
    (Reason::Bytes, "request_bytes_limit", 1),
    (Reason::CallsOfPeer, "concurrency_limit_per_peer", 1),
    (Reason::CallsOfMethod, "method_concurrency_limit", 1),
    (Reason::Shed, "load_shed", 1),
    // A client with a short deadline does that too.
    (Reason::Expired, "expired_before_dispatch", 10),
    (Reason::Malformed, "malformed_frames", 1),
];

/// A call that is turned away: the answer, and what it counts as.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) status: Status,
}

impl Refusal {
    pub(super) const fn new(reason: Reason, status: Status) -> Self {
        Self { reason, status }
    }
}

/// Calls turned away that the log has not told of yet.
#[derive(Debug, Default)]
pub(super) struct Overload {
    counts: [AtomicU64; TOLD.len()],
    noted: Notify,
}

impl Overload {
    /// Counts a call that was turned away.
    pub(super) fn note(&self, reason: Reason) {
        let mut counts = TOLD.iter().zip(&self.counts);
        if let Some((_, count)) = counts.find(|((told, ..), _)| *told == reason) {
            count.fetch_add(1, Ordering::Relaxed);
            self.noted.notify_one();
        }
    }

    /// Counts a call whose layers failed with `error`, if that means that they shed load.
    pub(super) fn note_failure(&self, error: &(dyn Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<tower::load_shed::error::Overloaded>() {
                return self.note(Reason::Shed);
            }
            next = error.source();
        }
    }

    /// Writes to the log until it is dropped. Sleeps while nothing is turned away.
    pub(super) async fn tell(&self) {
        let log = |counts| {
            tracing::warn!("overload or attack: calls refused in the last second: {counts}");
        };
        self.tell_to(log).await;
    }

    async fn tell_to(&self, mut log: impl FnMut(String)) {
        loop {
            self.noted.notified().await;
            sleep(INTERVAL).await;
            let counts = self.take();
            if !counts.is_empty() {
                log(counts);
            }
        }
    }

    /// What was counted since the last time, as far as it is unusual.
    fn take(&self) -> String {
        let mut text = String::new();
        for ((_, name, unusual), count) in TOLD.iter().zip(&self.counts) {
            let count = count.swap(0, Ordering::Relaxed);
            if count >= *unusual {
                let separator = if text.is_empty() { "" } else { ", " };
                let _infallible = write!(text, "{separator}{name} {count}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_are_told_once_a_second_with_their_number_and_silence_is_not() {
        let overload = Arc::new(Overload::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = tokio::spawn({
            let (overload, told) = (Arc::clone(&overload), Arc::clone(&told));
            async move {
                overload
                    .tell_to(|text| told.lock().unwrap().push(text))
                    .await
            }
        });
        for _ in 0..300 {
            overload.note(Reason::Calls);
            sleep(INTERVAL / 100).await;
        }
        overload.note(Reason::Bytes);
        sleep(INTERVAL * 10).await;
        let told = std::mem::take(&mut *told.lock().unwrap());
        assert!((3..=4).contains(&told.len()), "{told:?}");
        let calls = told.iter().map(|text| {
            let first = text.split(", ").next().unwrap();
            let count = first.strip_prefix("concurrency_limit ").unwrap();
            count.parse::<u32>().unwrap()
        });
        assert_eq!(calls.sum::<u32>(), 300);
        assert!(told.last().unwrap().ends_with("request_bytes_limit 1"));
        telling.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_to_healthy_clients_too_is_not_told() {
        let overload = Overload::default();
        overload.note(Reason::Usual);
        overload.note(Reason::Expired);
        let error = std::io::Error::other("of a handler");
        overload.note_failure(&error);
        assert_eq!(overload.take(), "");
        for _ in 0..10 {
            overload.note(Reason::Expired);
        }
        overload.note_failure(&tower::load_shed::error::Overloaded::new());
        assert_eq!(overload.take(), "load_shed 1, expired_before_dispatch 10");
        assert_eq!(overload.take(), "");
    }
}
