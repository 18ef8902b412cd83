//! How many frames a client leaves with the server for the response to come in, and how much each may bring.

/// What a pull brings at first, in bytes.
const BYTES_FIRST: u32 = 65_536;
/// Pulls at a time, at most.
const COUNT_MAX: u32 = 8;
/// What all pulls together bring, at most, in bytes.
const WINDOW_MAX: u32 = 1 << 21;
/// Pulls for a message that is longer than all of them bring: so many, for as much each.
const LONG_COUNT: u32 = 4;
const LONG_BYTES: u32 = 480_000;
/// No pull for less than this, in bytes.
const BYTES_MIN: u32 = 4_096;

/// The pulls of one call.
#[derive(Debug)]
pub(super) struct Pulls {
    /// Frames that the server can answer whenever it likes.
    parked: u32,
    /// The credit of these in all.
    credit: u32,
    /// Those of them with credit.
    with_credit: u32,
    /// How many there should be.
    target: u32,
    /// Credit of each.
    bytes: u32,
}

impl Pulls {
    pub(super) const fn new() -> Self {
        Self {
            parked: 0,
            credit: 0,
            with_credit: 0,
            target: 1,
            bytes: BYTES_FIRST,
        }
    }

    /// The credit of a pull to be sent now, while `buffered` bytes wait for the reader. `None` if there are
    /// enough. One is always parked, by which the server can tell how the call ended.
    pub(super) fn next(&self, buffered: usize) -> Option<u32> {
        let window = self.bytes.saturating_mul(self.target);
        let used = u32::try_from(buffered).unwrap_or(u32::MAX);
        let free = window.saturating_sub(used).saturating_sub(self.credit);
        let wanted = self.bytes.min(free);
        if self.with_credit < self.target && wanted >= self.bytes / 2 {
            return Some(wanted);
        }
        let none_parked = self.parked == 0;
        none_parked.then_some(if wanted >= BYTES_MIN { wanted } else { 0 })
    }

    pub(super) const fn is_none_parked(&self) -> bool {
        self.parked == 0
    }

    pub(super) const fn on_sent(&mut self, credit: u32) {
        self.parked += 1;
        self.credit += credit;
        self.with_credit += (credit > 0) as u32;
    }

    /// One was answered, with so many bytes.
    pub(super) fn on_reply(&mut self, credit: u32, cost: usize) {
        self.parked -= 1;
        self.credit -= credit;
        self.with_credit -= u32::from(credit > 0);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        // A run of items is that long at most, whatever the credit.
        let full = credit.min(BYTES_FIRST);
        if cost >= full / 2 && cost > 0 {
            self.grow(cost >= credit / 2);
        } else if self.target > 1 && cost < full / 4 {
            self.target -= 1;
        }
    }

    /// A message is on its way of which so many bytes are missing.
    pub(super) fn expect(&mut self, missing: u32) {
        if missing > self.bytes.saturating_mul(self.target) {
            self.target = LONG_COUNT;
            self.bytes = LONG_BYTES;
        }
    }

    /// The server fills what it gets; `all_of_it` if more credit would be used too.
    fn grow(&mut self, all_of_it: bool) {
        if self.bytes.saturating_mul(2 * self.target) > WINDOW_MAX {
            return;
        }
        if self.target < COUNT_MAX {
            self.target *= 2;
        } else if all_of_it {
            self.bytes *= 2;
        }
    }
}
