//! Clocks that start anywhere and run too fast or too slow.

use homa_protocol::units::Instant;

/// A clock that starts anywhere and is too fast or too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What it shows at the start of the world, in nanoseconds.
    pub offset: u64,
    /// Its nanoseconds per true millisecond: 1,000,000 if it is right.
    pub rate: u64,
}

impl Clock {
    /// Nanoseconds in a millisecond.
    const RIGHT: u64 = 1_000_000;

    /// A clock that is right.
    pub const TRUE: Self = Self {
        offset: 0,
        rate: Self::RIGHT,
    };

    /// What it shows at a true time.
    #[must_use]
    pub const fn local(&self, at: Instant) -> Instant {
        Instant::from_nanos(self.offset.saturating_add(scale(
            at.as_nanos(),
            self.rate,
            Self::RIGHT,
        )))
    }

    /// The first true time at which it shows `local` or more.
    #[must_use]
    pub const fn true_time(&self, local: Instant) -> Instant {
        let shown = local.as_nanos().saturating_sub(self.offset);
        let mut at = scale(shown, Self::RIGHT, self.rate);
        while scale(at, self.rate, Self::RIGHT) < shown {
            at += 1;
        }
        Instant::from_nanos(at)
    }
}

/// `value * by / over` without overflow for all times of a simulation.
const fn scale(value: u64, by: u64, over: u64) -> u64 {
    (value / over)
        .saturating_mul(by)
        .saturating_add((value % over).saturating_mul(by) / over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_reaches_every_local_time_at_its_first_true_time() {
        for rate in [999_800, 1_000_000, 1_000_200, 1_010_000] {
            let clock = Clock { offset: 77, rate };
            for local in (0..5_000_000).step_by(997) {
                let local = Instant::from_nanos(77 + local);
                let at = clock.true_time(local);
                assert!(clock.local(at) >= local);
                if at > Instant::ZERO {
                    let before = Instant::from_nanos(at.as_nanos() - 1);
                    assert!(clock.local(before) < local, "{clock:?} {local:?} {at:?}");
                }
            }
        }
    }
}
