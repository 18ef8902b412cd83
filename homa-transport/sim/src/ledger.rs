//! What a host has granted and not received, reckoned from its packets alone.

use std::collections::HashMap;
use std::ops::Range;

use super::invariant::Invariant;
use homa_protocol::endpoint::RpcKey;
use homa_protocol::units::RpcId;
use homa_protocol::wire::Data;

/// Bytes by which the bound on grants may be overstepped: one increment.
const SLACK: u64 = 10_000;
/// Messages of which those whose RPCs have ended are looked for, at least. (That all bytes have come
/// is no end: the endpoint may have refused some.)
const TIDY_AT_MIN: usize = 256;

/// How much may be granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrantBounds {
    /// Bytes granted and not received, over all messages.
    pub(super) outstanding_max: u64,
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
    /// An RPC that ends can begin again under its id, and what it was granted before is void then.
    rpc: RpcKey,
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
        rpc_of: impl Fn(usize, RpcId) -> Option<RpcKey>,
    ) {
        let announced = if data.incoming == 0 {
            data.message_length
        } else {
            data.incoming
        };
        self.begin(peer, id, data.message_length, announced, rpc_of);
        let Some(message) = self.messages.get_mut(&(peer, id)) else {
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

    /// A packet has come for a message of `length` bytes. If it is new, those below `announced` come
    /// without a GRANT.
    pub(super) fn begin(
        &mut self,
        peer: usize,
        id: RpcId,
        length: u32,
        announced: u32,
        rpc_of: impl Fn(usize, RpcId) -> Option<RpcKey>,
    ) {
        let key = (peer, id);
        let rpc = rpc_of(peer, id);
        if let Some(known) = self.messages.get(&key)
            && Some(known.rpc) != rpc
        {
            self.outstanding -= known.outstanding();
            self.messages.remove(&key);
        }
        let Some(rpc) = rpc else {
            return;
        };
        if self.messages.contains_key(&key) {
            return;
        }
        if self.messages.len() >= self.tidy_at {
            self.forget_dead(&rpc_of);
            self.tidy_at = 2 * self.messages.len() + TIDY_AT_MIN;
        }
        self.messages.insert(
            key,
            Incoming {
                rpc,
                length,
                granted: announced.min(length),
                received: 0,
                ranges: Vec::new(),
                counts: false,
            },
        );
    }

    /// A GRANT is sent for the message `id` (in its sender's form) of `peer`.
    pub(super) fn on_grant(
        &mut self,
        peer: usize,
        id: RpcId,
        offset: u32,
        bounds: GrantBounds,
        rpc_of: impl Fn(usize, RpcId) -> Option<RpcKey>,
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
        let bound = bounds.outstanding_max + SLACK;
        if self.outstanding > bound {
            self.forget_dead(rpc_of);
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
            self.outstanding, bound
        );
        Err((Invariant::GrantsBounded, detail))
    }

    /// Forgets messages whose RPCs have ended.
    fn forget_dead(&mut self, rpc_of: impl Fn(usize, RpcId) -> Option<RpcKey>) {
        self.messages
            .retain(|(peer, id), message| rpc_of(*peer, *id) == Some(message.rpc));
        self.outstanding = self.messages.values().map(Incoming::outstanding).sum();
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    fn keys() -> [RpcKey; 2] {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        [keys.insert(()), keys.insert(())]
    }

    fn data(length: u32, offset: u32) -> Data {
        Data {
            message_length: length,
            incoming: 40_000,
            ack: None,
            cutoff_version: 1,
            retransmit: false,
            few_unscheduled: false,
            following: 0,
            offset,
        }
    }

    const BOUNDS: GrantBounds = GrantBounds {
        outstanding_max: 400_000,
        fifo_permille: 0,
        fifo_increment: 50_000,
    };

    #[test]
    fn what_has_come_twice_or_out_of_order_counts_once() {
        let [rpc, _] = keys();
        let mut ledger = GrantLedger::default();
        let id = RpcId::new(2);
        for offset in [0, 3_000, 1_000, 1_000, 2_500] {
            ledger.on_data(1, id, &data(500_000, offset), 1_000, |_, _| Some(rpc));
        }
        assert_eq!(ledger.outstanding, 0, "nothing was granted by us");
        assert!(
            ledger
                .on_grant(1, id, 100_000, BOUNDS, |_, _| Some(rpc))
                .is_ok()
        );
        assert_eq!(ledger.outstanding, 100_000 - 3_500);
    }

    #[test]
    fn grants_beyond_the_message_or_the_bound_are_seen() {
        let [rpc, _] = keys();
        let mut ledger = GrantLedger::default();
        for call in 1..=5 {
            ledger.on_data(1, RpcId::new(call * 2), &data(500_000, 0), 1_000, |_, _| {
                Some(rpc)
            });
        }
        let grant = |ledger: &mut GrantLedger, id, offset, live: bool| {
            ledger.on_grant(1, RpcId::new(id), offset, BOUNDS, |_, _| {
                live.then_some(rpc)
            })
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
    fn all_that_a_message_begun_without_data_is_granted_counts() {
        let [rpc, _] = keys();
        let mut ledger = GrantLedger::default();
        for call in 1..=2 {
            ledger.begin(1, RpcId::new(call * 2), 500_000, 0, |_, _| Some(rpc));
            // It does not begin anew, nor does it announce anything.
            ledger.on_data(1, RpcId::new(call * 2), &data(500_000, 0), 1_000, |_, _| {
                Some(rpc)
            });
        }
        let mut grant =
            |id, offset| ledger.on_grant(1, RpcId::new(id), offset, BOUNDS, |_, _| Some(rpc));
        assert!(grant(2, 400_000).is_ok());
        assert_eq!(grant(4, 40_000).unwrap_err().0, Invariant::GrantsBounded);
        assert_eq!(ledger.outstanding, 439_000 - 1_000);
    }

    #[test]
    fn what_an_rpc_was_granted_before_it_began_again_does_not_count() {
        let [first, second] = keys();
        let mut ledger = GrantLedger::default();
        let id = RpcId::new(2);
        ledger.on_data(1, id, &data(500_000, 0), 1_000, |_, _| Some(first));
        assert!(
            ledger
                .on_grant(1, id, 400_000, BOUNDS, |_, _| Some(first))
                .is_ok()
        );
        ledger.on_data(1, id, &data(500_000, 2_000), 1_000, |_, _| Some(second));
        assert_eq!(ledger.outstanding, 0);
        assert!(
            ledger
                .on_grant(1, id, 100_000, BOUNDS, |_, _| Some(second))
                .is_ok()
        );
        assert_eq!(ledger.outstanding, 99_000);
        ledger.on_data(1, id, &data(500_000, 3_000), 1_000, |_, _| None);
        assert_eq!(ledger.outstanding, 0, "it is over");
    }

    #[test]
    fn a_share_for_the_oldest_may_be_beyond_the_bound_and_no_more() {
        let bounds = GrantBounds {
            fifo_permille: 50,
            ..BOUNDS
        };
        let [rpc, _] = keys();
        let mut ledger = GrantLedger::default();
        for call in 1..=5 {
            ledger.on_data(1, RpcId::new(call * 2), &data(900_000, 0), 1_000, |_, _| {
                Some(rpc)
            });
        }
        let mut grant =
            |id, offset| ledger.on_grant(1, RpcId::new(id), offset, bounds, |_, _| Some(rpc));
        assert!(grant(2, 400_000).is_ok());
        assert!(grant(4, 90_000).is_ok(), "one increment");
        assert!(grant(6, 90_000).is_err());
    }
}
