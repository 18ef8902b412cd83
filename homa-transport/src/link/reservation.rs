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
        // Never listens, so nobody can connect to it.
        let holder = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        holder.bind(&SockAddr::unix(name(addr))?)?;
        Ok(Self { _holder: holder })
    }
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
}
