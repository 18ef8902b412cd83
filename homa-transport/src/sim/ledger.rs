//! What a host has granted and not received, reckoned from its packets alone.

use std::collections::HashMap;
use std::ops::Range;

use super::oracle::Invariant;
use crate::units::RpcId;
use crate::wire::Data;

/// Bytes by which the bound on grants may be overstepped: one increment.
const SLACK: u64 = 10_000;
/// Messages of which those whose RPCs have ended are looked for, at least. (That all bytes have come
/// is no end: the endpoint may have refused some.)
const TIDY_AT_MIN: usize = 256;

/// How much may be granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrantBounds {
    /// Bytes granted and not received, over all messages.
    pub(super) max_incoming: u64,
    /// Thousandths of the granted bytes that may be beyond that, for the oldest messages.
    pub(super) fifo_permille: u64,
    /// Size of one such grant.
    pub(super) fifo_increment: u64,
}

/// The messages of more than one packet that come in at one host.
#[derive(Debug, Default)]
pub(super) struct GrantLedger {
    /// By sender and id in the sender's form.
    messages: HashMap<(usize, RpcId), Incoming>,
    /// Granted and not received, over the messages that were granted something.
    outstanding: u64,
    /// Bytes granted so far.
    granted: u64,
    /// Those of them that were granted beyond the bound.
    beyond: u64,
    /// Number of messages at which to look for dead ones.
    tidy_at: usize,
}

#[derive(Debug)]
struct Incoming {
    length: u32,
    granted: u32,
    received: u32,
    /// Received ranges, ascending, not adjacent.
    ranges: Vec<Range<u32>>,
    /// A GRANT was sent for it.
    counts: bool,
}

impl Incoming {
    const fn outstanding(&self) -> u64 {
        if self.counts {
            self.granted.saturating_sub(self.received) as u64
        } else {
            0
        }
    }

    fn add(&mut self, new: Range<u32>) {
        let first = self.ranges.partition_point(|range| range.end < new.start);
        let last = self.ranges.partition_point(|range| range.start <= new.end);
        let mut merged = new;
        for range in self.ranges.drain(first..last) {
            self.received -= range.end - range.start;
            merged = merged.start.min(range.start)..merged.end.max(range.end);
        }
        self.received += merged.end - merged.start;
        self.ranges.insert(first, merged);
    }
}

impl GrantLedger {
    pub(super) fn on_data(
        &mut self,
        peer: usize,
        id: RpcId,
        data: &Data,
        len: usize,
        alive: impl Fn(usize, RpcId) -> bool,
    ) {
        let key = (peer, id);
        if !self.messages.contains_key(&key) {
            if !alive(peer, id) {
                return;
            }
            if self.messages.len() >= self.tidy_at {
                self.forget_dead(&alive);
                self.tidy_at = 2 * self.messages.len() + TIDY_AT_MIN;
            }
            let announced = if data.incoming == 0 {
                data.message_length
            } else {
                data.incoming
            };
            self.messages.insert(
                key,
                Incoming {
                    length: data.message_length,
                    granted: announced.min(data.message_length),
                    received: 0,
                    ranges: Vec::new(),
                    counts: false,
                },
            );
        }
        let Some(message) = self.messages.get_mut(&key) else {
            return;
        };
        let end = u64::from(data.offset) + len as u64;
        let end = u32::try_from(end).unwrap_or(u32::MAX).min(message.length);
        if data.offset >= end {
            return;
        }
        self.outstanding -= message.outstanding();
        message.add(data.offset..end);
        self.outstanding += message.outstanding();
    }

    /// A GRANT is sent for the message `id` (in its sender's form) of `peer`.
    pub(super) fn on_grant(
        &mut self,
        peer: usize,
        id: RpcId,
        offset: u32,
        bounds: GrantBounds,
        alive: impl Fn(usize, RpcId) -> bool,
    ) -> Result<(), (Invariant, String)> {
        let Some(message) = self.messages.get_mut(&(peer, id)) else {
            let detail = format!("GRANT {id:?} to {offset} for a message that is not coming in");
            return Err((Invariant::GrantWithinMessage, detail));
        };
        if offset > message.length {
            let detail = format!("GRANT {id:?} to {offset} of {} bytes", message.length);
            return Err((Invariant::GrantWithinMessage, detail));
        }
        self.outstanding -= message.outstanding();
        message.counts = true;
        let raise = u64::from(offset.saturating_sub(message.granted));
        message.granted = message.granted.max(offset);
        self.outstanding += message.outstanding();
        self.granted += raise;
        let bound = bounds.max_incoming + SLACK;
        if self.outstanding > bound {
            self.forget_dead(alive);
        }
        if self.outstanding <= bound {
            return Ok(());
        }
        // What the oldest messages get regardless of the bound is a share of the whole.
        self.beyond += raise;
        let share = self.granted * bounds.fifo_permille / 1_000 + bounds.fifo_increment;
        if bounds.fifo_permille > 0 && self.beyond <= share {
            return Ok(());
        }
        let detail = format!(
            "GRANT {id:?} to {offset}: {} bytes are granted and have not come, {} allowed",
            self.outstanding, bounds.max_incoming
        );
        Err((Invariant::GrantsBounded, detail))
    }

    /// Forgets messages whose RPCs have ended.
    fn forget_dead(&mut self, alive: impl Fn(usize, RpcId) -> bool) {
        self.messages.retain(|(peer, id), _| alive(*peer, *id));
        self.outstanding = self.messages.values().map(Incoming::outstanding).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(length: u32, offset: u32) -> Data {
        Data {
            message_length: length,
            incoming: 40_000,
            ack: None,
            cutoff_version: 1,
            retransmit: false,
            few_unscheduled: false,
            offset,
        }
    }

    const BOUNDS: GrantBounds = GrantBounds {
        max_incoming: 400_000,
        fifo_permille: 0,
        fifo_increment: 50_000,
    };

    #[test]
    fn what_has_come_twice_or_out_of_order_counts_once() {
        let mut ledger = GrantLedger::default();
        let id = RpcId::new(2);
        for offset in [0, 3_000, 1_000, 1_000, 2_500] {
            ledger.on_data(1, id, &data(500_000, offset), 1_000, |_, _| true);
        }
        assert_eq!(ledger.outstanding, 0, "nothing was granted by us");
        assert!(ledger.on_grant(1, id, 100_000, BOUNDS, |_, _| true).is_ok());
        assert_eq!(ledger.outstanding, 100_000 - 3_500);
    }

    #[test]
    fn grants_beyond_the_message_or_the_bound_are_seen() {
        let mut ledger = GrantLedger::default();
        for call in 1..=5 {
            ledger.on_data(1, RpcId::new(call * 2), &data(500_000, 0), 1_000, |_, _| {
                true
            });
        }
        let grant = |ledger: &mut GrantLedger, id, offset, live| {
            ledger.on_grant(1, RpcId::new(id), offset, BOUNDS, |_, _| live)
        };
        let seen = |result: Result<(), (Invariant, String)>| result.unwrap_err().0;
        assert_eq!(
            seen(grant(&mut ledger, 2, 500_001, true)),
            Invariant::GrantWithinMessage
        );
        assert_eq!(
            seen(grant(&mut ledger, 99, 5_000, true)),
            Invariant::GrantWithinMessage
        );
        assert!(grant(&mut ledger, 2, 200_000, true).is_ok());
        assert!(grant(&mut ledger, 4, 200_000, true).is_ok());
        assert_eq!(
            seen(grant(&mut ledger, 6, 100_000, true)),
            Invariant::GrantsBounded
        );
        assert!(
            grant(&mut ledger, 8, 100_000, false).is_ok(),
            "RPCs that are over do not count"
        );
    }

    #[test]
    fn a_share_for_the_oldest_may_be_beyond_the_bound_and_no_more() {
        let bounds = GrantBounds {
            fifo_permille: 50,
            ..BOUNDS
        };
        let mut ledger = GrantLedger::default();
        for call in 1..=5 {
            ledger.on_data(1, RpcId::new(call * 2), &data(900_000, 0), 1_000, |_, _| {
                true
            });
        }
        let mut grant =
            |id, offset| ledger.on_grant(1, RpcId::new(id), offset, bounds, |_, _| true);
        assert!(grant(2, 400_000).is_ok());
        assert!(grant(4, 90_000).is_ok(), "one increment");
        assert!(grant(6, 90_000).is_err());
    }
}
