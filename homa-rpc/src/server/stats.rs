//! Counters of a server.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[doc = $help:literal])+ $name:ident,)+) => {
        /// Counters since a server was made. Never reset; read by copy.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ServerStats {
            $($(#[doc = $help])+ pub $name: u64,)+
        }

        /// The counters while they count.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)+
        }

        impl Counters {
            pub(super) fn read(&self) -> ServerStats {
                ServerStats {
                    $($name: self.$name.read(),)+
                }
            }
        }
    };
}

stats! {
    /// Tasks spawned to run the handler of a call. At most one for each call.
    handlers_spawned,
    /// Calls that were over with the first poll of their handler, which needed no task
    /// ([`add_inline_service`](super::ServerBuilder::add_inline_service)).
    handlers_inline,
    /// Calls turned away before dispatch: over a limit, expired or cancelled when they came,
    /// malformed, or during shutdown.
    calls_refused,
    /// Calls whose handler was dropped because the client gave them up.
    calls_cancelled,
    /// Calls ended because their client broke the rules of streams, or stopped in the middle of a message.
    calls_broken,
    /// Frames behind the first one of a call that were malformed, or for a call that is not known.
    frames_refused,
    /// Calls whose deadline passed while their handler ran.
    calls_expired,
    /// Calls ended because the server was stopped.
    calls_stopped,
    /// Calls whose handler panicked.
    handlers_panicked,
    /// Calls in progress: a level, not a count.
    calls_in_progress,
}

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
