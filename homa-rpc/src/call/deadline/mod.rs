//! Deadlines: the earliest of several, enforced around a future, and what is behind that: a timer finer
//! than tokio's ([`Timer`]), the header `grpc-timeout`.

mod alarm;
mod header;
mod timer;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use homa_transport::Delivery;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::message::not_sent;
use crate::message::status::{Code, Status};
use crate::net::ChannelError;

pub(crate) use header::parse_grpc_timeout;
pub(crate) use timer::Timer;

/// Runs `future` until `deadline` at most, with the time as tokio sees it.
///
/// A passed deadline wins over whatever the future yields, except over its own word that the
/// deadline passed, which may say more. The future is polled before the clock is looked at, so
/// that it has the chance to say so. It is passed pinned, since by value it would be stored twice.
pub(crate) async fn enforce<T>(
    deadline: Option<Instant>,
    mut future: Pin<&mut impl Future<Output = Result<T, Status>>>,
    expired: impl Fn() -> Status,
) -> Result<T, Status> {
    let Some(deadline) = deadline else {
        return future.await;
    };
    if has_passed(Some(deadline)) {
        return Err(expired().with_delivery(Delivery::NotSent));
    }
    let mut timer = pin!(timer(deadline)?);
    poll_fn(|cx| {
        if let Poll::Ready(result) = future.as_mut().poll(cx) {
            return Poll::Ready(match result {
                Err(status) if status.code() == Code::DeadlineExceeded => Err(status),
                _ if has_passed(Some(deadline)) => Err(expired()),
                result => result,
            });
        }
        timer.as_mut().poll(cx).map(|()| Err(expired()))
    })
    .await
}

/// The point `timeout` from now; `None`, which means no deadline, if that is beyond all time.
pub(crate) fn after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// The earliest of these deadlines; `None`, no deadline, if there is none among them.
pub(crate) fn earliest<const N: usize>(deadlines: [Option<Instant>; N]) -> Option<Instant> {
    deadlines.into_iter().flatten().min()
}

/// True once `deadline` is reached.
pub(crate) fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// A timer of the current runtime.
pub(crate) fn timer(deadline: Instant) -> Result<Timer, Status> {
    // Without a runtime the timer would panic.
    if Handle::try_current().is_err() {
        return Err(not_sent(Code::Unavailable, ChannelError::NoRuntime));
    }
    Ok(Timer::new(deadline))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn expired() -> Status {
        Status::deadline_exceeded("generic")
    }

    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_wins_over_any_other_outcome() {
        let deadline = Some(Instant::now() + Duration::from_millis(5));
        let late = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(1)
        };
        let status = enforce(deadline, pin!(late), expired).await.unwrap_err();
        assert_eq!(status.message(), "generic");
        let deadline = Some(Instant::now() + Duration::from_millis(5));
        let never = pending::<Result<(), Status>>();
        assert!(enforce(deadline, pin!(never), expired).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_deadline_the_outcome_passes_and_a_more_exact_word_is_kept() {
        let deadline = Some(Instant::now() + Duration::from_millis(5));
        assert_eq!(
            enforce(deadline, pin!(ready(Ok(1))), expired)
                .await
                .unwrap(),
            1
        );
        let exact = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Err::<(), _>(Status::deadline_exceeded("exact"))
        };
        let status = enforce(deadline, pin!(exact), expired).await.unwrap_err();
        assert_eq!(status.message(), "exact");
    }

    #[tokio::test]
    async fn work_whose_deadline_has_passed_is_not_begun() {
        let begun = async { panic!("begun") };
        let result: Result<(), Status> = enforce(Some(Instant::now()), pin!(begun), expired).await;
        assert_eq!(result.unwrap_err().delivery(), Delivery::NotSent);
    }
}
