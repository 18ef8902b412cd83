//! The only clock of the crate.

use crate::units::Instant;

/// Reads tokio's clock, so that a paused runtime pauses the protocol with it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: tokio::time::Instant,
}

impl Clock {
    /// A clock whose epoch is now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            epoch: tokio::time::Instant::now(),
        }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Instant {
        let nanos = tokio::time::Instant::now()
            .saturating_duration_since(self.epoch)
            .as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// `at` as tokio understands it.
    #[must_use]
    pub fn deadline(&self, at: Instant) -> tokio::time::Instant {
        self.epoch + std::time::Duration::from_nanos(at.as_nanos())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
