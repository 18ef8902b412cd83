//! Addresses as keys of tables.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// A peer's address and port. Hashed as one or two integers: the hash that the standard library
/// derives takes it in small pieces, three times as slowly, and every packet is looked up by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::endpoint) struct AddrKey(pub(in crate::endpoint) SocketAddr);

impl Hash for AddrKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let port = self.0.port();
        match self.0.ip() {
            IpAddr::V4(ip) => state.write_u64(u64::from(ip.to_bits()) << 16 | u64::from(port)),
            IpAddr::V6(ip) => {
                state.write_u128(ip.to_bits());
                state.write_u64(u64::from(port));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn addresses_that_differ_are_different_keys_of_either_family() {
        let texts = [
            "10.0.0.1:80",
            "10.0.0.1:81",
            "10.0.0.2:80",
            "[::1]:80",
            "[::1]:81",
            "[::ffff:10.0.0.1]:80",
        ];
        let keys = texts.map(|text| AddrKey(text.parse().unwrap()));
        let set: HashSet<AddrKey> = keys.into_iter().collect();
        assert_eq!(set.len(), texts.len());
        assert!(set.contains(&AddrKey("10.0.0.2:80".parse().unwrap())));
        assert!(!set.contains(&AddrKey("10.0.0.3:80".parse().unwrap())));
    }
}
