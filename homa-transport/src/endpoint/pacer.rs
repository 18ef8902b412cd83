//! Which message sends next: the one with the fewest bytes left (SRPT).
//!
//! Source: Homa (SIGCOMM 2018), section 3.2; homa_pacer.c.

use std::collections::BTreeSet;

use super::RpcKey;

/// The messages that have something to send, best first. Ties go to the older one.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    order: BTreeSet<(u32, u64, RpcKey)>,
}

/// Place of a message in the queue: bytes left when it was entered, age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) remaining: u32,
    pub(crate) birth: u64,
}

impl SendQueue {
    pub(crate) fn insert(&mut self, rpc: RpcKey, rank: Rank) {
        self.order.insert((rank.remaining, rank.birth, rpc));
    }

    pub(crate) fn remove(&mut self, rpc: RpcKey, rank: Rank) {
        self.order.remove(&(rank.remaining, rank.birth, rpc));
    }

    pub(crate) fn first(&self) -> Option<RpcKey> {
        self.order.first().map(|(_, _, rpc)| *rpc)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn the_shortest_remainder_goes_first_and_the_older_on_a_tie() {
        let mut keys = SlotMap::<RpcKey, ()>::with_key();
        let mut queue = SendQueue::default();
        let ranks = [(500, 3), (100, 2), (100, 1), (7, 9)];
        let all = ranks.map(|(remaining, birth)| {
            let key = keys.insert(());
            queue.insert(key, Rank { remaining, birth });
            key
        });
        let mut order = Vec::new();
        while let Some(key) = queue.first() {
            let at = all.iter().position(|k| *k == key).unwrap();
            queue.remove(
                key,
                Rank {
                    remaining: ranks[at].0,
                    birth: ranks[at].1,
                },
            );
            order.push(at);
        }
        assert_eq!(order, [3, 2, 1, 0]);
        assert!(queue.is_empty());
    }
}
