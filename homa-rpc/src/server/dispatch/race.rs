//! A handler against everything that can end its call before it is done.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::super::admission::CallLimiter;
use super::super::cancel::Cancellable;
use crate::call::context::DropReason;
use crate::call::deadline::{self, Timer};
use crate::message::status::Status;

/// How a dispatched call ended.
pub(super) enum Outcome<T> {
    Done(T),
    /// The handler is not wanted any more; the status says more, if there is more to say.
    BrokenOff(DropReason, Option<Status>),
}

impl<T> Outcome<T> {
    pub(super) const fn cause(&self) -> Option<DropReason> {
        match self {
            Self::Done(_) => None,
            Self::BrokenOff(why, _) => Some(*why),
        }
    }
}

/// Runs the handler until it is done or not wanted any more. `gone` is ready when the client does not want it,
/// with a status if that is to be told to it.
pub(super) async fn race<T>(
    mut handler: Pin<&mut Option<impl Future<Output = T>>>,
    limiter: &CallLimiter,
    deadline: Option<Instant>,
    mut cancellable: Option<Cancellable>,
    mut gone: impl FnMut(&mut Context<'_>) -> Poll<Option<Status>>,
) -> Outcome<T> {
    let mut stopping = pin!(limiter.stopping());
    let mut timer = pin!(deadline.map(Timer::new));
    let broken_off = |why| Poll::Ready(Outcome::BrokenOff(why, None));
    poll_fn(|cx| {
        // The handler first: one that is done at once costs nothing more.
        let Some(running) = handler.as_mut().as_pin_mut() else {
            return broken_off(DropReason::Shutdown);
        };
        match catch_unwind(AssertUnwindSafe(|| running.poll(cx))) {
            // A passed deadline wins.
            Ok(Poll::Ready(_)) if deadline::has_passed(deadline) => {
                return broken_off(DropReason::Deadline);
            }
            Ok(Poll::Ready(done)) => return Poll::Ready(Outcome::Done(done)),
            Ok(Poll::Pending) => {}
            Err(_panic) => return broken_off(DropReason::Panic),
        }
        if let Some(timer) = timer.as_mut().as_pin_mut()
            && timer.poll(cx).is_ready()
        {
            return broken_off(DropReason::Deadline);
        }
        if let Poll::Ready(status) = gone(cx) {
            return Poll::Ready(Outcome::BrokenOff(DropReason::Cancelled, status));
        }
        if let Some(cancellable) = &mut cancellable
            && pin!(&mut cancellable.cancelled).poll(cx).is_ready()
        {
            return broken_off(DropReason::Cancelled);
        }
        if limiter.is_stopped() || stopping.as_mut().poll(cx).is_ready() {
            return broken_off(DropReason::Shutdown);
        }
        Poll::Pending
    })
    .await
}
