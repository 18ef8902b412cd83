//! How many questions one peer may be asked, however often the timers run.

use crate::units::Instant;

/// Requests to one peer in a millisecond.
const ASKS_PER_MILLISECOND: u64 = 16;
/// One more for so many RPCs with it: all of a hundred thousand can be asked about in some seconds.
const RPCS_PER_ASK: u64 = 2_048;

/// The time that is saved up at most, in nanoseconds.
const SAVED_MAX: u64 = 1_000_000;

/// What one peer may be asked: each question costs time, and not much of it is saved up.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::endpoint) struct ProbeRate {
    /// Nanoseconds.
    saved: u64,
    /// Of one question.
    cost: u64,
    /// Up to when it was filled.
    filled: Instant,
}

impl ProbeRate {
    /// Whether one more question may be asked of a peer with so many RPCs.
    pub(in crate::endpoint) fn has_some(&mut self, now: Instant, rpcs: usize) -> bool {
        let passed = now.as_nanos().saturating_sub(self.filled.as_nanos());
        self.filled = self.filled.max(now);
        self.saved = self.saved.saturating_add(passed).min(SAVED_MAX);
        self.cost = SAVED_MAX / (ASKS_PER_MILLISECOND + rpcs as u64 / RPCS_PER_ASK);
        self.saved >= self.cost
    }

    /// One is asked.
    pub(in crate::endpoint) const fn take(&mut self) {
        self.saved = self.saved.saturating_sub(self.cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Questions asked in 100 ms by timers that run this often.
    fn asked(rpcs: usize, interval_micros: u64) -> u64 {
        let mut allowance = ProbeRate::default();
        let mut asked = 0;
        for run in 0..100_000 / interval_micros {
            let now = Instant::from_nanos(1_000_000_000 + run * interval_micros * 1_000);
            while allowance.has_some(now, rpcs) {
                allowance.take();
                asked += 1;
            }
        }
        asked
    }

    #[test]
    fn time_allows_for_questions_and_not_the_number_of_timer_runs() {
        for interval in [100, 250, 1_000] {
            let asked = asked(100, interval);
            assert!((1_400..=1_616).contains(&asked), "{interval}: {asked}");
        }
        assert_eq!(asked(100, 10_000), 10 * 16, "none is saved up");
        let many = asked(100_000, 1_000);
        assert!(many > 6_000, "{many}: 100,000 in less than two seconds");
    }
}
