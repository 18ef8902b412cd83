//! Whether there is a Homa module here, and whether it is one whose interface we know.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::link::kernel_module;

use crate::error::{KernelError, Variant};

use super::sys::{self, DEFAULT_PORT_MIN, IPPROTO_HOMA, Port, Region};

/// Whether the module is loaded. Only looks: opening a Homa socket could load it.
pub(super) fn find_module() -> Result<(), KernelError> {
    if kernel_module::is_loaded().map_err(KernelError::NoList)? {
        Ok(())
    } else {
        Err(KernelError::NotLoaded)
    }
}

/// Opens a socket with a region of `region_bytes`, and looks whether its interface is the one that
/// `sys` describes. The system may load the module for this.
///
/// The socket is an IPv6 one where there is IPv6. Such a socket serves IPv4 too. An IPv4 socket gets
/// IPv6 packets all the same, because the module does not keep the families' ports apart, and the
/// first of them from a host of which the module knows no route yet was seen to panic the kernel.
/// Source: homa_sock.c, `homa_sock_find`; homa_peer.c, `homa_peer_reset_dst`.
pub(super) fn open(region_bytes: usize) -> Result<Port, KernelError> {
    let socket = match new_socket(Domain::IPV6) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => new_socket(Domain::IPV4),
        result => result,
    };
    let socket = socket.map_err(|error| match error.raw_os_error() {
        Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT) => KernelError::NotLoaded,
        _ => refused("socket", error),
    })?;
    check_ioctls(&socket)?;
    let region = Region::new(region_bytes).map_err(|error| refused("mmap", error))?;
    let port =
        Port::new(socket, region).map_err(|error| refused("setsockopt(SO_HOMA_RCVBUF)", error))?;
    check_receive(&port)?;
    Ok(port)
}

fn new_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::DGRAM, Some(Protocol::from(IPPROTO_HOMA)))
}

/// The number of an ioctl contains the size of its argument, and they all changed in April 2026.
fn check_ioctls(socket: &Socket) -> Result<(), KernelError> {
    sys::info(socket).map_err(|error| unknown("HOMAIOCINFO", error, Variant::OtherIoctls))?;
    // A new socket has no calls: to forget all of them does nothing.
    sys::abort(socket, 0).map_err(|error| unknown("HOMAIOCABORT", error, Variant::WithoutGrants))
}

/// With nothing to receive a module that takes our control block says so; others call it invalid.
/// This comes before the socket has a server's port, so that no request can be there.
fn check_receive(port: &Port) -> Result<(), KernelError> {
    match port.receive() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(unknown("recvmsg", error, Variant::OtherReceive)),
        Ok(_) => Err(KernelError::Variant(Variant::OtherReceive)),
    }
}

/// Gives the socket the server's port `number`; 0 leaves it the one that it has from the start.
pub(super) fn bind(port: &Port, number: u16) -> io::Result<()> {
    if number == 0 {
        return Ok(());
    }
    if number >= DEFAULT_PORT_MIN {
        let text =
            format!("port {number}: servers have 1 to 32767, the module gives out the others");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let addr = if is_ipv4(port)? {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, number))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, number))
    };
    port.socket().bind(&SockAddr::from(addr))
}

/// Whether this is a socket for IPv4 alone.
pub(super) fn is_ipv4(port: &Port) -> io::Result<bool> {
    Ok(port.socket().domain()? == Domain::IPV4)
}

/// What a failed call means that works with the interface we know.
fn unknown(call: &'static str, error: io::Error, variant: Variant) -> KernelError {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOPROTOOPT) => {
            KernelError::Variant(variant)
        }
        _ => refused(call, error),
    }
}

fn refused(call: &'static str, source: io::Error) -> KernelError {
    KernelError::Refused { call, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_the_module_does_not_know_names_the_variant() {
        let error = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            unknown("HOMAIOCABORT", source, Variant::WithoutGrants)
        };
        for errno in [libc::EINVAL, libc::ENOTTY] {
            assert!(error(errno).to_string().contains("built without grants"));
        }
        assert!(matches!(
            error(libc::ESHUTDOWN),
            KernelError::Refused {
                call: "HOMAIOCABORT",
                ..
            }
        ));
    }
}
