//! Limits of the scheduler.

use super::PaperGrants;
use crate::config::Config;
use crate::units::Priority;

/// Limits of the scheduler, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrantLimits {
    /// Bytes granted and not received, over all messages.
    pub(crate) max_incoming: u64,
    /// The same per message; 0 shares `max_incoming`.
    pub(crate) window: u32,
    pub(crate) max_overcommit: usize,
    /// Smallest step of a grant but the last.
    pub(crate) increment: u32,
    /// Thousandths of the granted bytes that go to the oldest message.
    pub(crate) fifo_permille: u64,
    /// Size of one such grant.
    pub(crate) fifo_increment: u32,
    /// Level of such a grant.
    pub(crate) fifo_priority: Priority,
    /// Highest level of the others.
    pub(crate) scheduled_max: u8,
    /// Rules of the published simulations instead; see [`crate::config::Experiment`].
    pub(crate) paper: Option<PaperGrants>,
}

impl GrantLimits {
    /// Those of a configuration. `scheduled_max`: the highest level of scheduled bytes.
    pub(in crate::endpoint) fn of(
        config: &Config,
        scheduled_max: u8,
        paper: Option<PaperGrants>,
    ) -> Self {
        Self {
            max_incoming: u64::from(config.max_incoming_bytes),
            window: config.window_bytes,
            max_overcommit: config.max_overcommit,
            increment: config.grant_increment_bytes,
            fifo_permille: u64::from(config.grant_fifo_permille),
            fifo_increment: config.fifo_grant_increment_bytes,
            fifo_priority: config.fifo_priority(),
            scheduled_max,
            paper,
        }
    }
}
