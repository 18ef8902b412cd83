//! Who may come in: bounds the calls in progress and closes for shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::overload::{Reason, Refusal};
use crate::message::status::Status;

/// Requests up to this length, in bytes, are bounded by their number alone.
const SHORT_MAX: usize = 4096;

/// Highest bit of the state: no more calls.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Counts the calls in progress and the bytes of their requests.
#[derive(Debug)]
pub(super) struct CallLimiter {
    /// Calls in progress, and [`CLOSED`].
    state: AtomicUsize,
    /// Those of them that are not about to be answered: a client that has its reply may call again
    /// at once, so they must not count any more then.
    running: AtomicUsize,
    limit: usize,
    /// Of the longer requests of these.
    bytes: AtomicUsize,
    bytes_limit: usize,
    idle: Notify,
    stopped: AtomicBool,
    stop: Notify,
}

impl CallLimiter {
    pub(super) fn new(limit: usize, bytes_limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            limit,
            bytes: AtomicUsize::new(0),
            bytes_limit,
            idle: Notify::new(),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
        })
    }

    /// Admits one call with a request of `len` bytes, or says why not.
    pub(super) fn enter(self: &Arc<Self>, len: usize) -> Result<CallPermit, Refusal> {
        let before = self.state.fetch_add(1, Ordering::AcqRel);
        let running = self.running.fetch_add(1, Ordering::AcqRel);
        let mut permit = CallPermit {
            limiter: Arc::clone(self),
            runs: true,
            bytes: 0,
        };
        if before & CLOSED != 0 {
            let status = Status::unavailable("the server is shutting down");
            return Err(Refusal::new(Reason::Usual, status));
        }
        if running >= self.limit {
            let status = Status::resource_exhausted(format!(
                "{} calls are in progress, the limit of this server (`concurrency_limit`)",
                self.limit
            ));
            return Err(Refusal::new(Reason::Calls, status));
        }
        if len > SHORT_MAX {
            let held = self.bytes.fetch_add(len, Ordering::AcqRel);
            permit.bytes = len;
            if held.saturating_add(len) > self.bytes_limit {
                let status = Status::resource_exhausted(format!(
                    "a request of {len} bytes beside {held} bytes of requests in progress is over \
                     the limit of {} bytes of this server (`request_bytes_limit`)",
                    self.bytes_limit
                ));
                return Err(Refusal::new(Reason::Bytes, status));
            }
        }
        Ok(permit)
    }

    /// Calls in progress.
    pub(super) fn in_progress(&self) -> usize {
        self.state.load(Ordering::Acquire) & !CLOSED
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Waits until no call is in progress; only after [`close`](Self::close).
    pub(super) async fn idle(&self) {
        loop {
            let left = self.idle.notified();
            if self.in_progress() == 0 {
                return;
            }
            left.await;
        }
    }

    /// Ends all calls in progress.
    pub(super) fn stop(&self) {
        self.close();
        self.stopped.store(true, Ordering::Release);
        self.stop.notify_waiters();
    }

    /// Ready once [`stop`](Self::stop) is called, if that is after this call of `stopping`.
    pub(super) fn stopping(&self) -> Notified<'_> {
        self.stop.notified()
    }

    /// True once [`stop`](Self::stop) has been called.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// One call in progress.
#[derive(Debug)]
pub(super) struct CallPermit {
    limiter: Arc<CallLimiter>,
    /// Counts against the limit.
    runs: bool,
    /// What of the request counts against the limit of bytes.
    bytes: usize,
}

impl CallPermit {
    /// Makes room for another call: this one is about to be answered.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.runs) {
            self.limiter.running.fetch_sub(1, Ordering::AcqRel);
        }
        if self.bytes > 0 {
            let bytes = std::mem::take(&mut self.bytes);
            self.limiter.bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.release();
        let before = self.limiter.state.fetch_sub(1, Ordering::AcqRel);
        if before == CLOSED + 1 {
            self.limiter.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::status::Code;

    #[test]
    fn the_limit_holds_at_its_edge() {
        let limiter = CallLimiter::new(2, 0);
        let first = limiter.enter(1).unwrap();
        let _second = limiter.enter(1).unwrap();
        let status = limiter.enter(1).unwrap_err().status;
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(limiter.in_progress(), 2);
        drop(first);
        assert!(limiter.enter(1).is_ok());
    }

    #[test]
    fn a_call_that_is_about_to_be_answered_makes_room_and_is_in_progress_still() {
        let limiter = CallLimiter::new(1, 0);
        let mut first = limiter.enter(1).unwrap();
        first.release();
        first.release();
        let second = limiter.enter(1).unwrap();
        assert!(limiter.enter(1).is_err());
        assert_eq!(limiter.in_progress(), 2);
        drop((first, second));
        assert_eq!(limiter.in_progress(), 0);
        assert!(limiter.enter(1).is_ok());
    }

    #[test]
    fn bytes_are_limited_at_their_edge_and_short_requests_do_not_count() {
        let limiter = CallLimiter::new(100, 10_000);
        let first = limiter.enter(5_000).unwrap();
        let mut second = limiter.enter(5_000).unwrap();
        let status = limiter.enter(SHORT_MAX + 1).unwrap_err().status;
        assert_eq!(status.code(), Code::ResourceExhausted);
        for named in ["4097", "10000", "request_bytes_limit"] {
            assert!(status.message().contains(named), "{status}");
        }
        let short = limiter.enter(SHORT_MAX).unwrap();
        second.release();
        let third = limiter.enter(5_000).unwrap();
        assert!(limiter.enter(5_001).is_err());
        drop((first, second, third, short));
        assert!(limiter.enter(10_001).is_err());
        assert!(limiter.enter(10_000).is_ok());
        assert_eq!(limiter.bytes.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn a_closed_gate_refuses_and_becomes_idle_when_the_last_has_left() {
        let limiter = CallLimiter::new(10, 0);
        let permit = limiter.enter(1).unwrap();
        limiter.close();
        let status = limiter.enter(1).unwrap_err().status;
        assert_eq!(status.code(), Code::Unavailable);
        let waiting = tokio::spawn({
            let limiter = Arc::clone(&limiter);
            async move { limiter.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(permit);
        waiting.await.unwrap();
    }
}
