//! What endpoints that work side by side share of their host's link.
//!
//! How much may be on its way to a host, and when its uplink is idle, does not depend on how many
//! endpoints it has. Each is guaranteed half of its even share, so that it never waits for the others
//! alone; the other half goes to whoever asks first. Who got less than it wanted asks again after
//! [`TICK`], since nobody tells it when others give back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::units::Instant;

/// When an endpoint looks again that got less than it wanted.
pub(in crate::endpoint) const TICK: Duration = Duration::from_millis(1);

/// What one message gets at a time beyond the ceiling: this part of what is left up to twice the ceiling.
/// So there is always something for the next one.
const BEYOND_DIVISOR: u64 = 4;

/// The quantities of a host that several endpoints share, see
/// [`Endpoint::share_link`](crate::endpoint::Endpoint::share_link). The endpoints must use one clock.
#[derive(Debug)]
pub struct LinkBudget {
    endpoints: u32,
    /// Bytes that each endpoint may have granted and not received in any case.
    guaranteed: u64,
    /// Bytes beyond those, for all endpoints together.
    pool: u64,
    /// Bytes of the pool in use.
    taken: AtomicU64,
    /// When the uplink will have sent all that it was given, in nanoseconds of the endpoints' clock.
    link_idle: AtomicU64,
}

impl LinkBudget {
    /// A budget for `endpoints` (at least one) that may have `max_incoming_bytes` granted and not
    /// received in all.
    #[must_use]
    pub fn new(endpoints: u32, max_incoming_bytes: u32) -> Self {
        let endpoints = endpoints.max(1);
        let (count, max) = (u64::from(endpoints), u64::from(max_incoming_bytes));
        let guaranteed = max / (2 * count);
        Self {
            endpoints,
            guaranteed,
            pool: max - guaranteed * count,
            taken: AtomicU64::new(0),
            link_idle: AtomicU64::new(0),
        }
    }

    /// Takes as much of the pool as is there, up to `wanted`; nothing if that is less than `least`.
    /// `beyond`: of what lies beyond it instead.
    fn take(&self, wanted: u64, least: u64, beyond: bool) -> u64 {
        let room = |taken| {
            if beyond {
                let all = self.pool + self.guaranteed * u64::from(self.endpoints);
                (self.pool + all).saturating_sub(taken) / BEYOND_DIVISOR
            } else {
                self.pool.saturating_sub(taken)
            }
        };
        let mut got = 0;
        let _nothing = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                got = wanted.min(room(taken));
                if got < least {
                    got = 0;
                }
                (got > 0).then(|| taken + got)
            });
        got
    }

    /// Extends the time for which the uplink is busy.
    fn occupy(&self, now: Instant, time: Duration) {
        let busy = |idle| Some((Instant::from_nanos(idle).max(now) + time).as_nanos());
        let _idle = self
            .link_idle
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, busy);
    }
}

/// Bytes granted and not received, over all messages of an endpoint that need grants.
#[derive(Debug)]
pub(in crate::endpoint) struct Incoming {
    bytes: u64,
    max: u64,
    /// What lies beyond its guarantee is taken from its pool.
    shared: Option<Arc<LinkBudget>>,
}

impl Incoming {
    pub(in crate::endpoint) const fn new(max: u64) -> Self {
        Self {
            bytes: 0,
            max,
            shared: None,
        }
    }

    /// To be called before there are any bytes.
    pub(in crate::endpoint) fn share(&mut self, budget: Arc<LinkBudget>) {
        self.shared = Some(budget);
    }

    pub(in crate::endpoint) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds up to `wanted` bytes, as many as the ceiling allows; none if that is less than `least`, or less
    /// than is guaranteed. Returns how many.
    pub(in crate::endpoint) fn reserve(&mut self, wanted: u64, least: u64) -> u64 {
        let room = self.max.saturating_sub(self.bytes);
        self.add_within(room, wanted, least, false)
    }

    /// The same beyond the ceiling: a part of what is left up to twice the ceiling.
    pub(in crate::endpoint) fn reserve_beyond(&mut self, wanted: u64, least: u64) -> u64 {
        let room = (2 * self.max).saturating_sub(self.bytes) / BEYOND_DIVISOR;
        self.add_within(room, wanted, least, true)
    }

    fn add_within(&mut self, room: u64, wanted: u64, least: u64, beyond: bool) -> u64 {
        let (got, least) = match &self.shared {
            None => (wanted.min(room), least),
            Some(budget) => {
                let least = least.min(budget.guaranteed);
                let own = wanted.min(budget.guaranteed.saturating_sub(self.bytes));
                let taken = budget.take(wanted - own, least.saturating_sub(own), beyond);
                (own + taken, least)
            }
        };
        if got < least {
            return 0;
        }
        self.bytes += got;
        got
    }

    /// Adds bytes regardless of the ceiling.
    pub(in crate::endpoint) fn add(&mut self, bytes: u64) {
        if let Some(budget) = &self.shared {
            let more = over(budget, self.bytes + bytes) - over(budget, self.bytes);
            budget.taken.fetch_add(more, Ordering::Relaxed);
        }
        self.bytes += bytes;
    }

    /// Takes away bytes that were added.
    pub(in crate::endpoint) fn remove(&mut self, bytes: u64) {
        if let Some(budget) = &self.shared {
            let less = over(budget, self.bytes) - over(budget, self.bytes - bytes);
            budget.taken.fetch_sub(less, Ordering::Relaxed);
        }
        self.bytes -= bytes;
    }

    /// True if more may come free although nothing changes at this endpoint.
    pub(in crate::endpoint) const fn is_shared(&self) -> bool {
        self.shared.is_some()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.remove(self.bytes);
    }
}

/// How much of the pool an endpoint with so many bytes uses.
const fn over(budget: &LinkBudget, bytes: u64) -> u64 {
    bytes.saturating_sub(budget.guaranteed)
}

/// When the uplink will be idle, as far as one endpoint has to wait for that.
#[derive(Debug)]
pub(in crate::endpoint) struct Uplink {
    /// When what this endpoint was given will have been sent. Shared: at the speed it is guaranteed.
    idle: Instant,
    shared: Option<Arc<LinkBudget>>,
}

impl Uplink {
    pub(in crate::endpoint) const fn new() -> Self {
        Self {
            idle: Instant::ZERO,
            shared: None,
        }
    }

    pub(in crate::endpoint) fn share(&mut self, budget: Arc<LinkBudget>) {
        self.shared = Some(budget);
    }

    /// When this endpoint may take the uplink for idle.
    pub(in crate::endpoint) fn idle(&self) -> Instant {
        match &self.shared {
            None => self.idle,
            Some(budget) => {
                let all = Instant::from_nanos(budget.link_idle.load(Ordering::Relaxed));
                all.min(self.idle)
            }
        }
    }

    /// A packet that takes `time` to be sent has been handed over.
    pub(in crate::endpoint) fn occupy(&mut self, now: Instant, time: Duration) {
        let own = match &self.shared {
            None => time,
            Some(budget) => {
                budget.occupy(now, time);
                time.saturating_mul(2 * budget.endpoints)
            }
        };
        self.idle = self.idle.max(now) + own;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(max: u32) -> (Arc<LinkBudget>, [Incoming; 2]) {
        let budget = Arc::new(LinkBudget::new(2, max));
        let shares = [0, 1].map(|_| {
            let mut incoming = Incoming::new(u64::from(max));
            incoming.share(Arc::clone(&budget));
            incoming
        });
        (budget, shares)
    }

    #[test]
    fn one_takes_all_but_what_is_guaranteed_to_the_other() {
        let (_, [mut greedy, mut late]) = pair(400_000);
        assert_eq!(greedy.reserve(1_000_000, 1), 300_000);
        assert_eq!(greedy.reserve(1_000_000, 1), 0);
        assert_eq!(late.reserve(1_000_000, 1), 100_000);
        assert_eq!(late.reserve(1, 1), 0);
    }

    #[test]
    fn what_is_received_or_gone_can_be_had_by_the_other() {
        let (budget, [mut one, mut other]) = pair(400_000);
        assert_eq!(one.reserve(300_000, 1), 300_000);
        one.remove(50_000);
        assert_eq!(other.reserve(400_000, 1), 150_000);
        drop(one);
        assert_eq!(
            other.reserve(400_000, 1),
            150_000,
            "the guarantee stays the other's"
        );
        drop(other);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_step_larger_than_the_guarantee_does_not_starve() {
        let (_, [mut greedy, mut late]) = pair(80_000);
        assert_eq!(greedy.reserve(60_000, 1), 60_000);
        assert_eq!(late.reserve(70_000, 62_000), 20_000);
        assert_eq!(late.reserve(50_000, 62_000), 0);
    }

    #[test]
    fn beyond_the_ceiling_each_gets_a_quarter_of_what_is_left_up_to_twice_it() {
        let mut incoming = Incoming::new(400_000);
        assert_eq!(incoming.reserve(400_000, 1), 400_000);
        assert_eq!(incoming.reserve_beyond(60_000, 1), 60_000);
        assert_eq!(incoming.reserve_beyond(100_000, 1), 85_000);
        assert_eq!(incoming.reserve_beyond(100_000, 63_751), 0);
        while incoming.reserve_beyond(100_000, 1) > 0 {}
        assert!((799_990..=800_000).contains(&incoming.bytes()));
    }

    #[test]
    fn endpoints_go_beyond_the_ceiling_of_all_together() {
        let (budget, [mut one, mut other]) = pair(400_000);
        assert_eq!(one.reserve(400_000, 1), 300_000);
        assert_eq!(one.reserve_beyond(400_000, 1), 100_000);
        assert_eq!(other.reserve(400_000, 1), 100_000);
        assert_eq!(other.reserve_beyond(400_000, 1), 75_000);
        drop((one, other));
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn bytes_that_come_unasked_count() {
        let (_, [mut one, mut other]) = pair(400_000);
        one.add(500_000);
        assert_eq!(one.bytes(), 500_000);
        assert_eq!(other.reserve(400_000, 1), 100_000);
        one.remove(500_000);
        assert_eq!(other.reserve(400_000, 1), 200_000);
    }

    #[test]
    fn threads_that_take_and_give_back_never_exceed_the_budget() {
        let max = 400_000;
        let (budget, shares) = pair(max);
        std::thread::scope(|scope| {
            for mut incoming in shares {
                let budget = &budget;
                scope.spawn(move || {
                    for round in 0..20_000_u64 {
                        incoming.reserve(round * 7_919 % 90_000, 1);
                        assert!(budget.taken.load(Ordering::Relaxed) <= budget.pool);
                        incoming.remove(incoming.bytes().min(round * 104_729 % 120_000));
                    }
                });
            }
        });
        assert_eq!(budget.pool + 2 * budget.guaranteed, u64::from(max));
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_uplink_is_busy_with_what_all_have_sent_but_each_has_half_of_its_share() {
        let budget = Arc::new(LinkBudget::new(2, 400_000));
        let [mut one, mut other] = [0, 1].map(|_| {
            let mut uplink = Uplink::new();
            uplink.share(Arc::clone(&budget));
            uplink
        });
        let start = Instant::from_nanos(1_000);
        let micro = Duration::from_micros(1);
        one.occupy(start, micro * 10);
        assert_eq!(one.idle(), start + micro * 10);
        // It has sent nothing, so its quarter of the uplink is free.
        assert!(other.idle() <= start);
        other.occupy(start, micro);
        assert_eq!(other.idle(), start + micro * 4);
        assert_eq!(one.idle(), start + micro * 11);
    }
}
