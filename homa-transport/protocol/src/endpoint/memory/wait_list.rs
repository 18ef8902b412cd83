//! Messages that wait for room, so that what is done when room becomes free does not depend on how
//! many wait.

use std::collections::BTreeSet;

use crate::endpoint::RpcKey;
use crate::endpoint::peers::peer::PeerKey;

/// Place of a message: the shorter one first, then the older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::endpoint) struct Standing {
    pub(in crate::endpoint) length: u32,
    birth: u64,
    pub(in crate::endpoint) rpc: RpcKey,
}

impl Standing {
    pub(in crate::endpoint) const fn of(length: u32, birth: u64, rpc: RpcKey) -> Self {
        Self { length, birth, rpc }
    }
}

/// Waiting messages. Of each peer only the first can be let go on, and only after room of that peer
/// has become free since it was looked at last.
#[derive(Debug, Default)]
pub(in crate::endpoint) struct WaitList {
    all: BTreeSet<(PeerKey, Standing)>,
    /// The first message of each peer that may have room.
    ready: BTreeSet<(Standing, PeerKey)>,
}

impl WaitList {
    /// A message begins to wait.
    pub(in crate::endpoint) fn insert(&mut self, peer: PeerKey, message: Standing) {
        if let Some(first) = self.first_of(peer) {
            self.ready.remove(&(first, peer));
        }
        self.all.insert((peer, message));
        self.make_ready(peer);
    }

    /// A message need not wait any more.
    pub(in crate::endpoint) fn remove(&mut self, peer: PeerKey, message: Standing) {
        self.all.remove(&(peer, message));
        if self.ready.remove(&(message, peer)) {
            self.make_ready(peer);
        }
    }

    /// A peer may have room.
    pub(in crate::endpoint) fn make_ready(&mut self, peer: PeerKey) {
        if let Some(first) = self.first_of(peer) {
            self.ready.insert((first, peer));
        }
    }

    /// A peer has no room for its first message.
    pub(in crate::endpoint) fn not_ready(&mut self, peer: PeerKey, message: Standing) {
        self.ready.remove(&(message, peer));
    }

    /// The first message of all peers that may have room.
    pub(in crate::endpoint) fn first_ready(&self) -> Option<(PeerKey, Standing)> {
        self.ready.first().map(|(message, peer)| (*peer, *message))
    }

    fn first_of(&self, peer: PeerKey) -> Option<Standing> {
        if self.all.is_empty() {
            return None;
        }
        let least = Standing::of(0, 0, RpcKey::default());
        let (of, first) = self.all.range((peer, least)..).next()?;
        (*of == peer).then_some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Slab;

    #[test]
    fn the_shortest_message_of_each_peer_that_may_have_room_comes_first() {
        let mut peers = Slab::<PeerKey, ()>::new();
        let mut rpcs = Slab::<RpcKey, ()>::new();
        let (a, b) = (peers.insert(()), peers.insert(()));
        let mut message = |length| Standing::of(length, u64::from(length), rpcs.insert(()));
        let (long, short, other) = (message(300), message(100), message(200));
        let mut list = WaitList::default();
        list.insert(a, long);
        list.insert(b, other);
        assert_eq!(list.first_ready(), Some((b, other)));
        list.insert(a, short);
        assert_eq!(list.first_ready(), Some((a, short)));
        list.not_ready(a, short);
        assert_eq!(
            list.first_ready(),
            Some((b, other)),
            "one peer's quota stops nobody else"
        );
        list.remove(b, other);
        assert_eq!(list.first_ready(), None);
        list.make_ready(a);
        list.remove(a, short);
        assert_eq!(list.first_ready(), Some((a, long)));
        list.remove(a, long);
        assert_eq!(list.first_ready(), None);
        assert!(list.all.is_empty() && list.ready.is_empty());
    }
}
