//! Sizes of packets that the way to a peer takes, as far as they are known to be below the usual.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

/// IP and UDP header in front of a Homa packet, in bytes.
const V4_OVERHEAD: u32 = 28;
const V6_OVERHEAD: u32 = 48;
/// IP packet assumed to get through the loopback interface, whose own limit is above it. Larger ones
/// gain nothing.
const LOOPBACK_MTU: u32 = 9000;
/// IP packet assumed to get through everywhere else: an Ethernet frame.
const ETHERNET_MTU: u32 = 1500;
/// Reports below these are not believed. Source: RFC 791 (what every host must accept), RFC 8200.
const V4_MTU_MIN: u32 = 576;
const V6_MTU_MIN: u32 = 1280;
/// Addresses remembered. When there are more, all are forgotten and learned anew.
const ADDRESSES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct PathMtu {
    any: AtomicBool,
    known: RwLock<HashMap<IpAddr, u32>>,
}

impl PathMtu {
    /// Largest Homa packet for `peer`, in bytes.
    pub(super) fn packet_bytes_max(&self, peer: SocketAddr) -> usize {
        let address = peer.ip().to_canonical();
        let usual = if address.is_loopback() {
            LOOPBACK_MTU
        } else {
            ETHERNET_MTU
        };
        let overhead = match address {
            IpAddr::V4(_) => V4_OVERHEAD,
            IpAddr::V6(_) => V6_OVERHEAD,
        };
        let mtu = self.known(address).map_or(usual, |mtu| mtu.min(usual));
        (mtu - overhead) as usize
    }

    fn known(&self, address: IpAddr) -> Option<u32> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&address).copied()
    }

    /// Notes that IP packets of more than `mtu` bytes don't get to `peer`.
    pub(super) fn learn(&self, peer: IpAddr, mtu: u32) {
        let address = peer.to_canonical();
        let least = match address {
            IpAddr::V4(_) => V4_MTU_MIN,
            IpAddr::V6(_) => V6_MTU_MIN,
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ADDRESSES_MAX && !known.contains_key(&address) {
            known.clear();
        }
        known.insert(address, mtu.max(least));
        self.any.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(paths: &PathMtu, peer: &str) -> usize {
        paths.packet_bytes_max(SocketAddr::new(peer.parse().unwrap(), 4000))
    }

    #[test]
    fn packets_fill_what_is_assumed_of_the_way() {
        let paths = PathMtu::default();
        assert_eq!(size(&paths, "127.0.0.1"), 8972);
        assert_eq!(size(&paths, "::1"), 8952);
        assert_eq!(size(&paths, "192.0.2.1"), 1472);
        assert_eq!(size(&paths, "2001:db8::1"), 1452);
        assert_eq!(size(&paths, "::ffff:192.0.2.1"), 1472);
    }

    #[test]
    fn a_narrower_way_shrinks_packets_to_that_address_within_reason() {
        let paths = PathMtu::default();
        paths.learn("192.0.2.1".parse().unwrap(), 1400);
        assert_eq!(size(&paths, "192.0.2.1"), 1372);
        assert_eq!(size(&paths, "::ffff:192.0.2.1"), 1372);
        assert_eq!(size(&paths, "192.0.2.2"), 1472);
        paths.learn("192.0.2.1".parse().unwrap(), 0);
        assert_eq!(size(&paths, "192.0.2.1"), 548);
        paths.learn("2001:db8::1".parse().unwrap(), 68);
        assert_eq!(size(&paths, "2001:db8::1"), 1232);
        paths.learn("192.0.2.1".parse().unwrap(), 65_536);
        assert_eq!(size(&paths, "192.0.2.1"), 1472);
    }

    #[test]
    fn addresses_remembered_are_bounded() {
        let paths = PathMtu::default();
        for address in 0..100_000u32 {
            paths.learn(IpAddr::V4(address.into()), 1400);
        }
        let known = paths.known.read().unwrap().len();
        assert!(known <= ADDRESSES_MAX, "{known}");
    }
}
