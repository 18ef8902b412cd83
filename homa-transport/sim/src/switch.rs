//! An output port: eight queues in strict priority order before one link, and the memory that the
//! ports of a switch share.

use std::collections::VecDeque;

use super::packet::PacketId;
use homa_protocol::units::{Instant, Priority};

/// The sending side of a link, of a switch or a host. Busy times are kept in picoseconds, so that
/// rounding does not change its capacity.
#[derive(Debug)]
pub(super) struct Transmitter {
    picos_per_byte: u64,
    /// End of the last packet, in picoseconds.
    free_at: u64,
}

impl Transmitter {
    pub(super) const fn new(mbps: u64) -> Self {
        Self {
            picos_per_byte: 8_000_000 / if mbps == 0 { 1 } else { mbps },
            free_at: 0,
        }
    }

    /// When the packet being sent has left.
    pub(super) const fn free_at(&self) -> Instant {
        Instant::from_nanos(self.free_at.div_ceil(1_000))
    }

    /// Sends a packet of `wire_bytes` as soon as the link is free, and returns when it has left.
    pub(super) fn send(&mut self, now: Instant, wire_bytes: usize) -> Instant {
        // Whoever comes in the nanosecond in which the link gets free follows without a gap.
        let start = if self.free_at() >= now {
            self.free_at
        } else {
            now.as_nanos() * 1_000
        };
        self.free_at = start + wire_bytes as u64 * self.picos_per_byte;
        self.free_at()
    }
}

/// An output port of a switch.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) transmitter: Transmitter,
    /// Which switch's memory it uses.
    pub(super) switch: usize,
    queues: [VecDeque<PacketId>; Priority::LEVELS],
    /// Bit `i`: queue `i` is not empty.
    occupied: u8,
    /// A wake-up for the time at which the link is free is on its way.
    pub(super) waking: bool,
}

impl Port {
    pub(super) fn new(mbps: u64, switch: usize) -> Self {
        Self {
            transmitter: Transmitter::new(mbps),
            switch,
            queues: Default::default(),
            occupied: 0,
            waking: false,
        }
    }

    /// True if a packet that comes now can be sent at once.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.occupied == 0 && self.transmitter.free_at() <= now
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    pub(super) fn push(&mut self, packet: PacketId, level: Priority) {
        if let Some(queue) = self.queues.get_mut(usize::from(level.level())) {
            queue.push_back(packet);
            self.occupied |= 1 << level.level();
        }
    }

    /// The packet to send next: the oldest of the highest level.
    pub(super) fn pop(&mut self) -> Option<PacketId> {
        let level = self.occupied.checked_ilog2()?;
        let queue = self.queues.get_mut(level as usize)?;
        let packet = queue.pop_front();
        if queue.is_empty() {
            self.occupied &= !(1 << level);
        }
        packet
    }
}

/// The memory of a switch.
#[derive(Debug)]
pub(super) struct Buffer {
    used: usize,
    limit: usize,
    /// Most that was ever used.
    peak: usize,
}

impl Buffer {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self {
            used: 0,
            limit: limit.unwrap_or(usize::MAX),
            peak: 0,
        }
    }

    /// Takes room for a packet; false if there is not enough.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if bytes > self.limit - self.used {
            return false;
        }
        self.used += bytes;
        self.peak = self.peak.max(self.used);
        true
    }

    pub(super) const fn give_back(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }

    pub(super) const fn peak(&self) -> usize {
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_by_level_and_in_order_within_one() {
        let mut port = Port::new(10_000, 0);
        for (packet, level) in [(1, 2), (2, 7), (3, 2), (4, 0), (5, 7)] {
            port.push(PacketId(packet), Priority::saturating(level));
        }
        let order: Vec<u32> = std::iter::from_fn(|| port.pop().map(|packet| packet.0)).collect();
        assert_eq!(order, [2, 5, 1, 3, 4]);
        assert!(port.is_empty());
    }

    #[test]
    fn packets_without_pause_use_the_link_to_the_picosecond() {
        let mut link = Transmitter::new(10_000);
        let mut now = Instant::from_nanos(1_000);
        for _ in 0..1_000 {
            now = link.send(now, 84);
        }
        // 84 bytes take 67.2 ns, a thousand of them exactly 67.2 us.
        assert_eq!(now, Instant::from_nanos(1_000 + 67_200));
        assert_eq!(
            link.send(Instant::from_nanos(100_000), 1_538).as_nanos(),
            101_231
        );
    }

    #[test]
    fn a_full_switch_refuses_packets_until_others_have_left() {
        let mut buffer = Buffer::new(Some(3_000));
        assert!(buffer.take(1_500) && buffer.take(1_500) && !buffer.take(1));
        buffer.give_back(1_500);
        assert!(buffer.take(1_400));
        assert_eq!(buffer.peak(), 3_000);
    }
}
