//! Intervals between things that are asked in vain.

use std::time::Duration;

/// Interval before the next of a series of requests that go unanswered: `base` for the first few,
/// then doubling up to `max`. A longer `base` stays as it is.
pub(crate) fn backed_off(base: Duration, sent: u32, free: u32, max: Duration) -> Duration {
    let doublings = sent.saturating_sub(free).min(16);
    base.saturating_mul(1 << doublings).min(max.max(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_after_the_free_ones_up_to_the_maximum() {
        let base = Duration::from_millis(5);
        let intervals: Vec<u128> = (0..10)
            .map(|sent| backed_off(base, sent, 3, Duration::from_millis(100)).as_millis())
            .collect();
        assert_eq!(intervals, [5, 5, 5, 5, 10, 20, 40, 80, 100, 100]);
    }

    #[test]
    fn an_interval_that_is_set_longer_than_the_maximum_is_kept() {
        let (base, max) = (Duration::from_millis(600), Duration::from_millis(100));
        assert!((0..30).all(|sent| backed_off(base, sent, 3, max) == base));
    }
}
