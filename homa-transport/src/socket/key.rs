//! Keys that tell the shard they belong to.

use crate::transport::CallKey;

/// Encodes the shard in the keys of its calls: of the index in such a key it makes `index * shards + number`,
/// so that one shard alone leaves keys as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardKey {
    number: u32,
    shards: u32,
}

impl ShardKey {
    /// Of shard `number` of `shards`, of which there is at least one.
    pub(super) const fn new(number: u32, shards: u32) -> Self {
        Self { number, shards }
    }

    /// Whether it is that of the shard of this number.
    pub(super) const fn is(self, number: u32) -> bool {
        self.number == number
    }

    /// Calls that a shard may have at most, that their keys can be encoded.
    pub(super) fn calls_max(self) -> usize {
        usize::try_from(u32::MAX / self.shards - 1).unwrap_or(usize::MAX)
    }

    /// The key of the shard's ledger as it is known outside.
    pub(super) fn encode(self, call: CallKey) -> CallKey {
        edit(call, |index| {
            let first = index.saturating_mul(self.shards);
            first.saturating_add(self.number)
        })
    }

    /// The key as the ledger knows it.
    pub(super) fn decode(self, call: CallKey) -> CallKey {
        edit(call, |index| index / self.shards)
    }
}

/// The number of the shard, of `shards`, that a call belongs to.
pub(super) fn shard_of(call: CallKey, shards: u32) -> u32 {
    index(call) % shards
}

/// A key is an index in the lower half and a version in the upper one. Source: slotmap, `KeyData::as_ffi`.
fn edit(call: CallKey, edit: impl FnOnce(u32) -> u32) -> CallKey {
    let index = edit(index(call));
    CallKey::new(call.get() & !u64::from(u32::MAX) | u64::from(index))
}

fn index(call: CallKey) -> u32 {
    let [a, b, c, d, ..] = call.get().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use slotmap::{DefaultKey, Key, SlotMap};

    use super::*;

    #[test]
    fn a_key_tells_its_shard_and_finds_its_slot_again() {
        for shards in [1, 2, 3, 64] {
            let mut maps: Vec<_> = (0..shards)
                .map(|_| SlotMap::<DefaultKey, u32>::new())
                .collect();
            let mut seen = std::collections::HashSet::new();
            for (number, map) in (0..).zip(&mut maps) {
                let shard = ShardKey::new(number, shards);
                for value in 0..100 {
                    let slot = map.insert(value);
                    let key = CallKey::new(slot.data().as_ffi());
                    let encoded = shard.encode(key);
                    assert!(seen.insert(encoded), "no two shards have the same key");
                    assert_eq!(shard_of(encoded, shards), number);
                    assert_eq!(shard.decode(encoded), key);
                    if value % 3 == 0 {
                        // Its slot has another version from now on.
                        map.remove(slot);
                    }
                }
            }
        }
    }

    #[test]
    fn the_highest_index_can_be_encoded() {
        for shards in [2, 3, 64] {
            let shard = ShardKey::new(shards - 1, shards);
            let index = u64::try_from(shard.calls_max()).unwrap();
            let key = CallKey::new(7 << 32 | index);
            assert_eq!(shard.decode(shard.encode(key)), key);
        }
    }
}
