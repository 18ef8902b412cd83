//! Tables by the names of services and the paths of methods that this side itself has chosen.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// By the name of a service or the path of a method.
pub(crate) type ByName<K, V> = HashMap<K, V, BuildHasherDefault<NameHasher>>;
/// Names of services.
pub(crate) type Names = HashSet<&'static str, BuildHasherDefault<NameHasher>>;

/// Eight bytes at a time, without a key: peers make us look names up but add none, so they cannot make
/// any two of them collide.
#[derive(Debug, Default)]
pub(crate) struct NameHasher(u64);

impl NameHasher {
    fn add(&mut self, word: u64) {
        // Multiplying carries each bit to those above it, the shift brings these down again. The
        // multiplier is that of Fibonacci hashing: 2^64 divided by the golden ratio.
        let product = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.add(u64::from_le_bytes(last));
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(byte.into());
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, BuildHasherDefault};

    use super::*;

    #[test]
    fn names_are_found_and_others_are_not() {
        let names: Vec<String> = (0..1_000).map(|n| format!("/pkg.Service/Do{n}")).collect();
        let table: ByName<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
        for (index, name) in names.iter().enumerate() {
            assert_eq!(table.get(name.as_str()), Some(&index));
        }
        assert_eq!(table.get("/pkg.Service/Do1000"), None);
        assert_eq!(table.get(""), None);
    }

    #[test]
    fn similar_names_spread_over_the_bits_that_tables_use() {
        let hasher = BuildHasherDefault::<NameHasher>::default();
        let (mut low, mut high) = (HashSet::new(), HashSet::new());
        for n in 0..1_000 {
            let hash = hasher.hash_one(format!("/pkg.Service/Do{n}").as_str());
            low.insert(hash & 0xffff);
            high.insert(hash >> 57);
        }
        assert!(low.len() > 950, "{} of 1,000 differ", low.len());
        assert_eq!(high.len(), 128);
    }
}
