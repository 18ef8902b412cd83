//! Grants by the rules of the published simulations (SIGCOMM 2018), for experiments.

use std::time::Duration;

use super::{Grant, GrantScheduler};
use crate::endpoint::grants::priority::{self, UnscheduledCutoffs};
use crate::units::Instant;

/// How receivers of the SIGCOMM 2018 simulations grant: one packet at a time, evenly spaced, one
/// active message per sender, by ungranted bytes; what is granted to its end needs no slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PaperGrants {
    /// Bytes of a message in a packet.
    pub(crate) packet: u32,
    /// A message gets a grant while fewer bytes than this are granted and not received.
    pub(crate) window: u32,
    /// Time between two grants to one sender.
    pub(crate) pause: Duration,
    /// With fewer bytes than this ungranted, `cutoffs` apply if they name a higher level.
    pub(crate) tail: u32,
    pub(crate) cutoffs: UnscheduledCutoffs,
}

impl GrantScheduler {
    pub(super) fn next_of_paper(&mut self, now: Instant, paper: &PaperGrants) -> Option<Grant> {
        self.paused_until = None;
        for (rank, rpc) in self.active.iter().enumerate() {
            let rpc = *rpc;
            let Some(message) = self.messages.get_mut(rpc) else {
                continue;
            };
            if message.incoming() >= u64::from(paper.window) {
                continue;
            }
            let Some(queue) = self.peers.get_mut(&message.peer) else {
                continue;
            };
            if queue.paused_until > now {
                let first = self.paused_until.unwrap_or(queue.paused_until);
                self.paused_until = Some(first.min(queue.paused_until));
                continue;
            }
            queue.paused_until = now + paper.pause;
            let left = message.length.saturating_sub(message.granted);
            let scheduled = priority::scheduled(self.limits.scheduled_max, rank, self.active.len());
            let priority = if left < paper.tail {
                scheduled.max(paper.cutoffs.level(left))
            } else {
                scheduled
            };
            let raise = paper.packet.min(left);
            message.granted += raise;
            self.incoming.add(u64::from(raise));
            let offset = message.granted;
            if raise == left {
                self.remove(rpc);
            } else {
                self.sort_active();
            }
            return Some(Grant {
                rpc,
                offset,
                priority,
            });
        }
        None
    }
}
