//! Receiver-driven grants: which senders may send on, how far, at which level.
//!
//! Messages that need grants are ranked by the bytes not yet received (SRPT), older first on ties. A
//! few of them are *active*: they may have a window of bytes granted and not received, and all
//! messages together `max_incoming`. Granting to more than one at a time (overcommitment) keeps the
//! downlink busy when a sender is slow to react. Slots go to senders in turn: every peer gets one
//! before any gets a second. A share of what is granted goes to the oldest message, so that a long one
//! is never starved by a stream of shorter ones. A grant is never taken back.
//!
//! Source: homa_grant.c; Homa (SIGCOMM 2018), sections 3.3 to 3.5.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use slotmap::SecondaryMap;

use super::{RpcKey, priority};
use crate::units::Priority;

/// A message's standing: fewest missing bytes first, then the older one.
type Rank = (u32, u64, RpcKey);

/// What the scheduler knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) peer: IpAddr,
    pub(crate) birth: u64,
    pub(crate) length: u32,
    pub(crate) received: u32,
    pub(crate) granted: u32,
}

impl Progress {
    const fn incoming(&self) -> u64 {
        self.granted.saturating_sub(self.received) as u64
    }

    const fn rank(&self, rpc: RpcKey) -> Rank {
        (self.length - self.received, self.birth, rpc)
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
    /// Bytes granted and not received, over all messages.
    pub(crate) max_incoming: u64,
    /// The same per message; 0 shares `max_incoming`.
    pub(crate) window: u32,
    pub(crate) max_overcommit: usize,
    /// Smallest step of a grant but the last.
    pub(crate) increment: u32,
    /// Thousandths of the granted bytes that go to the oldest message.
    pub(crate) fifo_permille: u64,
    /// Size of one such grant.
    pub(crate) fifo_increment: u32,
    /// Level of such a grant.
    pub(crate) fifo_priority: Priority,
    /// Highest level of the others.
    pub(crate) scheduled_max: u8,
}

/// Decides about grants. It holds keys and numbers only; the work per event depends on
/// `max_overcommit` and the logarithm of the number of messages.
#[derive(Debug)]
pub(crate) struct GrantScheduler {
    limits: GrantLimits,
    messages: SecondaryMap<RpcKey, Progress>,
    /// The messages that may be granted to, best first.
    active: Vec<RpcKey>,
    /// Per peer: how many of its messages are active, and the others by rank.
    peers: HashMap<IpAddr, PeerQueue>,
    /// The best waiting message of every peer, those of peers with fewer active ones first.
    waiting: BTreeSet<(usize, Rank)>,
    /// Messages not granted to their end, oldest first.
    ungranted: BTreeSet<(u64, RpcKey)>,
    /// Bytes granted and not received, over all messages.
    incoming: u64,
    /// Something changed since the last decision.
    changed: bool,
    /// Normal grants since the last grant to the oldest message, in bytes.
    since_fifo: u64,
}

#[derive(Debug, Default)]
struct PeerQueue {
    active: usize,
    waiting: BTreeSet<Rank>,
}

impl GrantScheduler {
    pub(crate) fn new(limits: GrantLimits) -> Self {
        Self {
            limits,
            messages: SecondaryMap::new(),
            active: Vec::with_capacity(limits.max_overcommit),
            peers: HashMap::new(),
            waiting: BTreeSet::new(),
            ungranted: BTreeSet::new(),
            incoming: 0,
            changed: false,
            since_fifo: 0,
        }
    }

    /// Changes the highest level for scheduled bytes.
    pub(crate) const fn set_scheduled_max(&mut self, level: u8) {
        self.limits.scheduled_max = level;
    }

    /// A message that needs grants has made progress, or is new.
    pub(crate) fn on_progress(&mut self, rpc: RpcKey, progress: Progress) {
        self.changed = true;
        self.incoming += progress.incoming();
        match self.messages.insert(rpc, progress) {
            Some(known) => {
                self.incoming -= known.incoming();
                if self.active.contains(&rpc) {
                    self.sort_active();
                    return;
                }
                self.edit_peer(known.peer, |queue| {
                    queue.waiting.remove(&known.rank(rpc));
                    queue.waiting.insert(progress.rank(rpc));
                });
            }
            None => {
                if progress.granted < progress.length {
                    self.ungranted.insert((progress.birth, rpc));
                }
                self.edit_peer(progress.peer, |queue| {
                    queue.waiting.insert(progress.rank(rpc));
                });
            }
        }
        self.compete(rpc);
    }

    /// The message is complete or gone.
    pub(crate) fn remove(&mut self, rpc: RpcKey) {
        let Some(known) = self.messages.remove(rpc) else {
            return;
        };
        self.changed = true;
        self.incoming -= known.incoming();
        self.ungranted.remove(&(known.birth, rpc));
        let was_active = self.active.len();
        self.active.retain(|active| *active != rpc);
        if self.active.len() < was_active {
            self.edit_peer(known.peer, |queue| queue.active -= 1);
            self.fill_slot();
        } else {
            self.edit_peer(known.peer, |queue| {
                queue.waiting.remove(&known.rank(rpc));
            });
        }
    }

    /// True if the message takes part in granting.
    pub(crate) fn knows(&self, rpc: RpcKey) -> bool {
        self.messages.contains_key(rpc)
    }

    /// Bytes granted and not received, over all messages that need grants.
    pub(crate) const fn incoming(&self) -> u64 {
        self.incoming
    }

    /// The next grant to send; `None` until something changes. Calling this once per batch of packets
    /// rather than per packet makes one grant of several.
    pub(crate) fn next(&mut self) -> Option<Grant> {
        if !self.changed {
            return None;
        }
        let grant = self.next_by_rank().or_else(|| self.next_by_age());
        self.changed = grant.is_some();
        grant
    }

    /// Source: homa_grant.c, `homa_grant_try_send`, `homa_grant_check_needy`.
    fn next_by_rank(&mut self) -> Option<Grant> {
        let window = self.window();
        for (rank, rpc) in self.active.iter().enumerate() {
            let Some(message) = self.messages.get_mut(*rpc) else {
                continue;
            };
            let wanted = message.received.saturating_add(window).min(message.length);
            let headroom = self.limits.max_incoming.saturating_sub(self.incoming);
            let headroom = u32::try_from(headroom).unwrap_or(u32::MAX);
            let raise = wanted.saturating_sub(message.granted).min(headroom);
            // A window smaller than two increments must not stop its message.
            let left = message.length.saturating_sub(message.granted);
            let least = self.limits.increment.min(left).min(window / 2).max(1);
            if raise < least {
                continue;
            }
            let before = message.incoming();
            message.granted += raise;
            // A packet may overshoot its grant: bytes received ahead are not incoming any more.
            self.incoming += message.incoming() - before;
            self.since_fifo += u64::from(raise);
            if message.granted >= message.length {
                self.ungranted.remove(&(message.birth, *rpc));
            }
            let level = priority::scheduled(self.limits.scheduled_max, rank, self.active.len());
            return Some(Grant {
                rpc: *rpc,
                offset: message.granted,
                priority: level,
            });
        }
        None
    }

    /// The oldest message's share, regardless of window and ceiling. Differs: the module spaces
    /// these grants in time (homa_grant.c, `homa_grant_check_fifo`), which needs the link's speed;
    /// here they follow the bytes granted.
    fn next_by_age(&mut self) -> Option<Grant> {
        let share = self.limits.fifo_permille;
        let increment = self.limits.fifo_increment;
        if share == 0 || self.since_fifo * share < u64::from(increment) * (1000 - share) {
            return None;
        }
        let outstanding_max = u64::from(self.window()) + 2 * u64::from(increment);
        let (birth, rpc) = self.ungranted.iter().copied().find(|(_, rpc)| {
            self.messages
                .get(*rpc)
                .is_some_and(|message| message.incoming() < outstanding_max)
        })?;
        let message = self.messages.get_mut(rpc)?;
        let raise = increment.min(message.length - message.granted);
        let before = message.incoming();
        message.granted += raise;
        self.incoming += message.incoming() - before;
        self.since_fifo = 0;
        if message.granted >= message.length {
            self.ungranted.remove(&(birth, rpc));
        }
        Some(Grant {
            rpc,
            offset: message.granted,
            priority: self.limits.fifo_priority,
        })
    }

    /// Source: homa_grant.c, `homa_grant_update_sysctl_deps`.
    fn window(&self) -> u32 {
        let share = match u64::from(self.limits.window) {
            0 => self.limits.max_incoming / (self.active.len() as u64 + 1),
            // A window that cannot be had must not decide about the least step of a grant.
            window => window.min(self.limits.max_incoming),
        };
        u32::try_from(share).unwrap_or(u32::MAX)
    }

    // ---- the active set ----

    /// Gives a waiting message a slot if it deserves one more than an active one does.
    /// Source: homa_grant.c, `homa_grant_find_victim`.
    fn compete(&mut self, rpc: RpcKey) {
        let Some(newcomer) = self.messages.get(rpc).copied() else {
            return;
        };
        if self.active.len() < self.limits.max_overcommit {
            self.activate(rpc);
            return;
        }
        let slots = |peer: IpAddr| {
            let held = self.peers.get(&peer).map_or(0, |queue| queue.active);
            held + usize::from(peer == newcomer.peer)
        };
        let own = slots(newcomer.peer);
        // Best first, so the last of the largest holders is the worst-ranked one.
        let victim = self
            .active
            .iter()
            .filter_map(|active| Some((*active, *self.messages.get(*active)?)))
            .max_by_key(|(active, message)| (slots(message.peer), message.rank(*active)));
        let Some((victim, message)) = victim else {
            return;
        };
        let held = slots(message.peer);
        if held > own || (held == own && newcomer.rank(rpc) < message.rank(victim)) {
            self.deactivate(victim);
            self.activate(rpc);
        }
    }

    fn activate(&mut self, rpc: RpcKey) {
        let Some(message) = self.messages.get(rpc).copied() else {
            return;
        };
        self.edit_peer(message.peer, |queue| {
            queue.waiting.remove(&message.rank(rpc));
            queue.active += 1;
        });
        self.active.push(rpc);
        self.sort_active();
    }

    fn deactivate(&mut self, rpc: RpcKey) {
        let Some(message) = self.messages.get(rpc).copied() else {
            return;
        };
        self.active.retain(|active| *active != rpc);
        self.edit_peer(message.peer, |queue| {
            queue.waiting.insert(message.rank(rpc));
            queue.active -= 1;
        });
    }

    /// A slot is free: the best message of a peer that holds fewest goes first.
    fn fill_slot(&mut self) {
        if let Some((_, (_, _, rpc))) = self.waiting.first().copied() {
            self.activate(rpc);
        }
    }

    fn sort_active(&mut self) {
        let messages = &self.messages;
        self.active
            .sort_unstable_by_key(|rpc| messages.get(*rpc).map(|message| message.rank(*rpc)));
    }

    /// Changes a peer's queue, keeping `waiting` in step with it.
    fn edit_peer(&mut self, peer: IpAddr, edit: impl FnOnce(&mut PeerQueue)) {
        let queue = self.peers.entry(peer).or_default();
        if let Some(best) = queue.waiting.first() {
            self.waiting.remove(&(queue.active, *best));
        }
        edit(queue);
        match queue.waiting.first() {
            Some(best) => {
                self.waiting.insert((queue.active, *best));
            }
            None if queue.active == 0 => {
                self.peers.remove(&peer);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
