//! Receiver-driven grants: which senders may send on, how far, at which level.
//!
//! Messages that need grants are ranked by the bytes not yet received (SRPT), older first on ties. Of a
//! message whose sender says that it is a part of a longer whole, what follows of that counts as well. A
//! few of them are *active*: they may have a window of bytes granted and not received, and all
//! messages together `max_incoming`. Granting to more than one at a time (overcommitment) keeps the
//! downlink busy when a sender is slow to react. Slots go to senders in turn: every peer gets one
//! before any gets a second. A share of what is granted goes to the oldest message, so that a long one
//! is never starved by a stream of shorter ones. A grant is never taken back.
//!
//! Source: homa_grant.c; Homa (SIGCOMM 2018), sections 3.3 to 3.5.

mod limits;
mod paper;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::RpcKey;
use crate::endpoint::grants::budget::{self, Incoming, LinkBudget};
use crate::endpoint::grants::priority;
use crate::shrink::shrink;
use crate::slab::SideTable;
use crate::units::{Instant, Priority};

pub(crate) use self::limits::GrantLimits;
pub(in crate::endpoint) use self::paper::PaperGrants;

/// A message's standing: fewest missing bytes first, then the older one.
///
/// By the paper's rules it is the ungranted bytes that count.
type Rank = (u32, u64, RpcKey);

/// What the scheduler knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) peer: IpAddr,
    pub(crate) birth: u64,
    pub(crate) length: u32,
    pub(crate) received: u32,
    pub(crate) granted: u32,
    /// Bytes still to come, besides it, of the whole that it is a part of.
    pub(crate) following: u32,
}

impl Progress {
    const fn incoming(&self) -> u64 {
        self.granted.saturating_sub(self.received) as u64
    }
}

/// A decision: the message may be sent up to `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) rpc: RpcKey,
    pub(crate) offset: u32,
    pub(crate) priority: Priority,
}

/// Least time between two grants beyond the ceiling to messages that are not the first in rank: in it
/// those before them show whether they get on.
const BEYOND_PAUSE: Duration = Duration::from_micros(50);

/// Decides about grants. It holds keys and numbers only; the work per event depends on
/// `max_overcommit` and the logarithm of the number of messages.
#[derive(Debug)]
pub(crate) struct GrantScheduler {
    limits: GrantLimits,
    messages: SideTable<RpcKey, Progress>,
    /// The messages that may be granted to, best first.
    active: Vec<RpcKey>,
    /// Per peer: how many of its messages are active, and the others by rank.
    peers: HashMap<IpAddr, PeerQueue>,
    /// The best waiting message of every peer, those of peers with fewer active ones first.
    waiting: BTreeSet<(usize, Rank)>,
    /// Messages not granted to their end, oldest first.
    ungranted: BTreeSet<(u64, RpcKey)>,
    /// Bytes granted and not received, over all messages.
    incoming: Incoming,
    /// Something changed since the last decision.
    changed: bool,
    /// Normal grants since the last grant to the oldest message, in bytes.
    since_fifo: u64,
    /// When to look again though nothing changes: the next pause of a sender that could be granted to
    /// ends, or other endpoints may have given back what they shared.
    paused_until: Option<Instant>,
    /// When a message that is not the first in rank may go beyond the ceiling.
    next_beyond: Instant,
}

#[derive(Debug, Default)]
struct PeerQueue {
    active: usize,
    waiting: BTreeSet<Rank>,
    /// Not to be granted to before this time, by the paper's rules.
    paused_until: Instant,
}

impl GrantScheduler {
    pub(crate) fn new(limits: GrantLimits) -> Self {
        Self {
            limits,
            messages: SideTable::new(),
            active: Vec::with_capacity(limits.max_overcommit),
            peers: HashMap::default(),
            waiting: BTreeSet::new(),
            ungranted: BTreeSet::new(),
            incoming: Incoming::new(limits.max_incoming),
            changed: false,
            since_fifo: 0,
            paused_until: None,
            next_beyond: Instant::ZERO,
        }
    }

    /// Shares the ceiling for bytes granted and not received with other endpoints. Only at first.
    pub(crate) fn share_link(&mut self, budget: Arc<LinkBudget>) {
        self.incoming.share(budget);
    }

    /// Changes the highest level for scheduled bytes.
    pub(crate) const fn set_scheduled_max(&mut self, level: u8) {
        self.limits.scheduled_max = level;
    }

    /// A message that needs grants has made progress, or is new.
    pub(crate) fn on_progress(&mut self, rpc: RpcKey, progress: Progress) {
        self.changed = true;
        match self.messages.insert(rpc, progress) {
            Some(known) => {
                self.count_incoming(known.incoming(), progress.incoming());
                let (old, new) = (self.rank(rpc, &known), self.rank(rpc, &progress));
                if old == new {
                    return;
                }
                if self.active.contains(&rpc) {
                    self.sort_active();
                    if new > old {
                        self.yield_slot(rpc);
                    }
                    return;
                }
                self.edit_peer(known.peer, |queue| {
                    queue.waiting.remove(&old);
                    queue.waiting.insert(new);
                });
            }
            None => {
                self.incoming.add(progress.incoming());
                if progress.granted < progress.length {
                    self.ungranted.insert((progress.birth, rpc));
                }
                let rank = self.rank(rpc, &progress);
                self.edit_peer(progress.peer, |queue| {
                    queue.waiting.insert(rank);
                });
            }
        }
        self.compete(rpc);
    }

    /// Gives memory back that is no longer used.
    pub(crate) fn release(&mut self) {
        shrink(&mut self.peers);
    }

    /// The message is complete or gone.
    pub(crate) fn remove(&mut self, rpc: RpcKey) {
        let Some(known) = self.messages.remove(rpc) else {
            return;
        };
        self.changed = true;
        self.incoming.remove(known.incoming());
        self.ungranted.remove(&(known.birth, rpc));
        let was_active = self.active.len();
        self.active.retain(|active| *active != rpc);
        if self.active.len() < was_active {
            self.edit_peer(known.peer, |queue| queue.active -= 1);
            self.fill_slot();
        } else {
            let rank = self.rank(rpc, &known);
            self.edit_peer(known.peer, |queue| {
                queue.waiting.remove(&rank);
            });
        }
    }

    /// True if the message takes part in granting.
    pub(crate) fn knows(&self, rpc: RpcKey) -> bool {
        self.messages.contains_key(rpc)
    }

    /// Bytes granted and not received, over all messages that need grants.
    pub(crate) const fn incoming(&self) -> u64 {
        self.incoming.bytes()
    }

    fn count_incoming(&mut self, before: u64, after: u64) {
        if after >= before {
            self.incoming.add(after - before);
        } else {
            self.incoming.remove(before - after);
        }
    }

    /// The next grant to send; `None` until something changes. Calling this once per batch of packets
    /// rather than per packet makes one grant of several.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Grant> {
        let pause_over = self.paused_until.is_some_and(|until| until <= now);
        if !self.changed && !pause_over {
            return None;
        }
        let grant = match self.limits.paper {
            None => self.next_by_rank(now).or_else(|| self.next_by_age()),
            Some(paper) => self.next_of_paper(now, &paper),
        };
        self.changed = grant.is_some();
        grant
    }

    /// False if [`GrantScheduler::next`] has nothing before something changes or a pause ends.
    #[cfg(feature = "sim")]
    pub(crate) const fn may_grant(&self) -> bool {
        self.changed
    }

    /// When [`GrantScheduler::next`] may have a grant although nothing changes.
    pub(crate) const fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Source: homa_grant.c, `homa_grant_try_send`, `homa_grant_check_needy`. Differs: the first of those
    /// that want a grant may go beyond the ceiling. Senders that have better to do keep what they were
    /// granted for long, and a few of them fill the ceiling; without this the downlink then stands idle,
    /// and a message of 50 kB took two hundred times as long as it should (W5 at 80 %).
    fn next_by_rank(&mut self, now: Instant) -> Option<Grant> {
        let window = self.window();
        let mut tried = false;
        self.paused_until = None;
        for (rank, rpc) in self.active.iter().enumerate() {
            let Some(message) = self.messages.get_mut(*rpc) else {
                continue;
            };
            let wanted = message.received.saturating_add(window).min(message.length);
            let wanted = wanted.saturating_sub(message.granted);
            // A window smaller than two increments must not stop its message.
            let left = message.length.saturating_sub(message.granted);
            let least = self.limits.increment.min(left).min(window / 2).max(1);
            if wanted < least {
                continue;
            }
            let mut raise = self.incoming.reserve(u64::from(wanted), u64::from(least));
            if raise == 0 && !std::mem::replace(&mut tried, true) {
                if rank == 0 || now >= self.next_beyond {
                    raise = self
                        .incoming
                        .reserve_beyond(u64::from(wanted), u64::from(least));
                    self.next_beyond = now + BEYOND_PAUSE;
                } else {
                    self.paused_until = Some(self.next_beyond);
                }
            }
            let raise = u32::try_from(raise).unwrap_or(wanted);
            if raise < wanted && self.incoming.is_shared() {
                let tick = now + budget::TICK;
                self.paused_until = Some(self.paused_until.map_or(tick, |until| until.min(tick)));
            }
            if raise == 0 {
                continue;
            }
            let before = message.incoming();
            message.granted += raise;
            // A packet may overshoot its grant: bytes received ahead are not incoming any more.
            let ahead = u64::from(raise) - (message.incoming() - before);
            self.incoming.remove(ahead);
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
        self.incoming.add(message.incoming() - before);
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
        if self.limits.paper.is_some()
            && let Some((active, message)) = self.active_of(newcomer.peer)
        {
            if self.rank(rpc, &newcomer) < self.rank(active, &message) {
                self.deactivate(active);
                self.activate(rpc);
            }
            return;
        }
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
            .max_by_key(|(active, message)| (slots(message.peer), self.rank(*active, message)));
        let Some((victim, message)) = victim else {
            return;
        };
        let held = slots(message.peer);
        if held > own || (held == own && self.rank(rpc, &newcomer) < self.rank(victim, &message)) {
            self.deactivate(victim);
            self.activate(rpc);
        }
    }

    fn activate(&mut self, rpc: RpcKey) {
        let Some(message) = self.messages.get(rpc).copied() else {
            return;
        };
        let rank = self.rank(rpc, &message);
        self.edit_peer(message.peer, |queue| {
            queue.waiting.remove(&rank);
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
        let rank = self.rank(rpc, &message);
        self.edit_peer(message.peer, |queue| {
            queue.waiting.insert(rank);
            queue.active -= 1;
        });
    }

    /// An active message has turned out to be a part of a longer whole: another may deserve its slot.
    fn yield_slot(&mut self, rpc: RpcKey) {
        if !self.waiting.is_empty() {
            self.deactivate(rpc);
            self.fill_slot();
        }
    }

    /// A slot is free: the best message of a peer that holds fewest goes first.
    fn fill_slot(&mut self) {
        if let Some((held, (_, _, rpc))) = self.waiting.first().copied()
            && (held == 0 || self.limits.paper.is_none())
        {
            self.activate(rpc);
        }
    }

    fn sort_active(&mut self) {
        let mut active = std::mem::take(&mut self.active);
        active.sort_unstable_by_key(|rpc| {
            let message = self.messages.get(*rpc);
            message.map(|message| self.rank(*rpc, message))
        });
        self.active = active;
    }

    fn active_of(&self, peer: IpAddr) -> Option<(RpcKey, Progress)> {
        let mut known = self
            .active
            .iter()
            .filter_map(|rpc| Some((*rpc, *self.messages.get(*rpc)?)));
        known.find(|(_, message)| message.peer == peer)
    }

    const fn rank(&self, rpc: RpcKey, message: &Progress) -> Rank {
        let done = match self.limits.paper {
            None => message.received,
            Some(_) => message.granted,
        };
        let left = message.length.saturating_sub(done);
        let left = left.saturating_add(message.following);
        (left, message.birth, rpc)
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
mod paper_tests;
#[cfg(test)]
mod tests;
