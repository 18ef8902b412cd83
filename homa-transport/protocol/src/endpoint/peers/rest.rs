//! RPCs at rest with a peer, and what is known of the peer that lets them rest. The rules: `timers/rest.rs`.

use std::time::Duration;

use crate::endpoint::RpcKey;
use crate::list::List;
use crate::units::Instant;

/// An unanswered question about a call at rest is followed by one about another call after this part of the
/// time between two answered ones.
const AGAIN_PARTS: u32 = 4;
/// Time between questions about requests at rest whose client has another token since.
const RENEWAL_PAUSE: Duration = Duration::from_millis(5);

/// The RPCs at rest with one peer.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// Calls of ours, the one that asks next first.
    pub(in crate::endpoint) calls: List<RpcKey>,
    pub(in crate::endpoint) calls_count: usize,
    /// Requests of the peer; the first is looked after for all of them.
    pub(in crate::endpoint) requests: List<RpcKey>,
    /// When the peer last answered something of ours.
    confirmed: Instant,
    /// When a call at rest last asked.
    asked: Instant,
    /// When the peer's token last changed.
    pub(in crate::endpoint) renewed: Instant,
    /// When a request was last asked about for a reason of its own.
    renewal_asked: Instant,
}

impl Rest {
    /// When the next call at rest is to ask. `interval`: the time between two questions that are answered.
    pub(in crate::endpoint) fn next_question(&self, interval: Duration) -> Instant {
        let next = self.confirmed + interval;
        if self.confirmed >= self.asked {
            return next;
        }
        next.max(self.asked + interval / AGAIN_PARTS)
    }

    /// A call at rest asks now.
    pub(in crate::endpoint) const fn on_question(&mut self, now: Instant) {
        self.asked = now;
    }

    /// The peer has answered something. Returns for how long it had not.
    pub(in crate::endpoint) fn on_answer(&mut self, now: Instant) -> Duration {
        let before = std::mem::replace(&mut self.confirmed, now);
        now.saturating_since(before)
    }

    /// Up to when the calls at rest were known to be in good hands.
    pub(in crate::endpoint) const fn confirmed(&self) -> Instant {
        self.confirmed
    }

    /// Whether one more request may be asked about for a reason of its own, and counts it if so. If not, the
    /// error is when to try again.
    pub(in crate::endpoint) fn ask_renewal(&mut self, now: Instant) -> Result<(), Instant> {
        let next = self.renewal_asked + RENEWAL_PAUSE;
        if now < next {
            return Err(next);
        }
        self.renewal_asked = now;
        Ok(())
    }
}
