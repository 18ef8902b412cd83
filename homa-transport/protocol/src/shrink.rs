//! Room that tables keep: for four times what they hold at most.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// Entries for which a table may always have room.
pub(crate) const KEPT: usize = 64;

/// How much room a table of so many entries keeps, if it has too much.
fn excess(len: usize, capacity: usize) -> Option<usize> {
    (capacity > KEPT.max(len.saturating_mul(4))).then(|| len.saturating_mul(2))
}

/// Gives back what a map has too much.
pub(crate) fn shrink<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if let Some(room) = excess(map.len(), map.capacity()) {
        map.shrink_to(room);
    }
}

/// The same for a queue.
pub(crate) fn shrink_queue<T>(queue: &mut VecDeque<T>) {
    if let Some(room) = excess(queue.len(), queue.capacity()) {
        queue.shrink_to(room);
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
