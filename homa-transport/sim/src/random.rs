//! The only source of chance in a simulation: SplitMix64, so that one number repeats everything.

use std::time::Duration;

/// A generator of pseudorandom numbers. Equal seeds give equal numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator that is independent of the numbers this one yields from now on.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    /// Any number. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
    /// OOPSLA 2014.
    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// An index of a list of `len` entries; 0 if there are none.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of `choices`.
    #[expect(clippy::indexing_slicing, reason = "the index is below the length")]
    pub fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        const { assert!(N > 0) };
        choices[self.index(N)]
    }

    /// A number from `low` to `high`, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A duration from `low` to `high` whose logarithm is spread evenly: all orders of magnitude
    /// are equally likely.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (nanos(low).max(1), nanos(high).max(1));
        let octaves = (high / low).max(1).ilog2();
        let scale = 1 << self.below(u64::from(octaves) + 1);
        Duration::from_nanos(self.between(low * scale, low * scale * 2).min(high))
    }

    /// True with this probability, in millionths.
    pub const fn chance(&mut self, millionths: u32) -> bool {
        // A sure thing must not shift the sequence of the others.
        millionths > 0 && self.below(1_000_000) < millionths as u64
    }

    /// A number in `[0, 1)`.
    pub const fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The wait for the next event of a Poisson process with this mean interval.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }
}

/// Nanoseconds of `duration`; what does not fit becomes the greatest number.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_the_published_numbers() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn numbers_stay_within_their_bounds_and_reach_them() {
        let mut random = Random::new(1);
        let drawn: Vec<u64> = (0..1_000).map(|_| random.between(3, 7)).collect();
        assert_eq!(
            (drawn.iter().min(), drawn.iter().max()),
            (Some(&3), Some(&7))
        );
        assert!((0..1_000).all(|_| !random.chance(0) && random.chance(1_000_000)));
        let (low, high) = (Duration::from_micros(3), Duration::from_secs(2));
        assert!((0..1_000).all(|_| (low..=high).contains(&random.duration(low, high))));
    }

    #[test]
    fn exponential_waits_have_their_mean() {
        let mut random = Random::new(2);
        let total: Duration = (0..100_000)
            .map(|_| random.exponential(Duration::from_micros(5)))
            .sum();
        let mean = total / 100_000;
        assert!((4_900..5_100).contains(&mean.as_nanos()), "{mean:?}");
    }
}
