//! Keys that tell the shard they belong to.

use slotmap::{Key, KeyData};

/// Marks the keys of a shard: of each slot map's index it makes `index * shards + number`, so that one
/// shard alone leaves keys as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyMark {
    number: u32,
    shards: u32,
}

impl KeyMark {
    /// The mark of shard `number` of `shards`, of which there is at least one.
    pub(super) const fn new(number: u32, shards: u32) -> Self {
        Self { number, shards }
    }

    /// Whether it is that of the shard of this number.
    pub(super) const fn is(self, number: u32) -> bool {
        self.number == number
    }

    /// Entries that a slot map may have at most, that its keys can be marked.
    pub(super) fn slots_max(self) -> usize {
        usize::try_from(u32::MAX / self.shards - 1).unwrap_or(usize::MAX)
    }

    /// The key of a slot map of this shard, as it is known outside.
    pub(super) fn mark<K: Key>(self, key: K) -> K {
        if self.shards == 1 {
            return key;
        }
        edit(key, |index| {
            let first = index.saturating_mul(self.shards);
            first.saturating_add(self.number)
        })
    }

    /// The key as the slot map knows it.
    pub(super) fn unmark<K: Key>(self, key: K) -> K {
        if self.shards == 1 {
            return key;
        }
        edit(key, |index| index / self.shards)
    }
}

/// The number of the shard, of so many, whose key this is.
pub(super) fn shard_of<K: Key>(key: K, shards: u32) -> u32 {
    if shards == 1 {
        return 0;
    }
    index(key.data().as_ffi()) % shards
}

/// A slot map's key is an index in the lower half and a version in the upper one.
/// Source: slotmap, `KeyData::as_ffi`.
fn edit<K: Key>(key: K, edit: impl FnOnce(u32) -> u32) -> K {
    let bits = key.data().as_ffi();
    let index = edit(index(bits));
    K::from(KeyData::from_ffi(
        bits & !u64::from(u32::MAX) | u64::from(index),
    ))
}

fn index(bits: u64) -> u32 {
    let [a, b, c, d, ..] = bits.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;
    use crate::transport::CallKey;

    #[test]
    fn a_key_tells_its_shard_and_finds_its_slot_again() {
        for shards in [1, 2, 3, 64] {
            let mut maps: Vec<_> = (0..shards)
                .map(|_| SlotMap::<CallKey, u32>::with_key())
                .collect();
            let mut seen = std::collections::HashSet::new();
            for (number, map) in (0..).zip(&mut maps) {
                let mark = KeyMark::new(number, shards);
                for value in 0..100 {
                    let key = map.insert(value);
                    let marked = mark.mark(key);
                    assert!(seen.insert(marked), "no two shards have the same key");
                    assert_eq!(shard_of(marked, shards), number);
                    assert_eq!(mark.unmark(marked), key);
                    if value % 3 == 0 {
                        // Its slot has another version from now on.
                        map.remove(key);
                    }
                }
            }
        }
    }

    #[test]
    fn the_highest_index_can_be_marked() {
        for shards in [2, 3, 64] {
            let mark = KeyMark::new(shards - 1, shards);
            let index = u64::try_from(mark.slots_max()).unwrap();
            let key = CallKey::from(KeyData::from_ffi(7 << 32 | index));
            assert_eq!(mark.unmark(mark.mark(key)), key);
        }
    }
}
