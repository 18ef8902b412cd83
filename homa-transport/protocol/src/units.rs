//! Newtypes for the quantities of the protocol: points in time, RPC ids, priority levels.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in nanoseconds since an epoch that the driver chooses.
///
/// The protocol core never reads a clock: every input carries one of these, so that the
/// simulator and the tests decide what time it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The epoch itself.
    pub const ZERO: Self = Self(0);

    /// The point `nanos` nanoseconds after the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Instant {
    /// The point `duration` earlier; the epoch if that is before it.
    #[must_use]
    pub const fn before(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        if nanos >= self.0 as u128 {
            return Self::ZERO;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below a u64")]
        Self(self.0 - nanos as u64)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time (584 years after the epoch).
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}ms", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Identifier of an RPC, in the form of one of its two sides.
///
/// A client's ids are even; the server uses the same number with the lowest bit set.
/// A packet carries the form of its sender. Source: homa_wire.h, `homa_local_id`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RpcId(u64);

impl RpcId {
    /// The id with this value, in whatever form it has.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value as it stands in packets.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// True for the client's (even) form.
    #[must_use]
    pub const fn is_client(self) -> bool {
        self.0 & 1 == 0
    }

    /// The same RPC in the other side's form.
    #[must_use]
    pub const fn other_side(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// The same RPC in the client's (even) form.
    #[must_use]
    pub const fn client_form(self) -> Self {
        Self(self.0 & !1)
    }
}

impl fmt::Debug for RpcId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.is_client() { 'c' } else { 's' };
        write!(f, "{:x}{side}", self.0)
    }
}

/// One of Homa's eight priority levels: 0 is the lowest, 7 the highest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Priority(u8);

impl Priority {
    /// Number of levels.
    pub const LEVELS: usize = 8;
    /// Level 0.
    pub const LOWEST: Self = Self(0);
    /// Level 7; all control packets use it.
    pub const HIGHEST: Self = Self(7);

    /// The level with this number, or `None` above 7.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level < 8 { Some(Self(level)) } else { None }
    }

    /// The level with this number; anything above 7 becomes 7.
    #[must_use]
    pub const fn saturating(level: u8) -> Self {
        if level < 8 { Self(level) } else { Self(7) }
    }

    /// Number of the level, 0 to 7.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }

    /// Value of the IPv4 TOS or IPv6 traffic class byte: the level in the upper three bits.
    /// Source: homa_outgoing.c, `__homa_xmit_data`.
    #[must_use]
    pub const fn traffic_class(self) -> u8 {
        self.0 << 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rpc_id_flips_between_the_two_sides() {
        let client = RpcId::new(0x1234);
        assert!(client.is_client());
        let server = client.other_side();
        assert_eq!(server.value(), 0x1235);
        assert_eq!(server.client_form(), client);
        assert_eq!(server.other_side(), client);
    }

    #[test]
    fn instant_arithmetic_saturates() {
        let late = Instant::from_nanos(u64::MAX - 1);
        assert_eq!((late + Duration::from_secs(1)).as_nanos(), u64::MAX);
        assert_eq!(Instant::ZERO - late, Duration::ZERO);
    }

    #[test]
    fn priority_levels_stay_within_three_bits() {
        assert_eq!(Priority::new(8), None);
        assert_eq!(Priority::saturating(200), Priority::HIGHEST);
        assert_eq!(Priority::HIGHEST.traffic_class(), 0xe0);
    }
}
