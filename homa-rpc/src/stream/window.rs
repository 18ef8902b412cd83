//! How much of its request a client may send: a window over the bytes that the reader has not taken.

use super::FIRST_CREDIT;
use super::serial::{ahead, left};

/// Largest window, in bytes.
const SIZE_MAX: u32 = 1 << 21;

/// The window of one call. Numbers of bytes are counted from the start of the call, modulo 2^32.
#[derive(Debug)]
pub(super) struct Window {
    size: u32,
    /// Up to where the client was told that it may send.
    told: u32,
}

impl Window {
    /// `start` is where counting begins, which is 0 but in tests.
    pub(super) const fn new(start: u32) -> Self {
        Self {
            size: FIRST_CREDIT,
            told: start.wrapping_add(FIRST_CREDIT),
        }
    }

    /// The credit that was told.
    pub(super) const fn told(&self) -> u32 {
        self.told
    }

    /// Bytes that may come beyond `received`.
    pub(super) fn left(&self, received: u32) -> u32 {
        left(self.told, received)
    }

    /// Whether the client should be told even if there is nothing else to say: it may be waiting for that.
    pub(super) const fn is_worth_telling(&self, taken: u32) -> bool {
        let growth = ahead(taken.wrapping_add(self.size), self.told);
        growth >= (self.size / 2).cast_signed()
    }

    /// The credit to tell.
    pub(super) fn tell(&mut self, taken: u32, received: u32) -> u32 {
        // A reader that keeps up with a client that uses what it has gets more.
        if taken == received && self.left(received) <= self.size / 2 {
            self.size = (self.size * 2).min(SIZE_MAX);
        }
        let limit = taken.wrapping_add(self.size);
        if ahead(limit, self.told) > 0 {
            self.told = limit;
        }
        self.told
    }

    /// A long message has begun, of which so many bytes are missing.
    pub(super) fn expect(&mut self, missing: u32) {
        self.size = self.size.max(missing.min(SIZE_MAX));
    }
}
