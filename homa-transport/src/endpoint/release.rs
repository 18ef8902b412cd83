//! Memory that a burst has left behind goes back: tables keep room for four times what they hold at
//! most. It is looked at from time to time, not per packet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::Endpoint;
use crate::units::Instant;

/// Time between two looks: a burst that comes again sooner finds its tables as they were.
const INTERVAL: Duration = Duration::from_secs(10);
/// Entries for which a table may always have room.
const KEPT: usize = 64;

/// How much room a table of so many entries keeps, if it has too much.
fn excess(len: usize, capacity: usize) -> Option<usize> {
    (capacity > KEPT.max(len.saturating_mul(4))).then(|| len.saturating_mul(2))
}

/// Gives back what a map has too much.
pub(super) fn shrink<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if let Some(room) = excess(map.len(), map.capacity()) {
        map.shrink_to(room);
    }
}

/// The same for a set.
pub(super) fn shrink_set<T: Eq + Hash, S: BuildHasher>(set: &mut HashSet<T, S>) {
    if let Some(room) = excess(set.len(), set.capacity()) {
        set.shrink_to(room);
    }
}

/// The same for a queue.
pub(super) fn shrink_queue<T>(queue: &mut VecDeque<T>) {
    if let Some(room) = excess(queue.len(), queue.capacity()) {
        queue.shrink_to(room);
    }
}

impl Endpoint {
    /// Gives back what a burst has left, if it is time to look, or nobody is there any more.
    pub(super) fn release_memory(&mut self, now: Instant) {
        if now < self.next_release && !self.peers.is_empty() {
            return;
        }
        self.next_release = now + INTERVAL;
        self.table.release();
        self.replays.release();
        self.peers.release(!self.replays.is_empty());
        self.grants.release();
        self.waiting.release();
        self.timers.release();
        shrink_queue(&mut self.control);
        shrink_queue(&mut self.events);
        if self.released.is_empty() {
            self.released.shrink_to(KEPT);
        }
        if self.due.is_empty() {
            self.due.shrink_to(KEPT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_room_for_what_it_holds_and_no_more_than_four_times_that() {
        let mut map: HashMap<u32, u32> = (0..100_000).map(|number| (number, 0)).collect();
        map.retain(|number, _| *number < 1_000);
        shrink(&mut map);
        assert!(
            (1_000..8_000).contains(&map.capacity()),
            "{}",
            map.capacity()
        );
        let before = map.capacity();
        shrink(&mut map);
        assert_eq!(map.capacity(), before);
        map.clear();
        shrink(&mut map);
        assert!(map.capacity() <= KEPT);
        let mut queue: VecDeque<u32> = (0..100_000).collect();
        queue.clear();
        shrink_queue(&mut queue);
        assert!(queue.capacity() <= KEPT);
    }
}
