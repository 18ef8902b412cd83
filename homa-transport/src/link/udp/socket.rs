//! UDP sockets of both families with the options that a link needs.

use std::io;
use std::net::SocketAddr;

use libc::c_int;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::link::address::local_address;
use crate::link::reservation::PortReservation;
use crate::link::{bpf, steering, sys};

/// Settings of a [`UdpLink`](super::UdpLink).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Receive buffer to ask the system for, in bytes of packets.
    ///
    /// Default 4 MiB. The limit is the system's (`net.core.rmem_max`).
    pub receive_buffer_bytes: usize,
    /// Send buffer to ask the system for, in bytes of packets.
    ///
    /// Default 1 MiB. The limit is the system's (`net.core.wmem_max`). What is in there is beyond
    /// the control of the protocol, which would send the shortest message first.
    pub send_buffer_bytes: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            receive_buffer_bytes: 4 << 20,
            send_buffer_bytes: 1 << 20,
        }
    }
}

/// Ports tried when the system chooses one whose name somebody else holds.
const PORT_ATTEMPTS: usize = 16;

/// Which addresses a socket can send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destinations {
    V4,
    V6,
    /// An IPv6 socket that shows IPv4 addresses as mapped ones.
    Both,
}

impl Destinations {
    pub(super) const fn of(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => Self::Both,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    const fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 | Self::Both => Domain::IPV6,
        }
    }

    /// Whether a socket of this kind gets to `to`, a canonical address.
    pub(super) const fn reach(self, to: SocketAddr) -> bool {
        !matches!(
            (self, to),
            (Self::V4, SocketAddr::V6(_)) | (Self::V6, SocketAddr::V4(_))
        )
    }

    /// `to`, a canonical address, as the system calls of such a socket want it.
    pub(super) fn name(self, to: SocketAddr) -> SockAddr {
        match to {
            SocketAddr::V4(v4) if self == Self::Both => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()).into()
            }
            _ => to.into(),
        }
    }

    /// Calls `set` for each protocol that such a socket uses, with two options to choose from.
    fn set(self, socket: &Socket, v4: c_int, v6: c_int, value: c_int) -> io::Result<()> {
        if self != Self::V6 {
            sys::set_option(socket, libc::IPPROTO_IP, v4, value)?;
        }
        if self != Self::V4 {
            sys::set_option(socket, libc::IPPROTO_IPV6, v6, value)?;
        }
        Ok(())
    }

    /// The values of the two protocols' options are the same.
    pub(super) fn set_path_mtu_discovery(self, socket: &Socket, value: c_int) -> io::Result<()> {
        const _: () = assert!(libc::IP_PMTUDISC_WANT == libc::IPV6_PMTUDISC_WANT);
        const _: () = assert!(libc::IP_PMTUDISC_DO == libc::IPV6_PMTUDISC_DO);
        self.set(
            socket,
            libc::IP_MTU_DISCOVER,
            libc::IPV6_MTU_DISCOVER,
            value,
        )
    }
}

/// Sockets bound to one port, and the right to it.
pub(super) struct Opened {
    pub(super) first: Socket,
    pub(super) others: Vec<Socket>,
    pub(super) reservation: PortReservation,
}

/// Opens `members` (at least one) sockets on `addr`.
pub(super) fn open_reserved(
    addr: SocketAddr,
    options: &UdpOptions,
    members: u32,
) -> io::Result<Opened> {
    let mut attempts = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let first = open(addr, options)?;
        if members > 1 {
            begin_group(&first, members)?;
        }
        first.bind(&addr.into())?;
        let bound = local_address(&first)?;
        match PortReservation::acquire(bound) {
            Ok(reservation) => {
                let others = if members > 1 {
                    complete_group(&first, bound, options, members - 1)?
                } else {
                    Vec::new()
                };
                return Ok(Opened {
                    first,
                    others,
                    reservation,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a socket the first of a group on one port. The program is there before the socket is bound,
/// so that the port must be free: otherwise the socket would join whatever group there is.
/// Source: net/ipv4/udp.c, `udp_lib_lport_inuse`.
fn begin_group(first: &Socket, members: u32) -> io::Result<()> {
    first.set_reuse_port(true)?;
    sys::attach_reuseport_program(first, &steering::by_id(members))?;
    take_nothing(first)
}

/// Adds the others. Nobody takes a packet before all are there, since the system gives those for
/// missing members to the ones that are.
fn complete_group(
    first: &Socket,
    addr: SocketAddr,
    options: &UdpOptions,
    others: u32,
) -> io::Result<Vec<Socket>> {
    let join = |_| {
        let socket = open(addr, options)?;
        socket.set_reuse_port(true)?;
        take_nothing(&socket)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    let others = (0..others).map(join).collect::<io::Result<Vec<_>>>()?;
    for socket in others.iter().chain([first]) {
        socket.detach_filter()?;
    }
    Ok(others)
}

/// Makes the system drop what comes to `socket`.
fn take_nothing(socket: &Socket) -> io::Result<()> {
    socket.attach_filter(&[bpf::accept(bpf::NOTHING)])
}

/// A socket with all options, not bound yet.
fn open(addr: SocketAddr, options: &UdpOptions) -> io::Result<Socket> {
    let destinations = Destinations::of(addr);
    let socket = Socket::new(destinations.domain(), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if destinations != Destinations::V4 {
        socket.set_only_v6(destinations == Destinations::V6)?;
    }
    // Above its limit the system takes the limit.
    socket.set_recv_buffer_size(buffer_bytes(options.receive_buffer_bytes))?;
    socket.set_send_buffer_size(buffer_bytes(options.send_buffer_bytes))?;
    destinations.set(&socket, libc::IP_PKTINFO, libc::IPV6_RECVPKTINFO, 1)?;
    destinations.set(&socket, libc::IP_RECVERR, libc::IPV6_RECVERR, 1)?;
    destinations.set_path_mtu_discovery(&socket, libc::IP_PMTUDISC_DO)?;
    sys::set_option(&socket, libc::SOL_SOCKET, sys::SO_SELECT_ERR_QUEUE, 1)?;
    if let Err(error) = sys::set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1) {
        // A kernel older than 5.0.
        tracing::debug!(%error, "packets come one by one: the system puts none together (GRO)");
    }
    Ok(socket)
}

/// The system takes an `int` and doubles it.
fn buffer_bytes(wanted: usize) -> usize {
    wanted.min(1 << 30)
}
