//! Under which addresses the hosts of a world are seen, and which addresses belong to nobody.
//!
//! A host has an address of its own, unless it is behind the NAT: all those share one address, and each is
//! seen under a port of it that changes. Nobody can call them. Victims are addresses without a host, in
//! whose name packets are forged.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::ip::{ip_of, port};
use homa_protocol::units::Instant;

/// What hosts behind the NAT have in common.
const NAT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The first port that the NAT gives out.
const NAT_PORT: u16 = 20_000;
/// Addresses of nobody.
const VICTIMS: usize = 3;

/// An address, by its number. Those of hosts of their own have the numbers of their hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AddressId(pub(super) u32);

#[derive(Debug)]
struct Entry {
    addr: SocketAddr,
    /// Number of the host; victims have numbers beyond those of hosts.
    party: usize,
    /// When packets to it cease to get anywhere.
    until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Addresses {
    entries: Vec<Entry>,
    by_addr: HashMap<SocketAddr, AddressId>,
    hosts: usize,
    /// Under which address each host is seen.
    seen_as: Vec<AddressId>,
}

impl Addresses {
    pub(super) fn new(hosts: usize, behind_nat: &[usize]) -> Self {
        let mut addresses = Self {
            entries: Vec::new(),
            by_addr: HashMap::new(),
            hosts,
            seen_as: Vec::new(),
        };
        for host in 0..hosts {
            let id = addresses.add(SocketAddr::new(ip_of(host), port()), host);
            addresses.seen_as.push(id);
        }
        for victim in 0..VICTIMS {
            let ip = Ipv4Addr::new(198, 51, 100, u8::try_from(victim).unwrap_or(0));
            addresses.add(SocketAddr::new(ip.into(), port()), hosts + victim);
        }
        for host in behind_nat {
            addresses.change_port(*host, Instant::ZERO);
        }
        addresses
    }

    fn add(&mut self, addr: SocketAddr, party: usize) -> AddressId {
        let id = AddressId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.entries.push(Entry {
            addr,
            party,
            until: None,
        });
        self.by_addr.insert(addr, id);
        id
    }

    /// Gives a host behind the NAT another port. Packets to the one before get to it until `until`.
    pub(super) fn change_port(&mut self, host: usize, until: Instant) {
        let number = u16::try_from(self.entries.len()).unwrap_or(0);
        let id = self.add(SocketAddr::new(NAT, NAT_PORT.saturating_add(number)), host);
        if let Some(seen_as) = self.seen_as.get_mut(host) {
            let before = std::mem::replace(seen_as, id);
            if let Some(entry) = self.entries.get_mut(before.0 as usize) {
                entry.until = Some(until);
            }
        }
    }

    /// Under which address packets of `host` are seen now.
    pub(super) fn seen_as(&self, host: usize) -> AddressId {
        let own = AddressId(u32::try_from(host).unwrap_or(u32::MAX));
        self.seen_as.get(host).copied().unwrap_or(own)
    }

    /// This address, unless it is one of a host under which nobody sees it.
    pub(super) fn as_seen(&self, id: AddressId) -> AddressId {
        let host = id.0 as usize;
        if host < self.hosts {
            self.seen_as(host)
        } else {
            id
        }
    }

    pub(super) fn is_behind_nat(&self, host: usize) -> bool {
        self.seen_as(host).0 as usize != host
    }

    pub(super) fn addr(&self, id: AddressId) -> Option<SocketAddr> {
        self.entries.get(id.0 as usize).map(|entry| entry.addr)
    }

    pub(super) fn find(&self, addr: SocketAddr) -> Option<AddressId> {
        self.by_addr.get(&addr).copied()
    }

    /// Whose address it is: a host, or a number beyond those of hosts.
    pub(super) fn party(&self, id: AddressId) -> usize {
        let entry = self.entries.get(id.0 as usize);
        entry.map_or(usize::MAX, |entry| entry.party)
    }

    /// An address of a party, for what has been known by any of them.
    pub(super) fn addr_of(&self, party: usize) -> Option<SocketAddr> {
        if party < self.hosts {
            return self.addr(self.seen_as(party));
        }
        self.addr(AddressId(u32::try_from(party).ok()?))
    }

    /// The host that packets to this address get to at `now`.
    pub(super) fn host_at(&self, id: AddressId, now: Instant) -> Option<usize> {
        let entry = self.entries.get(id.0 as usize)?;
        let open = entry.until.is_none_or(|until| now < until);
        Some(entry.party).filter(|party| open && *party < self.hosts)
    }

    /// Whether nobody calls this address, so that whatever goes there was asked for by packets from there.
    pub(super) fn is_never_called(&self, id: AddressId) -> bool {
        id.0 as usize >= self.hosts
    }

    /// How many addresses there are.
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Instant = Instant::from_nanos(1_000);

    #[test]
    fn hosts_behind_the_nat_share_an_address_and_are_found_under_old_ports() {
        let mut addresses = Addresses::new(4, &[2, 3]);
        let first = addresses.seen_as(2);
        let addr = |id| addresses.addr(id).unwrap();
        assert_eq!(addr(first).ip(), addr(addresses.seen_as(3)).ip());
        assert_ne!(addr(first), addr(addresses.seen_as(3)));
        assert_eq!(addresses.seen_as(1), AddressId(1));
        assert!(addresses.is_behind_nat(2) && !addresses.is_behind_nat(1));
        addresses.change_port(2, LATER);
        let second = addresses.seen_as(2);
        assert_ne!(first, second);
        assert_eq!(addresses.host_at(first, Instant::ZERO), Some(2));
        assert_eq!(addresses.host_at(first, LATER), None, "it was closed");
        assert_eq!(addresses.host_at(second, LATER), Some(2));
        for id in [first, second] {
            assert_eq!(addresses.find(addresses.addr(id).unwrap()), Some(id));
            assert_eq!(addresses.party(id), 2);
        }
    }

    #[test]
    fn victims_are_nobody() {
        let addresses = Addresses::new(2, &[]);
        for victim in 2..addresses.len() {
            let id = AddressId(u32::try_from(victim).unwrap());
            assert_eq!(addresses.host_at(id, Instant::ZERO), None);
            assert_eq!(addresses.addr_of(addresses.party(id)), addresses.addr(id));
            assert!(addresses.is_never_called(id));
        }
    }
}
