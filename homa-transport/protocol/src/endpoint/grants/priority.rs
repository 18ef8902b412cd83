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
    #[cfg(test)]
    pub(crate) const FACTORY: Self = Self {
        cutoffs: FACTORY,
        version: 1,
    };

    /// The module's default for this many levels in use: the same cutoffs, moved down to the highest
    /// of them. Source: homa_utils.c, `homa_init`, `homa_prios_changed`.
    pub(crate) fn factory(levels: u8) -> Self {
        let mut cutoffs = [0; Priority::LEVELS];
        let used = cutoffs.iter_mut().take(usize::from(levels)).rev();
        for (slot, cutoff) in used.zip(FACTORY.iter().rev()) {
            *slot = *cutoff;
        }
        if let Some(lowest) = cutoffs.first_mut().filter(|_| levels <= 4) {
            *lowest = UNLIMITED;
        }
        Self::of(cutoffs)
    }

    /// Cutoffs with their version. The module's default has 1: several processes of one host must not
    /// make a module's sender alternate between equal tables. Any other has a hash of its content, so
    /// that two tables, of one process after another or of one beside another, are told apart.
    fn of(cutoffs: [u32; Priority::LEVELS]) -> Self {
        if cutoffs == FACTORY {
            return Self {
                cutoffs,
                version: 1,
            };
        }
        // FNV-1a.
        let mut hash = 0x811c_9dc5_u32;
        for byte in cutoffs.iter().flat_map(|cutoff| cutoff.to_be_bytes()) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        let [a, b, c, d] = hash.to_be_bytes();
        let version = u16::from_be_bytes([a ^ c, b ^ d]);
        Self {
            cutoffs,
            // 0: nothing is known; 1: the module's default.
            version: version.max(2),
        }
    }

    /// What a peer has sent. Level 0 takes what no other does.
    /// Source: homa_incoming.c, `homa_cutoffs_pkt`.
    pub(crate) const fn heard(mut cutoffs: [u32; Priority::LEVELS], version: u16) -> Self {
        cutoffs[0] = UNLIMITED;
        Self { cutoffs, version }
    }

    /// Cutoffs that never change. Level 0 takes what no other does.
    #[cfg(feature = "sim")]
    pub(crate) const fn fixed(cutoffs: [u32; Priority::LEVELS]) -> Self {
        Self::heard(cutoffs, 1)
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
            .rposition(|cutoff| *cutoff >= LENGTH_MAX)
            .unwrap_or(0);
        u8::try_from(lowest.saturating_sub(1)).unwrap_or(0)
    }
}

/// Sizes of the messages that arrive, and the cutoffs that suit them.
///
/// The share of unscheduled bytes in all bytes decides how many levels unscheduled bytes get; the
/// cutoffs give each of those levels the same number of unscheduled bytes, short messages the higher
/// ones. Source: Homa (SIGCOMM 2018), section 3.4; util/homa_prio.cc, `compute_cutoffs`.
#[derive(Debug)]
pub(crate) struct SizesSeen {
    levels: usize,
    unscheduled_max: u32,
    /// Messages and their unscheduled bytes by size class.
    classes: Vec<Class>,
    messages: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    unscheduled: u64,
    all: u64,
}

/// Size classes per power of two: cutoffs are exact to 3 %.
const CLASSES_PER_DOUBLING: u32 = 32;
/// Messages that must have been seen since the last look. Source: util/homa_prio.cc.
const MESSAGES_MIN: u64 = 10_000;
/// A level may be off its equal share by this factor before the cutoffs are changed: traffic that
/// merely fluctuates must not make them flap.
const IMBALANCE_MAX: u64 = 2;

impl SizesSeen {
    pub(crate) fn new(levels: u8, unscheduled_max: u32) -> Self {
        let classes = vec![Class::default(); class_of(u32::MAX) + 1];
        Self {
            levels: usize::from(levels),
            unscheduled_max,
            classes,
            messages: 0,
        }
    }

    /// A message of `length` bytes has begun to arrive.
    pub(crate) fn on_message(&mut self, length: u32) {
        self.messages += 1;
        if let Some(class) = self.classes.get_mut(class_of(length)) {
            class.unscheduled += u64::from(length.min(self.unscheduled_max));
            class.all += u64::from(length);
        }
    }

    /// New cutoffs if enough was seen and `current` no longer suits it. Halves what was seen, so that
    /// recent traffic counts most.
    pub(crate) fn recompute(&mut self, current: &UnscheduledCutoffs) -> Option<UnscheduledCutoffs> {
        if self.messages < MESSAGES_MIN {
            return None;
        }
        let wanted = self.cutoffs();
        let suits =
            self.suits(&current.cutoffs) && level_count(&wanted) == level_count(&current.cutoffs);
        self.messages = 0;
        for class in &mut self.classes {
            class.unscheduled /= 2;
            class.all /= 2;
        }
        (!suits && wanted != current.cutoffs).then(|| UnscheduledCutoffs::of(wanted))
    }

    /// Number of levels for unscheduled bytes: their share of all bytes, rounded, at least one, and
    /// one less than all if anything at all is scheduled.
    fn unscheduled_levels(&self) -> usize {
        let (unscheduled, all) = self.totals();
        if self.levels == 1 || all == 0 || unscheduled == all {
            return self.levels;
        }
        let levels = self.levels as u64;
        let rounded = (unscheduled * levels * 2 + all) / (2 * all);
        usize::try_from(rounded)
            .unwrap_or(1)
            .clamp(1, self.levels - 1)
    }

    fn totals(&self) -> (u64, u64) {
        self.classes
            .iter()
            .fold((0, 0), |(unscheduled, all), class| {
                (unscheduled + class.unscheduled, all + class.all)
            })
    }

    fn cutoffs(&self) -> [u32; Priority::LEVELS] {
        let count = self.unscheduled_levels();
        let (unscheduled, _) = self.totals();
        let mut cutoffs = [0; Priority::LEVELS];
        let (mut class, mut below) = (0, 0);
        for step in 1..=count {
            let level = self.levels - step;
            let share = unscheduled * step as u64 / count as u64;
            while below < share
                && let Some(seen) = self.classes.get(class)
            {
                below += seen.unscheduled;
                class += 1;
            }
            let cutoff = if step == count {
                LENGTH_MAX
            } else {
                class_start(class).saturating_sub(1)
            };
            if let Some(slot) = cutoffs.get_mut(level) {
                *slot = cutoff;
            }
        }
        cutoffs
    }

    /// True if no level carries much more than its equal share under `cutoffs`, except what a single
    /// size class makes inevitable.
    fn suits(&self, cutoffs: &[u32; Priority::LEVELS]) -> bool {
        let (unscheduled, _) = self.totals();
        let mut carried = [(0_u64, 0_u64); Priority::LEVELS];
        let current = UnscheduledCutoffs {
            cutoffs: *cutoffs,
            version: 0,
        };
        for (index, class) in self.classes.iter().enumerate() {
            let level = usize::from(current.level(class_start(index)).level());
            if let Some((bytes, largest)) = carried.get_mut(level) {
                *bytes += class.unscheduled;
                *largest = class.unscheduled.max(*largest);
            }
        }
        let fair = unscheduled / level_count(cutoffs).max(1);
        carried
            .iter()
            .all(|(bytes, largest)| *bytes <= fair * IMBALANCE_MAX + *largest)
    }
}

/// Longest message: the lowest unscheduled level takes all.
pub(crate) const LENGTH_MAX: u32 = 1_000_000;

/// Levels that unscheduled bytes use under `cutoffs`.
fn level_count(cutoffs: &[u32; Priority::LEVELS]) -> u64 {
    let lowest = cutoffs
        .iter()
        .rposition(|cutoff| *cutoff >= LENGTH_MAX)
        .unwrap_or(0);
    let used = cutoffs
        .iter()
        .skip(lowest)
        .filter(|cutoff| **cutoff > 0)
        .count();
    used as u64
}

fn class_of(length: u32) -> usize {
    let length = length.max(1);
    let doublings = length.ilog2();
    let within = u64::from(length - (1 << doublings)) * u64::from(CLASSES_PER_DOUBLING);
    let step = u32::try_from(within >> doublings).unwrap_or(0);
    (doublings * CLASSES_PER_DOUBLING + step) as usize
}

/// Smallest length of `class`.
fn class_start(class: usize) -> u32 {
    let class = u32::try_from(class).unwrap_or(u32::MAX);
    let (doublings, step) = (class / CLASSES_PER_DOUBLING, class % CLASSES_PER_DOUBLING);
    let start = (1_u64 << doublings.min(32)) * u64::from(CLASSES_PER_DOUBLING + step);
    let start = start.div_ceil(u64::from(CLASSES_PER_DOUBLING));
    u32::try_from(start).unwrap_or(u32::MAX).min(LENGTH_MAX)
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
    fn the_version_tells_tables_apart_and_is_that_of_the_module_for_the_modules() {
        assert_eq!(UnscheduledCutoffs::factory(8), UnscheduledCutoffs::FACTORY);
        let mut versions: Vec<u16> = (1..=8)
            .map(|levels| UnscheduledCutoffs::factory(levels).version())
            .collect();
        assert_eq!(versions[7], 1);
        assert!(versions[..7].iter().all(|version| *version > 1));
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), 8, "{versions:?}");
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

    /// Shows `count` messages of each length.
    fn see(sizes: &mut SizesSeen, lengths: &[(u32, u64)]) {
        for (length, count) in lengths {
            for _ in 0..*count {
                sizes.on_message(*length);
            }
        }
    }

    #[test]
    fn size_classes_are_contiguous() {
        for length in 1..200_000_u32 {
            let class = class_of(length);
            assert!(class_start(class) <= length, "{length}");
            assert!(
                length < class_start(class + 1).max(class_start(class) + 1),
                "{length}"
            );
        }
    }

    #[test]
    fn the_share_of_unscheduled_bytes_decides_how_many_levels_they_get() {
        // 2,000,000 bytes of short messages; of each long one 40,000 of 1,000,000 are unscheduled.
        for (long, levels) in [(0, 8), (1, 5), (5, 3), (100_000, 1)] {
            let mut sizes = SizesSeen::new(8, 40_000);
            see(&mut sizes, &[(100, 20_000), (1_000_000, long)]);
            assert_eq!(sizes.unscheduled_levels(), levels, "{long} long messages");
        }
    }

    #[test]
    fn each_unscheduled_level_carries_the_same_bytes_short_messages_on_top() {
        let mut sizes = SizesSeen::new(8, 1_000_000);
        let lengths: Vec<(u32, u64)> = (1..=4000).map(|length| (length * 2, 10)).collect();
        see(&mut sizes, &lengths);
        let new = sizes.recompute(&UnscheduledCutoffs::FACTORY).unwrap();
        assert!(new.version() > 1);
        let mut carried = [0_u64; 8];
        for (length, count) in &lengths {
            carried[usize::from(new.level(*length).level())] += u64::from(*length) * count;
        }
        let fair = carried.iter().sum::<u64>() / 8;
        for bytes in carried {
            assert!(bytes.abs_diff(fair) < fair / 3, "{carried:?}");
        }
        assert!(new.level(1) > new.level(8_000));
    }

    /// The expected cutoffs are those of the rule worked out on the exact tables, outside of this
    /// code: 40,000 unscheduled bytes, messages of at most 1,000,000 bytes.
    #[cfg(feature = "sim")]
    #[test]
    fn the_five_workloads_of_the_homa_papers_get_the_cutoffs_of_the_rule() {
        use homa_sim::Workload;
        let expected: [(Workload, &[u32]); 5] = [
            (Workload::W1, &[181, 334, 518, 780, 1_210, 2_172, 1_000_000]),
            (Workload::W2, &[284, 366, 465, 731, 2_048, 6_302, 1_000_000]),
            (Workload::W3, &[2_979, 11_582, 46_618, 1_000_000]),
            (Workload::W4, &[77_672, 1_000_000]),
            (Workload::W5, &[1_000_000]),
        ];
        for (workload, highest_first) in expected {
            let mut sizes = SizesSeen::new(8, 40_000);
            let mut shown = 0_u32;
            for (size, share_up_to) in workload.sizes().steps() {
                while f64::from(shown) < share_up_to * 1e6 {
                    sizes.on_message(size.min(LENGTH_MAX));
                    shown += 1;
                }
            }
            let cutoffs = sizes.cutoffs();
            let levels = level_count(&cutoffs);
            assert_eq!(
                levels,
                highest_first.len() as u64,
                "{workload:?}: {cutoffs:?}"
            );
            for (cutoff, exact) in cutoffs.iter().rev().zip(highest_first) {
                // A size class is a thirty-second of its power of two wide.
                let off = cutoff.abs_diff(*exact);
                assert!(
                    off <= exact / 25 + 2,
                    "{workload:?}: {cutoff} for {exact} in {cutoffs:?}"
                );
            }
        }
    }

    #[test]
    fn cutoffs_follow_traffic_that_changes_and_stay_with_traffic_that_does_not() {
        let mut sizes = SizesSeen::new(8, 40_000);
        let mut current = UnscheduledCutoffs::FACTORY;
        let mut changes = 0;
        for round in 0..40 {
            let lengths: &[(u32, u64)] = if round < 20 {
                &[(50, 5_000), (300, 4_000), (5_000, 900), (500_000, 100)]
            } else {
                &[(2_000, 3_000), (9_000, 6_000), (30_000, 1_000)]
            };
            see(&mut sizes, lengths);
            // What fluctuates by chance.
            see(&mut sizes, &[(700, round % 3 * 20)]);
            if let Some(new) = sizes.recompute(&current) {
                current = new;
                changes += 1;
            }
        }
        assert!((2..=6).contains(&changes), "{changes} changes");
        assert!(current.level(2_000) > current.level(30_000));
    }

    #[test]
    fn a_single_size_and_a_single_level_do_no_harm() {
        for levels in 1..=8 {
            let mut sizes = SizesSeen::new(levels, 40_000);
            see(&mut sizes, &[(1_000_000, 20_000)]);
            let current = sizes.recompute(&UnscheduledCutoffs::FACTORY);
            let cutoffs = current.unwrap_or(UnscheduledCutoffs::FACTORY);
            assert!(cutoffs.scheduled_max() < 8);
        }
        assert_eq!(
            SizesSeen::new(8, 40_000).recompute(&UnscheduledCutoffs::FACTORY),
            None
        );
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
