//! Alarms: a thread that wakes tasks at points in time, to about a tenth of a millisecond.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::Instant;

/// The alarms of the process.
static ALARMS: LazyLock<Alarms> = LazyLock::new(Alarms::default);

#[derive(Default)]
struct Alarms {
    queue: Mutex<Queue>,
    /// Tells the thread of an alarm that is earlier than all others.
    earlier: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Who to wake, by time; the number tells those of the same time apart.
    wakers: BTreeMap<(Instant, u64), Waker>,
    set: u64,
    /// The thread is there. It is started by the first alarm and stays.
    running: bool,
}

impl Alarms {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this thread follows the system's clock; the timers it serves look at tokio's"
    )]
    fn run(&self) {
        let mut due = Vec::new();
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            while let Some(first) = queue.wakers.first_entry()
                && first.key().0 <= now
            {
                due.push(first.remove());
            }
            if !due.is_empty() {
                drop(queue);
                for waker in due.drain(..) {
                    // A waker of the application's that panics is no reason to wake nobody else.
                    let _panic = catch_unwind(AssertUnwindSafe(|| waker.wake()));
                }
                queue = self.lock();
                continue;
            }
            let next = queue.wakers.first_key_value().map(|((at, _), _)| *at);
            queue = match next {
                Some(at) => {
                    let (queue, _) = self
                        .earlier
                        .wait_timeout(queue, at.saturating_duration_since(now))
                        .unwrap_or_else(PoisonError::into_inner);
                    queue
                }
                None => {
                    let queue = self.earlier.wait(queue);
                    queue.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// An alarm. Dropped, it does not ring.
#[derive(Debug)]
pub(super) struct Alarm {
    key: (Instant, u64),
}

impl Alarm {
    /// Wakes `waker` at `at`. `None` if the system has no thread for that.
    pub(super) fn set(at: Instant, waker: &Waker) -> Option<Self> {
        let waker = waker.clone();
        let mut queue = ALARMS.lock();
        if !queue.running {
            let thread = thread::Builder::new().name("homa-deadlines".into());
            thread.spawn(|| ALARMS.run()).ok()?;
            queue.running = true;
        }
        queue.set += 1;
        let key = (at, queue.set);
        queue.wakers.insert(key, waker);
        let first = queue.wakers.first_key_value();
        let is_first = first.is_some_and(|(first, _)| *first == key);
        drop(queue);
        if is_first {
            ALARMS.earlier.notify_one();
        }
        Some(Self { key })
    }

    /// Wakes `waker` instead of the one before. False if the alarm has rung.
    pub(super) fn renew(&self, waker: &Waker) -> bool {
        let mut queue = ALARMS.lock();
        let Some(known) = queue.wakers.get_mut(&self.key) else {
            return false;
        };
        if known.will_wake(waker) {
            return true;
        }
        let old = std::mem::replace(known, waker.clone());
        drop(queue);
        // Dropping it may run code of a runtime.
        drop(old);
        true
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let waker = ALARMS.lock().wakers.remove(&self.key);
        drop(waker);
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "alarms follow the system's clock"
)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    struct Count {
        rung: AtomicUsize,
        waiting: thread::Thread,
    }

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.rung.fetch_add(1, Ordering::SeqCst);
            self.waiting.unpark();
        }
    }

    #[test]
    fn alarms_ring_once_in_any_order_of_setting_and_not_when_dropped() {
        let count = Arc::new(Count {
            rung: AtomicUsize::new(0),
            waiting: thread::current(),
        });
        let waker = Waker::from(Arc::clone(&count));
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let kept: Vec<_> = [5, 1, 3]
            .map(|millis| Alarm::set(at(millis), &waker).unwrap())
            .into();
        drop(Alarm::set(at(2), &waker).unwrap());
        while count.rung.load(Ordering::SeqCst) < 3 {
            thread::park();
        }
        assert!(Instant::now() >= at(5));
        assert!(kept.iter().all(|alarm| !alarm.renew(&waker)));
        let later = Alarm::set(at(3_600_000), &waker).unwrap();
        assert!(later.renew(&waker));
        drop(later);
        assert_eq!(count.rung.load(Ordering::SeqCst), 3);
    }
}
