//! The task that moves packets on at their times.

use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, Waker};

use tokio::time::Sleep;

use super::Shared;

/// Moves packets on at their times.
pub(super) struct Driver {
    pub(super) shared: Weak<Shared>,
    pub(super) sleep: Pin<Box<Sleep>>,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(shared) = self.shared.upgrade() else {
                return Poll::Ready(());
            };
            let mut state = shared.lock();
            let wakers = state.run(shared.clock.now());
            let next = state.next_at();
            state.armed_until = next;
            let old = state.driver.replace(cx.waker().clone());
            drop(state);
            drop(old);
            wakers.into_iter().for_each(Waker::wake);
            let Some(next) = next else {
                return Poll::Pending;
            };
            let deadline = shared.clock.deadline(next);
            drop(shared);
            self.sleep.as_mut().reset(deadline);
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Driver {
    /// Runs last, or when the runtime is shut down.
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut state = shared.lock();
        state.stopped = true;
        let receivers = state.inboxes.values_mut();
        let mut wakers: Vec<Waker> = receivers
            .filter_map(|inbox| inbox.receiver.take())
            .collect();
        wakers.extend(std::mem::take(&mut state.writers).into_values());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}
