//! Addresses of hosts.

use std::net::{IpAddr, Ipv4Addr};

/// Homa port of every host.
const PORT: u16 = 4_000;

/// Port on which every host serves.
pub(super) const fn port() -> u16 {
    PORT
}

/// Address of host `number`: 10.0.0.1 and up.
pub fn ip_of(number: usize) -> IpAddr {
    let number = u32::try_from(number).unwrap_or(u32::MAX >> 8);
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + number).into()
}

/// Number of the host with this address.
pub fn number_at(ip: IpAddr) -> Option<usize> {
    let IpAddr::V4(ip) = ip else {
        return None;
    };
    let number = ip
        .to_bits()
        .checked_sub(Ipv4Addr::new(10, 0, 0, 1).to_bits())?;
    Some(number as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_their_address() {
        for number in [0, 1, 143, 300, 70_000] {
            assert_eq!(number_at(ip_of(number)), Some(number));
        }
    }
}
