//! When a driver asks its link again before it sleeps.
//!
//! Waking a thread that sleeps costs tens of microseconds, more than all the rest of a short call. So a
//! driver without work goes on asking for a while. That is in vain when packets are rare, and when
//! their sender needs the very core on which we ask; so after a few vain tries it is done ever more
//! seldom, until one is not in vain.

use std::time::Duration;

use crate::units::Instant;

/// Windows in a row without a packet, after which some are left out.
const MISSES_MAX: u32 = 3;
/// Sleeps without a window at first; the number doubles with each further miss.
const SKIPS_MIN: u32 = 16;
/// Sleeps without a window at most.
const SKIPS_MAX: u32 = 8_192;
/// Times to ask in one window, for runtimes whose clock stands still.
const ASKS_MAX: u32 = 4_096;

/// Decides before each sleep whether to ask the link for a while, and for how long.
#[derive(Debug)]
pub(super) struct BusyPoll {
    /// Length of a window; zero: there are none.
    window: Duration,
    state: State,
    /// Windows in a row without a packet.
    misses: u32,
    /// Sleeps to come without a window.
    skips: u32,
    /// Sleeps without a window after the next miss.
    next_skips: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
        asked: u32,
    },
    /// A window has passed: the next sleep is a sleep.
    Over,
}

impl BusyPoll {
    pub(super) const fn new(window: Duration) -> Self {
        Self {
            window,
            state: State::Closed,
            misses: 0,
            skips: 0,
            next_skips: SKIPS_MIN,
        }
    }

    /// There is nothing to do. True: a window is open, so ask the link. False: sleep.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        match self.state {
            State::Open { .. } => return true,
            State::Over => self.state = State::Closed,
            State::Closed if self.window.is_zero() => {}
            State::Closed if self.skips > 0 => self.skips -= 1,
            State::Closed => {
                let until = now + self.window;
                self.state = State::Open { until, asked: 0 };
                return true;
            }
        }
        false
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// The link had nothing. True: ask again.
    pub(super) fn found_nothing(&mut self, now: Instant) -> bool {
        let State::Open { until, asked } = &mut self.state else {
            return false;
        };
        *asked += 1;
        if now < *until && *asked < ASKS_MAX {
            return true;
        }
        self.state = State::Over;
        self.misses += 1;
        if self.misses >= MISSES_MAX {
            self.skips = self.next_skips;
            self.next_skips = (self.next_skips * 2).min(SKIPS_MAX);
        }
        false
    }

    /// The link had a packet.
    pub(super) const fn found(&mut self) {
        self.state = State::Closed;
        self.misses = 0;
        self.next_skips = SKIPS_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_micros(100);

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1_000)
    }

    /// Lets one window pass in vain.
    fn vain(polling: &mut BusyPoll) {
        assert!(polling.begin(at(0)));
        assert!(polling.found_nothing(at(99)));
        assert!(!polling.found_nothing(at(100)));
        assert!(!polling.begin(at(100)), "after a window there is a sleep");
    }

    /// Sleeps until the next window opens.
    fn sleeps(polling: &mut BusyPoll) -> usize {
        (0..).take_while(|_| !polling.begin(at(0))).count()
    }

    #[test]
    fn windows_in_vain_become_ever_rarer_up_to_a_bound() {
        let mut polling = BusyPoll::new(WINDOW);
        for _ in 0..MISSES_MAX {
            vain(&mut polling);
        }
        for expected in [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 8192] {
            assert_eq!(sleeps(&mut polling), expected);
            assert!(!polling.found_nothing(at(100)));
            assert!(!polling.begin(at(100)));
        }
    }

    #[test]
    fn a_packet_makes_every_sleep_begin_with_a_window_again() {
        let mut polling = BusyPoll::new(WINDOW);
        for _ in 0..MISSES_MAX {
            vain(&mut polling);
        }
        assert_eq!(sleeps(&mut polling), 16);
        polling.found();
        for _ in 0..MISSES_MAX {
            vain(&mut polling);
        }
        assert_eq!(sleeps(&mut polling), 16);
    }

    #[test]
    fn a_window_ends_though_the_clock_stands_still() {
        let mut polling = BusyPoll::new(WINDOW);
        assert!(polling.begin(at(0)));
        assert!((0..ASKS_MAX).any(|_| !polling.found_nothing(at(0))));
    }

    #[test]
    fn a_length_of_zero_means_never() {
        let mut polling = BusyPoll::new(Duration::ZERO);
        assert!((0..100).all(|_| !polling.begin(at(0))));
    }
}
