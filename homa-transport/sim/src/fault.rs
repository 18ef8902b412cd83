//! What goes wrong: with single packets by chance, with hosts and paths on schedule.

use std::time::Duration;

use super::random::Random;
use super::random::nanos;

/// Faults of single packets. Probabilities are in millionths and independent of one another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketFaults {
    /// Packets that vanish.
    pub loss: u32,
    /// Packets that arrive twice.
    pub duplication: u32,
    /// Packets that are held up, and so may be overtaken.
    pub reordering: u32,
    /// Packets of which some bits are flipped.
    pub corruption: u32,
    /// Longest time for which a packet, or the second copy of one, is held up.
    pub hold_up_max: Duration,
    /// What becomes of packets with flipped bits.
    pub damaged: Damaged,
}

/// What becomes of packets with flipped bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damaged {
    /// The checksum of a lower layer (UDP, Ethernet) shows the damage, and they are dropped.
    #[default]
    Dropped,
    /// They pass for sound, as if the checksum were right by chance.
    Delivered,
}

/// What is to happen to one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) lost: bool,
    pub(super) damaged: bool,
    /// Nanoseconds.
    pub(super) held_up: u64,
    /// A second copy arrives, held up by these nanoseconds.
    pub(super) copy: Option<u64>,
}

impl PacketFaults {
    /// True if nothing ever goes wrong.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.loss == 0 && self.duplication == 0 && self.reordering == 0 && self.corruption == 0
    }

    pub(super) fn fate(&self, random: &mut Random) -> Fate {
        Fate {
            lost: random.chance(self.loss),
            damaged: random.chance(self.corruption),
            held_up: if random.chance(self.reordering) {
                self.hold_up(random)
            } else {
                0
            },
            copy: random
                .chance(self.duplication)
                .then(|| self.hold_up(random)),
        }
    }

    fn hold_up(&self, random: &mut Random) -> u64 {
        nanos(random.duration(Duration::from_micros(1), self.hold_up_max))
    }
}

/// Flips one to eight bits of `bytes`.
pub(super) fn flip_bits(bytes: &mut [u8], random: &mut Random) {
    for _ in 0..random.between(1, 8) {
        let bit = random.below(8);
        let at = random.index(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }
}

/// A fault of hosts or paths, that begins at a set time and ends after a set time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// When it begins, counted from the start of the world.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub kind: DisturbanceKind,
}

/// Kinds of faults of hosts and paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisturbanceKind {
    /// No packet passes between a host of the set and one outside it.
    Partition {
        /// Hosts on one side.
        side: Vec<usize>,
    },
    /// The process dies with all it knows; then a new one starts on the same address.
    Crash {
        /// Where.
        host: usize,
        /// Packets that arrive meanwhile are answered with "port unreachable".
        reported: bool,
    },
    /// The NAT gives a host behind it another port. That before leads to the host as long as the disturbance
    /// lasts, then packets to it are lost.
    PortChange {
        /// Where; a host of [`Scenario::behind_nat`](super::Scenario::behind_nat).
        host: usize,
    },
    /// The process doesn't run (SIGSTOP, a paused machine). Packets wait in its receive buffer.
    Stall {
        /// Where.
        host: usize,
    },
}
