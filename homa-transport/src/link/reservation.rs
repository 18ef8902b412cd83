//! Ownership of a port within the network namespace, as the name of a Unix socket.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, SockAddr, Socket, Type};

/// Holds the name of an address and port until dropped.
///
/// Binding the UDP port alone would keep others away only as long as nobody shares ports
/// (`SO_REUSEPORT`); of a name in the abstract Unix namespace there is never more than one holder.
#[derive(Debug)]
pub(super) struct PortReservation {
    _holder: Socket,
}

impl PortReservation {
    /// Takes the name of `addr`.
    ///
    /// # Errors
    /// `AddrInUse` if another socket has it.
    pub(super) fn acquire(addr: SocketAddr) -> io::Result<Self> {
        Self::hold(&name(addr))
    }

    /// Takes a Homa port of protocol 146, on all addresses: IPv4 and IPv6 share them.
    /// Source: homa_sock.c, `homa_sock_find`.
    ///
    /// # Errors
    /// `AddrInUse` if another socket has it.
    pub(super) fn acquire_native(port: u16) -> io::Result<Self> {
        Self::hold(&native_name(port))
    }

    /// Takes a name that is not that of a port.
    ///
    /// # Errors
    /// `AddrInUse` if somebody else has it.
    pub(super) fn hold(name: &str) -> io::Result<Self> {
        let holder = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        // What others send to it is never read; the system keeps a few datagrams, then refuses.
        holder.bind(&SockAddr::unix(name)?)?;
        Ok(Self { _holder: holder })
    }
}

/// Looks which ports of protocol 146 are held, without taking them.
#[derive(Debug)]
pub(super) struct PortLookup {
    probe: Socket,
}

impl PortLookup {
    /// Looks in the network namespace of the calling thread, from then on.
    pub(super) fn new() -> io::Result<Self> {
        let probe = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        probe.set_nonblocking(true)?;
        Ok(Self { probe })
    }

    /// Whether somebody holds `port`. In doubt, yes.
    pub(super) fn is_held(&self, port: u16) -> bool {
        let Ok(name) = SockAddr::unix(native_name(port)) else {
            return true;
        };
        match self.probe.connect(&name) {
            Ok(()) => true,
            Err(error) => error.kind() != io::ErrorKind::ConnectionRefused,
        }
    }
}

fn native_name(port: u16) -> String {
    format!("\0homa/{port}")
}

/// The leading NUL puts the name into the abstract namespace.
fn name(addr: SocketAddr) -> String {
    let scope = match addr {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("%{}", v6.scope_id()),
        _ => String::new(),
    };
    let ip: IpAddr = addr.ip().to_canonical();
    format!("\0homa-udp/{ip}{scope}/{}", addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_holder_until_it_is_dropped() {
        // Port 1 is not used by other tests, which bind ephemeral ones.
        let addr: SocketAddr = "127.99.1.1:1".parse().unwrap();
        let mapped = "[::ffff:127.99.1.1]:1".parse().unwrap();
        let held = PortReservation::acquire(addr).unwrap();
        for same in [addr, mapped] {
            let error = PortReservation::acquire(same).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        let others = [
            "127.99.1.2:1",
            "127.99.1.1:2",
            "[fe80::1%1]:1",
            "[fe80::1%2]:1",
        ];
        let _others = others.map(|other| PortReservation::acquire(other.parse().unwrap()).unwrap());
        drop(held);
        PortReservation::acquire(addr).unwrap();
    }

    #[test]
    fn a_look_tells_who_is_there_and_takes_nothing() {
        let lookup = PortLookup::new().unwrap();
        // No test binds this port.
        let port = 32_001;
        assert!(!lookup.is_held(port));
        let held = PortReservation::acquire_native(port).unwrap();
        for _ in 0..100 {
            assert!(lookup.is_held(port));
        }
        let error = PortReservation::acquire_native(port).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(held);
        assert!(!lookup.is_held(port));
        PortReservation::acquire_native(port).unwrap();
    }
}
