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
        let holder = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        holder.bind(&SockAddr::unix(name)?)?;
        // Connections are never taken. To who made them they show that the name is held, and their
        // end, that it no longer is.
        holder.listen(CONNECTIONS_MAX)?;
        Ok(Self { _holder: holder })
    }
}

/// Connections to a name at most; those beyond show only that it is held.
const CONNECTIONS_MAX: i32 = 1024;

/// Whether a name is held.
#[derive(Debug)]
pub(super) enum Held {
    /// Nobody has it.
    No,
    /// Somebody has it. The socket becomes readable when that is over.
    Until(Socket),
    /// Somebody may have it, and the end cannot be told.
    Unknown,
}

/// Looks whether the port of protocol 146 is held, in the network namespace of the calling thread.
pub(super) fn probe_native(port: u16) -> Held {
    probe(&native_name(port))
}

/// Looks whether a name is held.
pub(super) fn probe(name: &str) -> Held {
    let connect = || {
        let connection = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        connection.set_nonblocking(true)?;
        connection.connect(&SockAddr::unix(name)?)?;
        Ok(connection)
    };
    match connect() {
        Ok(connection) => Held::Until(connection),
        Err(error) if io::Error::kind(&error) == io::ErrorKind::ConnectionRefused => Held::No,
        Err(_) => Held::Unknown,
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
        // No test binds this port.
        let port = 32_001;
        assert!(matches!(probe_native(port), Held::No));
        let held = PortReservation::acquire_native(port).unwrap();
        let looks: Vec<_> = (0..2000).map(|_| probe_native(port)).collect();
        assert!(!looks.iter().any(|look| matches!(look, Held::No)));
        let Held::Until(end) = &looks[0] else {
            panic!("{:?}", looks[0]);
        };
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let waiting = end.recv(&mut byte).unwrap_err();
        assert_eq!(waiting.kind(), io::ErrorKind::WouldBlock);
        let error = PortReservation::acquire_native(port).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(held);
        let over = end.recv(&mut byte).unwrap_err();
        assert_eq!(over.kind(), io::ErrorKind::ConnectionReset);
        assert!(matches!(probe_native(port), Held::No));
        PortReservation::acquire_native(port).unwrap();
    }
}
