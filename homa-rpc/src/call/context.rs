//! The context of the call that runs: calls made inside a handler inherit its deadline.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use tokio::time::Instant;

use crate::message::method::CallInfo;
use crate::message::status::Status;

thread_local! {
    static CURRENT: Cell<CallContext> = const { Cell::new(CallContext { info: CallInfo::NONE }) };
    static ENDED_BY: Cell<Option<DropReason>> = const { Cell::new(None) };
}

/// Why a handler is dropped before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// The client has given the call up.
    Cancelled,
    /// The deadline has passed.
    Deadline,
    /// It has panicked.
    Panic,
    /// The server was stopped.
    Shutdown,
}

impl DropReason {
    /// How such a call ends.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Cancelled => Status::cancelled("the call was given up"),
            Self::Deadline => {
                Status::deadline_exceeded("the deadline passed before the call was over")
            }
            Self::Panic => Status::unknown("the handler panicked"),
            Self::Shutdown => Status::unavailable("the server shut down before the call was over"),
        }
    }

    /// While what is dropped because of this is dropped: the cause, as far as it is known.
    pub(crate) fn current() -> Option<Self> {
        if std::thread::panicking() {
            return Some(Self::Panic);
        }
        ENDED_BY.try_with(Cell::get).unwrap_or_default()
    }

    /// Runs `drop_it`, in which [`current`](Self::current) is `cause`.
    pub(crate) fn scope<T>(cause: Option<Self>, drop_it: impl FnOnce() -> T) -> T {
        struct Restore(Option<Option<DropReason>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                if let Some(outer) = self.0 {
                    let _ended = ENDED_BY.try_with(|cause| cause.set(outer));
                }
            }
        }
        let _restore = Restore(ENDED_BY.try_with(|current| current.replace(cause)).ok());
        drop_it()
    }
}

/// What a call passes on to those that its handler makes.
///
/// Calls that a handler makes itself inherit its deadline, whatever timeout they have of their own:
/// the earlier one counts. A task that it spawns does not, unless its future is put into the scope of
/// the handler's context:
///
/// ```
/// # async fn handler(client_call: impl Future<Output = ()> + Send + 'static) {
/// tokio::spawn(homa_rpc::CallContext::current().scope(client_call));
/// # }
/// ```
///
/// That a call is given up reaches the calls it has made because their futures are dropped with the
/// handler's, so it does not reach tasks that it has spawned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallContext {
    info: CallInfo,
}

impl CallContext {
    pub(crate) const fn new(deadline: Option<Instant>) -> Self {
        let none = CallInfo::NONE;
        Self {
            info: CallInfo { deadline, ..none },
        }
    }

    /// The context in which this call is made or served.
    pub(crate) const fn of(info: CallInfo) -> Self {
        Self { info }
    }

    /// What is known of the call, for bodies of other types, which don't carry it.
    pub(crate) const fn info(&self) -> CallInfo {
        self.info
    }

    /// The context of the handler that polls this, or an empty one outside of calls. For layers of a
    /// client that of the call they are part of.
    #[must_use]
    pub fn current() -> Self {
        // None is left while a thread ends.
        CURRENT.try_with(Cell::get).unwrap_or_default()
    }

    /// When the caller of the handler stops waiting.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.info.deadline
    }

    /// Runs `future` in this context.
    pub const fn scope<F: Future>(self, future: F) -> Scope<F> {
        Scope {
            context: self,
            future,
        }
    }
}

/// Runs `future`, inside a handler, as if it were outside: calls that it makes inherit no deadline.
pub const fn detached<F: Future>(future: F) -> Scope<F> {
    CallContext::new(None).scope(future)
}

pin_project_lite::pin_project! {
    /// A future in a [`CallContext`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        context: CallContext,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _outer = Entered(
            CURRENT
                .try_with(|current| current.replace(*this.context))
                .ok(),
        );
        this.future.poll(cx)
    }
}

/// Brings the context of before back, also after a panic.
struct Entered(Option<CallContext>);

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(outer) = self.0 {
            let _ended = CURRENT.try_with(|current| current.set(outer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn contexts_nest_survive_awaits_and_end() {
        let deadline = Instant::now() + Duration::from_secs(1);
        let context = CallContext::new(Some(deadline));
        context
            .scope(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert_eq!(CallContext::current(), context);
                detached(async { assert_eq!(CallContext::current().deadline(), None) }).await;
                assert_eq!(CallContext::current(), context);
                tokio::spawn(async { assert_eq!(CallContext::current(), CallContext::default()) })
                    .await
                    .unwrap();
                tokio::spawn(CallContext::current().scope(async move {
                    assert_eq!(CallContext::current().deadline(), Some(deadline));
                }))
                .await
                .unwrap();
            })
            .await;
        assert_eq!(CallContext::current(), CallContext::default());
    }

    #[tokio::test]
    async fn a_panic_leaves_no_context_behind() {
        let context = CallContext::new(Some(Instant::now()));
        let scope = std::panic::AssertUnwindSafe(|| {
            let mut scope = std::pin::pin!(context.scope(async { panic!("on purpose") }));
            let mut cx = TaskContext::from_waker(std::task::Waker::noop());
            let _: Poll<()> = scope.as_mut().poll(&mut cx);
        });
        std::panic::catch_unwind(scope).unwrap_err();
        assert_eq!(CallContext::current(), CallContext::default());
    }
}
