//! Priority levels: of unscheduled bytes by message length, of scheduled bytes by rank.

use crate::units::Priority;

/// Largest message length that uses each level, unscheduled. Source: homa_utils.c, `homa_init`.
const FACTORY: [u32; Priority::LEVELS] = [0, 0, 0, 0, 1_000_000, 15_000, 2_800, 200];
/// "Any length".
const UNLIMITED: u32 = 0x7fff_ffff;

/// Which level a message's unscheduled bytes use, as its receiver wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnscheduledCutoffs {
    cutoffs: [u32; Priority::LEVELS],
    version: u16,
}

impl UnscheduledCutoffs {
    /// What a sender uses before a peer has sent its cutoffs: version 0, level 6 for all.
    /// Source: homa_peer.c, `homa_peer_alloc`.
    pub(crate) const UNKNOWN: Self = Self {
        cutoffs: [0, 0, 0, 0, 0, 0, UNLIMITED, 0],
        version: 0,
    };

    /// The module's default, version 1.
    pub(crate) const FACTORY: Self = Self {
        cutoffs: FACTORY,
        version: 1,
    };

    /// What a peer has sent. Level 0 takes what no other does.
    /// Source: homa_incoming.c, `homa_cutoffs_pkt`.
    pub(crate) const fn heard(mut cutoffs: [u32; Priority::LEVELS], version: u16) -> Self {
        cutoffs[0] = UNLIMITED;
        Self { cutoffs, version }
    }

    pub(crate) const fn version(&self) -> u16 {
        self.version
    }

    pub(crate) const fn cutoffs(&self) -> [u32; Priority::LEVELS] {
        self.cutoffs
    }

    /// The highest level whose cutoff is at least `length`.
    /// Source: homa_peer.c, `homa_unsched_priority`.
    pub(crate) fn level(&self, length: u32) -> Priority {
        let level = self
            .cutoffs
            .iter()
            .rposition(|cutoff| *cutoff >= length)
            .unwrap_or(0);
        Priority::saturating(u8::try_from(level).unwrap_or(0))
    }

    /// The highest level left for scheduled bytes: one below the lowest that unscheduled ones use.
    /// Source: homa_utils.c, `homa_prios_changed`.
    pub(crate) fn scheduled_max(&self) -> u8 {
        let lowest = self
            .cutoffs
            .iter()
            .rposition(|cutoff| *cutoff >= 1_000_000)
            .unwrap_or(0);
        u8::try_from(lowest.saturating_sub(1)).unwrap_or(0)
    }
}

/// Level of a GRANT: active messages use the lowest levels, better ranks the higher ones among
/// them. `rank` counts the active messages that rank better. Source: homa_grant.c,
/// `homa_grant_priority`.
pub(crate) fn scheduled(scheduled_max: u8, rank: usize, active: usize) -> Priority {
    let highest = usize::from(scheduled_max);
    let unused = (highest + 1).saturating_sub(active);
    let level = highest.saturating_sub(rank).saturating_sub(unused);
    Priority::saturating(u8::try_from(level).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factory_cutoffs_choose_the_modules_levels() {
        let cutoffs = UnscheduledCutoffs::FACTORY;
        let levels = [1, 200, 201, 2_800, 2_801, 15_000, 15_001, 1_000_000]
            .map(|length| cutoffs.level(length).level());
        assert_eq!(levels, [7, 7, 6, 6, 5, 5, 4, 4]);
        assert_eq!(cutoffs.scheduled_max(), 3);
    }

    #[test]
    fn a_peer_that_has_sent_none_gets_level_six() {
        assert_eq!(UnscheduledCutoffs::UNKNOWN.level(1).level(), 6);
        assert_eq!(UnscheduledCutoffs::UNKNOWN.level(1_000_000).level(), 6);
    }

    #[test]
    fn cutoffs_that_exclude_a_length_leave_it_level_zero() {
        let cutoffs = UnscheduledCutoffs::heard([0; 8], 9);
        assert_eq!(cutoffs.level(1_000_000), Priority::LOWEST);
        assert_eq!(cutoffs.version(), 9);
        assert_eq!(cutoffs.scheduled_max(), 0);
    }

    #[test]
    fn few_active_messages_use_the_lowest_levels() {
        let levels = |active: usize| -> Vec<u8> {
            (0..active)
                .map(|rank| scheduled(3, rank, active).level())
                .collect()
        };
        assert_eq!(levels(1), [0]);
        assert_eq!(levels(2), [1, 0]);
        assert_eq!(levels(3), [2, 1, 0]);
        assert_eq!(levels(4), [3, 2, 1, 0]);
        assert_eq!(levels(6), [3, 2, 1, 0, 0, 0]);
        assert_eq!(scheduled(0, 0, 3), Priority::LOWEST);
    }
}
