//! What happened to the packets of a network.

use std::ops::AddAssign;

/// What happened to packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Packets handed to the network.
    pub sent: u64,
    /// Packets handed to hosts, second copies included.
    pub delivered: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets of which a second copy was made.
    pub duplicated: u64,
    /// Packets that arrived after one that was sent later by the same host to the same host.
    pub reordered: u64,
    /// Packets of which bits were flipped.
    pub corrupted: u64,
    /// Packets lost because their hosts were on two sides of a partition.
    pub cut_off: u64,
    /// Packets dropped by switches without room.
    pub overflowed: u64,
    /// Packets too long for their way.
    pub too_long: u64,
}

impl AddAssign for NetworkCounts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.cut_off += other.cut_off;
        self.overflowed += other.overflowed;
        self.too_long += other.too_long;
    }
}
