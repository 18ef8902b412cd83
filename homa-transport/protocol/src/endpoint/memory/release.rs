//! Memory that a burst has left behind goes back: tables keep room for four times what they hold at
//! most. It is looked at from time to time, not per packet.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::units::Instant;

/// Time between two looks: a burst that comes again sooner finds its tables as they were.
const INTERVAL: Duration = Duration::from_secs(10);
/// Entries for which a table may always have room.
const KEPT: usize = 64;

/// Bytes held for a burst, at least.
const BURST_BYTES: usize = 8 << 20;
/// About what an RPC or a peer takes in all, in bytes.
const RECORD_BYTES: usize = 1_024;

/// Whether a burst has come and gone.
#[derive(Debug, Default)]
pub(in crate::endpoint) struct BurstWatch {
    /// The most that was held since the last look, in bytes.
    recent: usize,
    /// The most that was held before that, since a burst was over.
    high: usize,
    over: bool,
}

impl BurstWatch {
    /// So much is held now.
    fn sample(&mut self, bytes: usize) {
        self.recent = self.recent.max(bytes);
    }

    /// A quarter of what was held before, all the time since the last look, means that a burst is over.
    fn look(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        if self.high >= BURST_BYTES && recent <= self.high / 4 {
            self.over = true;
            self.high = recent;
        } else {
            self.high = self.high.max(recent);
        }
    }
}

/// How much room a table of so many entries keeps, if it has too much.
fn excess(len: usize, capacity: usize) -> Option<usize> {
    (capacity > KEPT.max(len.saturating_mul(4))).then(|| len.saturating_mul(2))
}

/// Gives back what a map has too much.
pub(in crate::endpoint) fn shrink<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if let Some(room) = excess(map.len(), map.capacity()) {
        map.shrink_to(room);
    }
}

/// The same for a queue.
pub(in crate::endpoint) fn shrink_queue<T>(queue: &mut VecDeque<T>) {
    if let Some(room) = excess(queue.len(), queue.capacity()) {
        queue.shrink_to(room);
    }
}

impl Endpoint {
    /// Whether a burst of RPCs, peers or bytes has come and gone since this was asked last: its memory has
    /// been freed, and the allocator may be told to give it back.
    pub fn take_burst_over(&mut self) -> bool {
        std::mem::take(&mut self.bursts.over)
    }

    /// Gives back what a burst has left, if it is time to look, or nobody is there any more.
    pub(in crate::endpoint) fn release_memory(&mut self, now: Instant) {
        let records = self.table.len() + self.peers.len();
        let held = records * RECORD_BYTES + self.inbound_bytes + self.outbound_bytes;
        self.bursts.sample(held);
        if now < self.next_release && !self.peers.is_empty() {
            return;
        }
        self.next_release = now + INTERVAL;
        self.bursts.look();
        self.table.release();
        self.replays.release();
        self.peers.release(!self.replays.is_empty());
        self.grants.release();
        self.waiting.release();
        self.timers.release();
        shrink_queue(&mut self.control);
        shrink_queue(&mut self.parts);
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
    fn a_burst_is_over_when_little_is_held_from_one_look_to_the_next() {
        let mut watch = BurstWatch::default();
        let mut over = |samples: &[usize]| {
            samples.iter().for_each(|bytes| watch.sample(*bytes));
            watch.look();
            std::mem::take(&mut watch.over)
        };
        assert!(!over(&[1_000, BURST_BYTES, 1_000]));
        assert!(!over(&[1_000, BURST_BYTES / 2]), "it goes on");
        assert!(over(&[1_000, 2_000]));
        assert!(!over(&[1_000]), "once is enough");
        assert!(!over(&[BURST_BYTES - 1]));
        assert!(!over(&[0]), "that was no burst");
    }

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
