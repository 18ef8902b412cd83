//! Whether a host begins long messages by START_MSG, and answers it.

use std::time::Duration;

use crate::units::Instant;

/// Times in a row that START_MSG is repeated to a host and not answered, after which its messages go in the
/// older scheme: it does not know START_MSG, having been started again with an older module, perhaps.
const REPEATS_MAX: u32 = 8;

/// What is known of a host: whether it begins long messages by START_MSG, and answers it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::endpoint) struct Habit {
    sends: bool,
    /// START_MSGs repeated to it since it last answered one; those within one interval count once.
    in_vain: u32,
    counted: Instant,
}

impl Habit {
    /// Whether messages to it should begin so.
    pub(in crate::endpoint) const fn sends(self) -> bool {
        self.sends
    }

    /// A message that began so has come from it whole.
    pub(in crate::endpoint) const fn on_message(&mut self) {
        self.sends = true;
        self.in_vain = 0;
    }

    /// It has answered START_MSG.
    pub(in crate::endpoint) const fn on_answer(&mut self) {
        self.in_vain = 0;
    }

    /// START_MSG is to be repeated. False: it is in vain.
    pub(in crate::endpoint) fn on_repeat(&mut self, now: Instant, interval: Duration) -> bool {
        if self.in_vain == 0 || now.saturating_since(self.counted) >= interval {
            self.in_vain += 1;
            self.counted = now;
        }
        if self.in_vain >= REPEATS_MAX {
            self.sends = false;
        }
        self.in_vain < REPEATS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);

    #[test]
    fn a_host_that_never_answers_is_given_up_after_rounds_not_packets() {
        let mut habit = Habit::default();
        habit.on_message();
        let mut now = Instant::from_nanos(7_000_000);
        for _ in 1..REPEATS_MAX {
            for _ in 0..100 {
                assert!(habit.on_repeat(now, INTERVAL) && habit.sends());
            }
            now = now + INTERVAL;
        }
        assert!(!habit.on_repeat(now, INTERVAL) && !habit.sends());
        assert!(
            !habit.on_repeat(now, INTERVAL),
            "it stays so for the others"
        );
        habit.on_answer();
        assert!(habit.on_repeat(now, INTERVAL));
        assert!(!habit.sends(), "until a message of its own begins so again");
        habit.on_message();
        assert!(habit.sends());
    }
}
