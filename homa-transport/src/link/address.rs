//! Addresses: one form of each, and what can be bound and called.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use socket2::Socket;

use crate::error::{BindError, RpcError};

/// One form for each peer: IPv4 addresses unmapped, no flow label.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_canonical() {
            IpAddr::V4(v4) => SocketAddr::new(v4.into(), v6.port()),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into(),
        },
    }
}

/// The address to call for `peer`, if it can be called at all.
pub(crate) fn callable(peer: SocketAddr) -> Result<SocketAddr, RpcError> {
    if lacks_zone(peer) {
        let reason = "a link-local address needs its interface, as in [fe80::1%2]";
        return Err(RpcError::BadAddress { peer, reason });
    }
    Ok(reachable(peer))
}

/// A socket bound to "any address" is reachable on this host's loopback address.
pub(crate) const fn reachable(mut peer: SocketAddr) -> SocketAddr {
    match peer.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => peer.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(ip) if ip.is_unspecified() => peer.set_ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => {}
    }
    peer
}

/// Whether `addr` is a link-local address without its interface. The system sends there by an interface of its
/// choice, but what comes back has the interface with it, and so comes from somebody else.
pub(crate) const fn lacks_zone(addr: SocketAddr) -> bool {
    match addr {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(v6) => v6.ip().is_unicast_link_local() && v6.scope_id() == 0,
    }
}

/// Refuses a link-local address without its interface, of which the system says only that it is invalid.
pub(super) fn check_zone_to_bind(addr: SocketAddr) -> Result<(), BindError> {
    if lacks_zone(addr) {
        return Err(BindError::NoZone { addr });
    }
    Ok(())
}

/// The address that a socket is bound to.
pub(super) fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    let not_ip = || io::Error::other("a socket's local address is not an IP address");
    socket.local_addr()?.as_socket().ok_or_else(not_ip)
}
