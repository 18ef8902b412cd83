//! How many questions one peer may be asked, however often the timers run.

use crate::units::Instant;

/// Requests to one peer in a millisecond.
const ASKS_PER_MILLISECOND: u64 = 16;
/// One more for so many RPCs with it: all of a hundred thousand can be asked about in some seconds.
const RPCS_PER_ASK: u64 = 2_048;

/// What one peer may be asked: a bucket of what time allows for in a millisecond.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    left: u64,
    /// Up to when it was filled.
    filled: Instant,
}

impl Allowance {
    /// Whether one more question may be asked of a peer with so many RPCs.
    pub(super) fn has_some(&mut self, now: Instant, rpcs: usize) -> bool {
        let most = ASKS_PER_MILLISECOND + rpcs as u64 / RPCS_PER_ASK;
        let passed = now.saturating_since(self.filled).as_nanos();
        let more = passed.saturating_mul(u128::from(most)) / 1_000_000;
        if more > 0 {
            self.filled = now;
            self.left = self
                .left
                .saturating_add(u64::try_from(more).unwrap_or(most));
        }
        self.left = self.left.min(most);
        self.left > 0
    }

    /// One is asked.
    pub(super) const fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Questions asked in 100 ms by timers that run this often.
    fn asked(rpcs: usize, interval_micros: u64) -> u64 {
        let mut allowance = Allowance::default();
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
