//! Receiver-driven grants: which senders may send on, how far, at which level.
//!
//! Messages that need grants are ranked by the bytes not yet received, older first on ties; the
//! first `max_overcommit` are active. Each active message may have a window of bytes granted and
//! not received, and all together `max_incoming_bytes`. Source: homa_grant.c.

use std::collections::BTreeSet;

use slotmap::SecondaryMap;

use super::{RpcKey, priority};
use crate::units::Priority;

/// What the scheduler knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) birth: u64,
    pub(crate) length: u32,
    pub(crate) received: u32,
    pub(crate) granted: u32,
}

impl Progress {
    const fn remaining(&self) -> u32 {
        self.length - self.received
    }

    const fn incoming(&self) -> u64 {
        self.granted.saturating_sub(self.received) as u64
    }

    const fn rank(&self, rpc: RpcKey) -> (u32, u64, RpcKey) {
        (self.remaining(), self.birth, rpc)
    }
}

/// A decision: the message may be sent up to `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) rpc: RpcKey,
    pub(crate) offset: u32,
    pub(crate) priority: Priority,
}

/// Limits of the scheduler, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrantLimits {
    pub(crate) max_incoming: u64,
    pub(crate) window: u32,
    pub(crate) max_overcommit: usize,
    pub(crate) increment: u32,
    pub(crate) scheduled_max: u8,
}

/// Decides about grants. It holds keys and numbers only.
#[derive(Debug)]
pub(crate) struct GrantScheduler {
    limits: GrantLimits,
    messages: SecondaryMap<RpcKey, Progress>,
    order: BTreeSet<(u32, u64, RpcKey)>,
    /// Bytes granted and not received, over all messages.
    incoming: u64,
    /// Something changed since the last decision.
    changed: bool,
}

impl GrantScheduler {
    pub(crate) fn new(limits: GrantLimits) -> Self {
        Self {
            limits,
            messages: SecondaryMap::new(),
            order: BTreeSet::new(),
            incoming: 0,
            changed: false,
        }
    }

    /// A message that needs grants has made progress, or is new.
    pub(crate) fn on_progress(&mut self, rpc: RpcKey, progress: Progress) {
        self.forget(rpc);
        self.incoming += progress.incoming();
        self.order.insert(progress.rank(rpc));
        self.messages.insert(rpc, progress);
        self.changed = true;
    }

    /// The message is complete or gone.
    pub(crate) fn remove(&mut self, rpc: RpcKey) {
        if self.forget(rpc) {
            self.changed = true;
        }
    }

    fn forget(&mut self, rpc: RpcKey) -> bool {
        let Some(known) = self.messages.remove(rpc) else {
            return false;
        };
        self.incoming -= known.incoming();
        self.order.remove(&known.rank(rpc));
        true
    }

    /// True if the message takes part in granting.
    pub(crate) fn knows(&self, rpc: RpcKey) -> bool {
        self.messages.contains_key(rpc)
    }

    /// Bytes granted and not received, over all messages that need grants.
    #[cfg(test)]
    pub(crate) const fn incoming(&self) -> u64 {
        self.incoming
    }

    /// The next grant to send, best message first; `None` until something changes.
    pub(crate) fn next(&mut self) -> Option<Grant> {
        if !self.changed {
            return None;
        }
        let active = self.order.len().min(self.limits.max_overcommit);
        let window = self.window(active);
        for (rank, (_, _, rpc)) in self.order.iter().take(active).enumerate() {
            let Some(message) = self.messages.get_mut(*rpc) else {
                continue;
            };
            let wanted = message.received.saturating_add(window).min(message.length);
            let headroom = self.limits.max_incoming.saturating_sub(self.incoming);
            let headroom = u32::try_from(headroom).unwrap_or(u32::MAX);
            let raise = wanted.saturating_sub(message.granted).min(headroom);
            // A window smaller than two increments must not stop its message.
            let left = message.length - message.granted;
            let least = self.limits.increment.min(left).min(window / 2);
            if raise == 0 || raise < least {
                continue;
            }
            message.granted += raise;
            self.incoming += u64::from(raise);
            let priority = priority::scheduled(self.limits.scheduled_max, rank, active);
            return Some(Grant {
                rpc: *rpc,
                offset: message.granted,
                priority,
            });
        }
        self.changed = false;
        None
    }

    /// Source: homa_grant.c, `homa_grant_update_sysctl_deps`.
    fn window(&self, active: usize) -> u32 {
        if self.limits.window > 0 {
            return self.limits.window;
        }
        u32::try_from(self.limits.max_incoming / (active as u64 + 1)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    fn scheduler(max_incoming: u64) -> (SlotMap<RpcKey, ()>, GrantScheduler) {
        let limits = GrantLimits {
            max_incoming,
            window: 0,
            max_overcommit: 8,
            increment: 10_000,
            scheduled_max: 3,
        };
        (SlotMap::with_key(), GrantScheduler::new(limits))
    }

    fn fresh(birth: u64, length: u32) -> Progress {
        Progress {
            birth,
            length,
            received: 1_424,
            granted: 40_000,
        }
    }

    #[test]
    fn a_single_message_gets_half_of_the_ceiling_as_its_window() {
        let (mut keys, mut grants) = scheduler(400_000);
        let rpc = keys.insert(());
        grants.on_progress(rpc, fresh(0, 1_000_000));
        let grant = grants.next().unwrap();
        assert_eq!(
            grant,
            Grant {
                rpc,
                offset: 201_424,
                priority: Priority::LOWEST
            }
        );
        assert_eq!(grants.next(), None);
        let progress = Progress {
            received: 11_424,
            granted: 201_424,
            ..fresh(0, 1_000_000)
        };
        grants.on_progress(rpc, progress);
        assert_eq!(grants.next().unwrap().offset, 211_424);
    }

    #[test]
    fn a_short_step_waits_unless_it_is_the_last() {
        let (mut keys, mut grants) = scheduler(400_000);
        let rpc = keys.insert(());
        let progress = Progress {
            birth: 0,
            length: 300_000,
            received: 101_424,
            granted: 300_000 - 5,
        };
        grants.on_progress(rpc, progress);
        assert_eq!(grants.next().unwrap().offset, 300_000);
        let progress = Progress {
            received: 3_000,
            granted: 201_424,
            ..progress
        };
        grants.on_progress(rpc, progress);
        assert_eq!(grants.next(), None);
    }

    #[test]
    fn the_shortest_remainders_are_active_with_distinct_levels() {
        let (mut keys, mut grants) = scheduler(10_000_000);
        let all: Vec<RpcKey> = (0..9)
            .map(|i| {
                let rpc = keys.insert(());
                grants.on_progress(rpc, fresh(i, 900_000 - u32::try_from(i).unwrap() * 10_000));
                rpc
            })
            .collect();
        let given: Vec<Grant> = std::iter::from_fn(|| grants.next()).collect();
        assert_eq!(given.len(), 8);
        assert_eq!(given[0].rpc, all[8]);
        assert!(
            given.iter().all(|grant| grant.rpc != all[0]),
            "the longest has to wait"
        );
        let levels: Vec<u8> = given.iter().map(|grant| grant.priority.level()).collect();
        assert_eq!(levels, [3, 2, 1, 0, 0, 0, 0, 0]);
        grants.remove(all[8]);
        assert_eq!(grants.next().map(|grant| grant.rpc), Some(all[0]));
    }

    #[test]
    fn the_ceiling_holds_over_all_messages_and_returns_to_zero() {
        let (mut keys, mut grants) = scheduler(100_000);
        let all: Vec<RpcKey> = (0..5)
            .map(|i| {
                let rpc = keys.insert(());
                let progress = Progress {
                    birth: i,
                    length: 500_000,
                    received: 0,
                    granted: 0,
                };
                grants.on_progress(rpc, progress);
                rpc
            })
            .collect();
        while grants.next().is_some() {}
        assert!(grants.incoming() <= 100_000 && grants.incoming() > 80_000);
        for rpc in all {
            grants.remove(rpc);
        }
        assert_eq!(grants.incoming(), 0);
    }
}
