//! A fast hash for the tables that every packet looks into.
//!
//! The keys of those tables are chosen by peers, so the hash is keyed by chance, anew for each table:
//! who does not know the key cannot choose entries that collide. SipHash, the default, would take
//! a quarter of the time of a short RPC.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A [`std::collections::HashMap`] with this hash.
pub(super) type HashMap<K, V> = std::collections::HashMap<K, V, KeyedState>;

/// The key of a table.
#[derive(Clone, Debug)]
pub(super) struct KeyedState {
    start: u64,
    multiplier: u64,
}

/// Mixes in one word after the other by the two halves of a product of 128 bits.
#[derive(Debug)]
pub(super) struct KeyedHasher {
    state: u64,
    multiplier: u64,
}

impl Default for KeyedState {
    fn default() -> Self {
        let chance = RandomState::new();
        Self {
            start: chance.hash_one(0),
            // Odd, so that no multiplication loses a bit.
            multiplier: chance.hash_one(1) | 1,
        }
    }
}

impl BuildHasher for KeyedState {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher {
            state: self.start,
            multiplier: self.multiplier,
        }
    }
}

/// Both halves of the product, folded into one.
#[expect(clippy::cast_possible_truncation, reason = "the two halves are wanted")]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

impl Hasher for KeyedHasher {
    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.multiplier);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        fold(self.state, self.multiplier.rotate_left(32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::SocketAddr;

    #[test]
    fn close_keys_get_hashes_that_differ_in_all_parts() {
        let state = KeyedState::default();
        let mut low = HashSet::new();
        let mut high = HashSet::new();
        for host in 0..100_u8 {
            for port in 0..100_u16 {
                let addr = SocketAddr::from(([10, 0, 0, host], 1_000 + port));
                for id in 0..4_u64 {
                    let hash = state.hash_one((addr, id * 2));
                    low.insert(hash & 0xffff);
                    high.insert(hash >> 48);
                }
            }
        }
        // 40,000 balls into 65,536 urns hit 29,900 of them by chance.
        assert!((29_000..31_000).contains(&low.len()), "{}", low.len());
        assert!((29_000..31_000).contains(&high.len()), "{}", high.len());
    }

    #[test]
    fn two_tables_hash_differently() {
        let (one, other) = (KeyedState::default(), KeyedState::default());
        assert!((0..64_u64).any(|word| one.hash_one(word) != other.hash_one(word)));
    }
}
