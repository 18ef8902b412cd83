//! Memory that a burst has left behind goes back: tables keep room for four times what they hold at
//! most. It is looked at from time to time, not per packet.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::shrink::{KEPT, shrink_queue};
use crate::units::Instant;

/// Time between two looks: a burst that comes again sooner finds its tables as they were.
const INTERVAL: Duration = Duration::from_secs(10);
/// Bytes held for a burst, at least.
const BURST_BYTES: usize = 2 << 20;
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
}
