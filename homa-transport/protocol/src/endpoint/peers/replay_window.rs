//! Memory of delivered requests: what makes a late duplicate of a finished request harmless.
//!
//! Differs: the module forgets a request with its ack, so that a duplicate delayed in the network
//! is executed again (homa_rpc.c, `homa_rpc_alloc_server`).

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::units::{Instant, RpcId};

/// Words of 64 ids in a window at most.
const WORDS_MAX: usize = 65_536;
/// Words a window may always have, beyond which it grows only with the number of ids in it.
const WORDS_FREE: usize = 16;
/// Words a window may have per id in it.
const WORDS_PER_ID: usize = 4;
/// Ids remembered one by one because they lie far from the others.
const OUTLIERS_MAX: usize = 4096;

/// Ids of one peer's delivered (or cancelled) requests, remembered for one to two periods.
///
/// A client takes its ids from one counter, so they lie close together: a bitmap that slides with
/// them. Ids far off go into a small set, so that memory stays in proportion to the number of ids.
///
/// Nothing is allocated before the first one: most peers never send a request.
#[derive(Debug, Default)]
pub(crate) struct DeliveredIds {
    windows: Option<Box<ReplayWindows>>,
}

#[derive(Debug, Default)]
struct ReplayWindows {
    current: ReplayWindow,
    previous: ReplayWindow,
    period_start: Instant,
}

/// Time that passes only while the endpoint runs.
///
/// After a stall of ours (SIGSTOP, a paused machine) packets come in that were waiting for as long, a
/// late duplicate among them; by the wall clock its request would be forgotten already.
#[derive(Debug, Default)]
pub(crate) struct MemoryClock {
    last: Instant,
    now: Instant,
    /// Since when, by the real clock, everything is remembered, and whether that is the beginning.
    complete_since: Option<(Instant, bool)>,
}

/// Longest step of a [`MemoryClock`].
const STEP_MAX: Duration = Duration::from_millis(100);

impl MemoryClock {
    /// The present by this clock, at `now` by the real one.
    pub(crate) fn at(&mut self, now: Instant) -> Instant {
        let passed = now.saturating_since(self.last);
        self.last = self.last.max(now);
        self.now = self.now + passed.min(STEP_MAX);
        self.complete_since.get_or_insert((now, true));
        self.now
    }

    /// Something was forgotten before its time.
    pub(crate) fn on_forgotten(&mut self) {
        self.complete_since = Some((self.last, false));
    }

    /// For how long by the real clock everything has been remembered, as far as `memory` promises that, and
    /// whether that is since the beginning. What is remembered by this clock is remembered for longer by
    /// that one.
    pub(crate) fn reach(&self, memory: Duration) -> (Duration, bool) {
        let (since, is_start) = self.complete_since.unwrap_or((self.last, true));
        let complete = self.last.saturating_since(since);
        (complete.min(memory), is_start && complete < memory)
    }

    /// The last present it was asked for.
    pub(crate) const fn latest(&self) -> Instant {
        self.now
    }
}

#[derive(Debug, Default)]
struct ReplayWindow {
    /// Number of the first word.
    base: u64,
    words: VecDeque<u64>,
    outliers: HashSet<u64>,
    ids: usize,
}

impl DeliveredIds {
    /// Remembers `id` for at least `memory`. Returns false if that was not possible because of the
    /// bounds. With no time to remember it for, nothing is kept.
    pub(crate) fn insert(&mut self, id: RpcId, now: Instant, memory: Duration) -> bool {
        if memory.is_zero() {
            return true;
        }
        let windows = self.windows.get_or_insert_default();
        windows.rotate(now, memory);
        windows.current.insert(id.value() >> 1)
    }

    pub(crate) fn contains(&mut self, id: RpcId, now: Instant, memory: Duration) -> bool {
        let Some(windows) = self.windows.as_mut() else {
            return false;
        };
        windows.rotate(now, memory);
        let number = id.value() >> 1;
        windows.current.contains(number) || windows.previous.contains(number)
    }

    /// True if no id is remembered.
    pub(crate) fn is_empty(&mut self, now: Instant, memory: Duration) -> bool {
        let Some(windows) = self.windows.as_mut() else {
            return true;
        };
        windows.rotate(now, memory);
        windows.current.ids == 0 && windows.previous.ids == 0
    }
}

impl ReplayWindows {
    fn rotate(&mut self, now: Instant, memory: Duration) {
        let age = now.saturating_since(self.period_start);
        if age < memory {
            return;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if age >= memory.saturating_mul(2) {
            self.previous.clear();
        }
        self.period_start = now;
    }
}

impl ReplayWindow {
    fn clear(&mut self) {
        // The next window grows as it must: a burst's memory goes with it.
        *self = Self::default();
    }

    fn insert(&mut self, number: u64) -> bool {
        let word = number / 64;
        if self.words.is_empty() && self.outliers.is_empty() {
            self.base = word;
        }
        self.ids += 1;
        if !self.reach(word) {
            return self.outliers.len() < OUTLIERS_MAX && {
                self.outliers.insert(number);
                true
            };
        }
        let at = usize::try_from(word - self.base).unwrap_or(usize::MAX);
        if let Some(bits) = self.words.get_mut(at) {
            *bits |= 1 << (number % 64);
        }
        true
    }

    /// Extends the window to `word` if that is not out of proportion.
    fn reach(&mut self, word: u64) -> bool {
        let allowed = (WORDS_FREE + self.ids.saturating_mul(WORDS_PER_ID)).min(WORDS_MAX) as u64;
        let end = self.base + self.words.len() as u64;
        let (base, needed_end) = (self.base.min(word), end.max(word.saturating_add(1)));
        if needed_end - base > allowed {
            return (self.base..end).contains(&word);
        }
        for _ in base..self.base {
            self.words.push_front(0);
        }
        for _ in end..needed_end {
            self.words.push_back(0);
        }
        self.base = base;
        true
    }

    fn contains(&self, number: u64) -> bool {
        let at = (number / 64)
            .checked_sub(self.base)
            .and_then(|at| usize::try_from(at).ok());
        let bits = at.and_then(|at| self.words.get(at)).copied().unwrap_or(0);
        bits & (1 << (number % 64)) != 0 || self.outliers.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn an_id_is_remembered_for_at_least_the_period_and_then_forgotten() {
        let mut delivered = DeliveredIds::default();
        for start in [5_000, 5_400, 5_999] {
            let id = RpcId::new(start * 2);
            assert!(delivered.insert(id, at(start), MEMORY));
            assert!(delivered.contains(id, at(start + 1_000), MEMORY));
        }
        assert!(!delivered.contains(RpcId::new(5_000 * 2), at(20_000), MEMORY));
    }

    #[test]
    fn ids_in_any_order_are_told_apart_exactly() {
        let mut delivered = DeliveredIds::default();
        let base = (u64::MAX / 2) & !1;
        let ids: Vec<u64> = (0..5_000)
            .map(|i| base.wrapping_add((i * 7919) % 10_007 * 4))
            .collect();
        for id in &ids {
            assert!(delivered.insert(RpcId::new(*id), at(1), MEMORY));
        }
        for id in &ids {
            assert!(delivered.contains(RpcId::new(*id), at(2), MEMORY));
            assert!(!delivered.contains(RpcId::new(*id ^ 2), at(2), MEMORY));
        }
    }

    #[test]
    fn a_stall_is_a_short_time_to_the_memory() {
        let mut clock = MemoryClock::default();
        let start = clock.at(at(5_000));
        assert_eq!(clock.at(at(5_050)) - start, Duration::from_millis(50));
        assert_eq!(clock.at(at(65_000)) - start, Duration::from_millis(150));
        assert_eq!(clock.at(at(64_000)) - start, Duration::from_millis(150));
    }

    #[test]
    fn a_memory_reaches_back_to_its_beginning_or_to_what_it_lost_at_most() {
        let mut clock = MemoryClock::default();
        let second = |seconds: u64| Duration::from_secs(seconds);
        clock.at(at(5_000));
        assert_eq!(clock.reach(second(5)), (Duration::ZERO, true));
        clock.at(at(8_000));
        assert_eq!(clock.reach(second(5)), (second(3), true));
        assert_eq!(clock.reach(second(2)), (second(2), false));
        clock.on_forgotten();
        clock.at(at(8_100));
        assert_eq!(clock.reach(second(5)), (Duration::from_millis(100), false));
    }

    #[test]
    fn both_forms_of_an_id_are_the_same_request() {
        let mut delivered = DeliveredIds::default();
        delivered.insert(RpcId::new(100), at(1), MEMORY);
        assert!(delivered.contains(RpcId::new(101), at(1), MEMORY));
    }

    #[test]
    fn far_apart_ids_cost_memory_in_proportion_to_their_number_and_are_bounded() {
        let mut delivered = DeliveredIds::default();
        for i in 0..1000_u64 {
            assert!(delivered.insert(RpcId::new(i << 40), at(1), MEMORY));
        }
        assert!(
            delivered.windows.as_ref().unwrap().current.words.len()
                <= WORDS_FREE + 1000 * WORDS_PER_ID
        );
        for i in 0..1000_u64 {
            assert!(delivered.contains(RpcId::new(i << 40), at(1), MEMORY));
        }
        let kept =
            (1000..100_000_u64).filter(|i| delivered.insert(RpcId::new(i << 40), at(1), MEMORY));
        assert!(kept.count() <= OUTLIERS_MAX + WORDS_MAX);
        assert!(delivered.windows.as_ref().unwrap().current.words.len() <= WORDS_MAX);
        assert!(delivered.insert(RpcId::new(u64::MAX), at(9_999), MEMORY));
        assert!(delivered.contains(RpcId::new(u64::MAX), at(9_999), MEMORY));
    }
}
