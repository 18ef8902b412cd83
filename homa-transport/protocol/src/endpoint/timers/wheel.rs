//! Timers of RPCs: a wheel of one-millisecond slots. Setting one costs O(1), and so does forgetting
//! one: an entry whose RPC is gone, or was set to an earlier time, is ignored when it comes up.

use std::collections::VecDeque;

use crate::endpoint::RpcKey;
use crate::shrink::shrink_queue;
use crate::units::Instant;

/// Nanoseconds per slot: the tick of the kernel module.
const TICK_NANOS: u64 = 1_000_000;
/// Slots of the wheel; a later time waits in the last one and is set again from there.
const SLOTS: u64 = 1024;
/// Entries for which an empty slot keeps its memory.
const SLOT_KEEPS: usize = 16;
/// RPCs looked at in one run of the timers. A driver looks for packets between two of them.
const DUE_MAX: usize = 1_024;

/// Which RPCs to look at, and when.
#[derive(Debug)]
pub(crate) struct Timers {
    slots: Vec<Vec<RpcKey>>,
    /// One bit per slot that is not empty.
    occupied: [u64; (SLOTS / 64) as usize],
    /// The first tick whose slot has not been run.
    next_tick: u64,
    entries: usize,
    /// RPCs whose time has come and that have not been looked at yet, in the order of their times.
    overdue: VecDeque<RpcKey>,
    /// Slots kept their memory at the last release because of the entries in them.
    release_when_empty: bool,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; (SLOTS / 64) as usize],
            next_tick: 0,
            entries: 0,
            overdue: VecDeque::new(),
            release_when_empty: false,
        }
    }

    /// Makes sure that `rpc` comes up soon after `at`: at the next tick, or earlier if that is further
    /// away than the wheel reaches from where it stands. `current` is the time for which a timer of it
    /// is set already. Returns the time of the first.
    pub(crate) fn set(&mut self, at: Instant, rpc: RpcKey, current: Option<Instant>) -> Instant {
        let wanted = at.as_nanos().div_ceil(TICK_NANOS);
        let tick = wanted.clamp(self.next_tick, self.next_tick + SLOTS - 1);
        let set_for = Instant::from_nanos(tick * TICK_NANOS);
        // Compared in ticks, or each call within one of them would leave an entry.
        if let Some(current) = current.filter(|current| *current <= set_for) {
            return current;
        }
        let slot = slot_of(tick);
        if let Some(entries) = self.slots.get_mut(slot) {
            entries.push(rpc);
            self.entries += 1;
        }
        if let Some(word) = self.occupied.get_mut(slot / 64) {
            *word |= 1 << (slot % 64);
        }
        set_for
    }

    /// The earliest time for which a timer is set; in the past if some are overdue.
    pub(crate) fn next(&self) -> Option<Instant> {
        if !self.overdue.is_empty() {
            return Some(Instant::ZERO);
        }
        self.next_occupied()
            .map(|tick| Instant::from_nanos(tick * TICK_NANOS))
    }

    /// Gives memory back that is no longer used.
    pub(crate) fn release(&mut self) {
        shrink_queue(&mut self.overdue);
        // Not when a slot is run: a steady load would make it grow again each time.
        for entries in self.slots.iter_mut().filter(|slot| slot.is_empty()) {
            entries.shrink_to(SLOT_KEEPS);
        }
        self.release_when_empty = self.entries > 0;
    }

    /// The first tick whose slot is not empty.
    fn next_occupied(&self) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        let mut tick = self.next_tick;
        let end = self.next_tick + SLOTS;
        while tick < end {
            let slot = slot_of(tick);
            let word = self.occupied.get(slot / 64).copied().unwrap_or(0) >> (slot % 64);
            if word != 0 {
                return Some(tick + u64::from(word.trailing_zeros()));
            }
            tick += 64 - (slot % 64) as u64;
        }
        None
    }

    /// Moves RPCs whose time has come by `now` into `due`, a bounded number of them. If there are more,
    /// [`Timers::next`] stays in the past.
    pub(crate) fn expire(&mut self, now: Instant, due: &mut Vec<RpcKey>) {
        let now_tick = now.as_nanos() / TICK_NANOS;
        // The wheel is turned to the present whatever the number: timers are set from where it stands.
        while let Some(tick) = self.next_occupied().filter(|tick| *tick <= now_tick) {
            let slot = slot_of(tick);
            if let Some(entries) = self.slots.get_mut(slot) {
                self.entries -= entries.len();
                self.overdue.extend(entries.drain(..));
            }
            if let Some(word) = self.occupied.get_mut(slot / 64) {
                *word &= !(1 << (slot % 64));
            }
            self.next_tick = tick + 1;
        }
        self.next_tick = self.next_tick.max(now_tick);
        let taken = self.overdue.len().min(DUE_MAX);
        due.extend(self.overdue.drain(..taken));
        if self.release_when_empty && self.entries == 0 && self.overdue.is_empty() {
            self.release();
        }
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1000)
    }

    fn expired(timers: &mut Timers, now: Instant) -> Vec<RpcKey> {
        let mut due = Vec::new();
        timers.expire(now, &mut due);
        due
    }

    #[test]
    fn a_timer_comes_up_at_the_first_tick_from_its_time() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let (a, b) = (keys.insert(()), keys.insert(()));
        let mut timers = Timers::new();
        assert_eq!(timers.next(), None);
        assert_eq!(timers.set(at(5_200), a, None), at(6_000));
        assert_eq!(timers.set(at(2_000), b, None), at(2_000));
        assert_eq!(timers.next(), Some(at(2_000)));
        assert_eq!(expired(&mut timers, at(1_999)), []);
        assert_eq!(expired(&mut timers, at(2_000)), [b]);
        assert_eq!(timers.next(), Some(at(6_000)));
        assert_eq!(expired(&mut timers, at(50_000)), [a]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn timers_of_one_rpc_within_a_tick_are_one_entry() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let a = keys.insert(());
        let mut timers = Timers::new();
        let mut set_for = None;
        for micros in [5_900, 5_200, 5_100, 5_999, 7_000] {
            set_for = Some(timers.set(at(micros), a, set_for));
            assert_eq!(set_for, Some(at(6_000)));
        }
        assert_eq!(timers.set(at(4_500), a, set_for), at(5_000));
        assert_eq!(timers.entries, 2);
    }

    #[test]
    fn a_time_beyond_the_wheel_comes_up_early_and_can_be_set_again() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let a = keys.insert(());
        let mut timers = Timers::new();
        let goal = at(10_000_000);
        let mut now = at(0);
        let keeper = keys.insert(());
        timers.set(at(500), keeper, None);
        let mut set_for = timers.set(goal, a, None);
        let mut rounds = 0;
        while set_for < goal {
            now = timers.next().unwrap().max(now);
            if expired(&mut timers, now).contains(&a) {
                set_for = timers.set(goal, a, None);
            }
            rounds += 1;
            assert!(rounds < 100);
        }
        assert_eq!(set_for, goal);
    }

    #[test]
    fn a_long_stall_brings_up_everything_once() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let mut timers = Timers::new();
        let all: Vec<RpcKey> = (0..2000).map(|_| keys.insert(())).collect();
        for (i, key) in all.iter().enumerate() {
            timers.set(at(i as u64 * 400), *key, None);
        }
        let mut due = expired(&mut timers, at(100_000_000));
        assert_eq!(due.len(), DUE_MAX);
        assert!(timers.next().unwrap() <= at(100_000_000), "the rest is due");
        due.extend(expired(&mut timers, at(100_000_000)));
        due.sort();
        assert_eq!(due, all);
        assert_eq!(timers.next(), None);
        // One that is set meanwhile is not set for the past.
        let again = timers.set(at(100_003_000), all[0], None);
        assert_eq!(again, at(100_003_000));
    }

    #[test]
    fn timers_set_again_after_a_long_stall_are_not_due_at_once() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let mut timers = Timers::new();
        for i in 0..2 * DUE_MAX as u64 {
            timers.set(at(i), keys.insert(()), None);
        }
        let now = at(60_000_000);
        for _ in 0..2 {
            for key in expired(&mut timers, now) {
                assert_eq!(timers.set(at(60_005_000), key, None), at(60_005_000));
            }
        }
        assert_eq!(timers.next(), Some(at(60_005_000)));
    }
}
