//! Which requests were delivered, of all clients: by address and range of ids, so that a client whose port
//! changes on the way (NAT) stays the same one.
//!
//! A client takes its ids from one counter whose upper half is random and stays. So address and upper half
//! name a client, its port does not matter, and what one client sends makes no room at the cost of another's
//! windows.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use slotmap::new_key_type;

use crate::endpoint::peers::replay_window::DeliveredIds;
use crate::list::{Links, List};
use crate::shrink::shrink;
use crate::slab::Slab;
use crate::units::{Instant, RpcId};
use crate::wire::Refusal;

new_key_type! {
    /// Handle of a range.
    pub(crate) struct RangeKey;
}

/// Ranges looked at in one sweep.
const SWEEP_RANGES: usize = 256;

/// A client's ids at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RangeId {
    client: IpAddr,
    upper: u32,
}

impl RangeId {
    fn of(client: IpAddr, id: RpcId) -> Self {
        let [upper @ .., _, _, _, _] = id.value().to_be_bytes();
        Self {
            client,
            upper: u32::from_be_bytes(upper),
        }
    }
}

#[derive(Debug)]
struct Range {
    id: RangeId,
    /// DeliveredIds, or never to be.
    delivered: DeliveredIds,
    /// Those of them that were refused.
    refused: DeliveredIds,
    /// Because of which limit the last one was.
    refusal: Refusal,
    /// The client has shown that it is there.
    validated: bool,
    links: Links<RangeKey>,
}

impl Range {
    fn is_empty(&mut self, now: Instant, memory: Duration) -> bool {
        self.delivered.is_empty(now, memory) && self.refused.is_empty(now, memory)
    }
}

/// The time by which requests are remembered, and for how long.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct MemoryTime {
    pub(in crate::endpoint) now: Instant,
    pub(in crate::endpoint) memory: Duration,
}

/// What is remembered of requests.
#[derive(Debug)]
pub(in crate::endpoint) struct ReplayMemory {
    max: usize,
    ranges: Slab<RangeKey, Range>,
    by_id: HashMap<RangeId, RangeKey>,
    /// Those of validated clients, and of others: the one that is to go first at first.
    validated: List<RangeKey>,
    strangers: List<RangeKey>,
}

impl ReplayMemory {
    /// `max`: ranges remembered at most.
    pub(in crate::endpoint) fn new(max: usize) -> Self {
        Self {
            max,
            ranges: Slab::new(),
            by_id: HashMap::default(),
            validated: List::default(),
            strangers: List::default(),
        }
    }

    /// Whether the request was delivered, or is never to be.
    pub(in crate::endpoint) fn contains(
        &mut self,
        client: IpAddr,
        id: RpcId,
        at: MemoryTime,
    ) -> bool {
        let range = self
            .find(client, id)
            .and_then(|key| self.ranges.get_mut(key));
        range.is_some_and(|range| range.delivered.contains(id, at.now, at.memory))
    }

    /// The limit because of which the request was refused, if it was.
    pub(in crate::endpoint) fn refusal(
        &mut self,
        client: IpAddr,
        id: RpcId,
        at: MemoryTime,
    ) -> Option<Refusal> {
        let key = self.find(client, id)?;
        let range = self.ranges.get_mut(key)?;
        let refused = range.refused.contains(id, at.now, at.memory);
        refused.then_some(range.refusal)
    }

    /// Remembers a request. False: something is forgotten for it before its time.
    pub(in crate::endpoint) fn insert(
        &mut self,
        client: IpAddr,
        id: RpcId,
        validated: bool,
        at: MemoryTime,
    ) -> bool {
        let (key, complete) = self.find_or_insert(client, id, validated);
        let range = self.ranges.get_mut(key);
        range.is_some_and(|range| range.delivered.insert(id, at.now, at.memory)) && complete
    }

    /// Remembers that a request is refused. False as above.
    pub(in crate::endpoint) fn refuse(
        &mut self,
        client: IpAddr,
        id: RpcId,
        refusal: Refusal,
        at: MemoryTime,
    ) -> bool {
        let complete = self.insert(client, id, true, at);
        let key = self.find(client, id);
        let Some(range) = key.and_then(|key| self.ranges.get_mut(key)) else {
            return false;
        };
        range.refusal = refusal;
        range.refused.insert(id, at.now, at.memory) && complete
    }

    fn find(&self, client: IpAddr, id: RpcId) -> Option<RangeKey> {
        if self.by_id.is_empty() {
            return None;
        }
        self.by_id.get(&RangeId::of(client, id)).copied()
    }

    /// The range of a client, and false if another one had to make room that was still needed.
    fn find_or_insert(&mut self, client: IpAddr, id: RpcId, validated: bool) -> (RangeKey, bool) {
        if let Some(key) = self.find(client, id) {
            let known = self.ranges.get(key).is_some_and(|range| range.validated);
            if validated && !known {
                self.leave(key);
                self.enter(key, true);
            }
            return (key, true);
        }
        let mut complete = true;
        if self.ranges.len() >= self.max
            && let Some(oldest) = self.strangers.first().or_else(|| self.validated.first())
        {
            self.remove(oldest);
            complete = false;
        }
        let id = RangeId::of(client, id);
        let key = self.ranges.insert(Range {
            id,
            delivered: DeliveredIds::default(),
            refused: DeliveredIds::default(),
            refusal: Refusal::Rpcs,
            validated,
            links: Links::default(),
        });
        self.by_id.insert(id, key);
        self.enter(key, validated);
        (key, complete)
    }

    fn enter(&mut self, key: RangeKey, validated: bool) {
        let Some(range) = self.ranges.get_mut(key) else {
            return;
        };
        range.validated = validated;
        let list = if validated {
            &mut self.validated
        } else {
            &mut self.strangers
        };
        list.push_back(&mut self.ranges, |range| &mut range.links, key);
    }

    fn leave(&mut self, key: RangeKey) {
        let validated = self.ranges.get(key).is_some_and(|range| range.validated);
        let list = if validated {
            &mut self.validated
        } else {
            &mut self.strangers
        };
        list.remove(&mut self.ranges, |range| &mut range.links, key);
    }

    fn remove(&mut self, key: RangeKey) {
        self.leave(key);
        if let Some(range) = self.ranges.remove(key) {
            self.by_id.remove(&range.id);
        }
    }

    /// Forgets ranges in which nothing need be remembered, looking at a bounded number.
    pub(in crate::endpoint) fn sweep(&mut self, at: MemoryTime) {
        for validated in [false, true] {
            let mut kept = None;
            for _ in 0..SWEEP_RANGES {
                let list = if validated {
                    &self.validated
                } else {
                    &self.strangers
                };
                let Some(key) = list.first().filter(|first| Some(*first) != kept) else {
                    break;
                };
                let range = self.ranges.get_mut(key);
                if range.is_some_and(|range| range.is_empty(at.now, at.memory)) {
                    self.remove(key);
                } else {
                    self.leave(key);
                    self.enter(key, validated);
                    kept.get_or_insert(key);
                }
            }
        }
    }

    /// Gives memory back that is no longer used.
    pub(in crate::endpoint) fn release(&mut self) {
        shrink(&mut self.by_id);
    }

    pub(in crate::endpoint) const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MEMORY: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> MemoryTime {
        MemoryTime {
            now: Instant::from_nanos(seconds * 1_000_000_000),
            memory: MEMORY,
        }
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    fn id(upper: u64, lower: u64) -> RpcId {
        RpcId::new(upper << 32 | lower)
    }

    #[test]
    fn a_request_is_known_by_address_and_id_for_its_time() {
        let mut memory = ReplayMemory::new(10);
        assert!(memory.insert(ip(1), id(7, 2), true, at(1)));
        assert!(memory.contains(ip(1), id(7, 2), at(5)));
        assert!(
            memory.contains(ip(1), id(7, 3), at(5)),
            "both forms of the id"
        );
        assert!(!memory.contains(ip(2), id(7, 2), at(5)));
        assert!(!memory.contains(ip(1), id(8, 2), at(5)));
        memory.sweep(at(5));
        assert!(!memory.is_empty());
        memory.sweep(at(20));
        assert!(memory.is_empty());
    }

    #[test]
    fn what_was_refused_says_why_and_counts_as_never_to_be_delivered() {
        let mut memory = ReplayMemory::new(10);
        assert!(memory.refuse(ip(1), id(7, 2), Refusal::RpcsPerPeer, at(1)));
        assert!(memory.contains(ip(1), id(7, 2), at(1)));
        let refusal = memory.refusal(ip(1), id(7, 2), at(1));
        assert_eq!(refusal, Some(Refusal::RpcsPerPeer));
        memory.insert(ip(1), id(7, 4), true, at(1));
        assert_eq!(memory.refusal(ip(1), id(7, 4), at(1)), None);
    }

    #[test]
    fn strangers_make_room_first_and_a_client_that_floods_only_for_itself() {
        let mut memory = ReplayMemory::new(3);
        memory.insert(ip(1), id(1, 2), true, at(1));
        memory.insert(ip(2), id(1, 2), false, at(1));
        memory.insert(ip(3), id(1, 2), false, at(1));
        // It turns out to be there.
        memory.insert(ip(2), id(1, 4), true, at(1));
        assert!(
            !memory.insert(ip(4), id(1, 2), false, at(1)),
            "another makes room"
        );
        assert!(!memory.contains(ip(3), id(1, 2), at(1)));
        for lower in 0..100_000 {
            memory.insert(ip(4), id(1, lower * 2), false, at(2));
        }
        for known in [ip(1), ip(2)] {
            assert!(memory.contains(known, id(1, 2), at(2)));
        }
    }
}
