//! Raw sockets of protocol 146, one address family each, with the options that a link needs.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::runtime::Handle;

use super::port_filter::{self, StartsWith};
use crate::link::cmsg::array;
use crate::link::datagram::DatagramSocket;
use crate::link::steering::ShardSlot;
use crate::link::sys;

/// The IP protocol number of Homa. Source: homa.h, `IPPROTO_HOMA`.
pub(super) const IPPROTO_HOMA: i32 = 146;
/// One of the two versions of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(super) const fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 => Domain::IPV6,
        }
    }

    pub(super) const fn starts_with(self) -> StartsWith {
        match self {
            Self::V4 => StartsWith::Ipv4Header,
            Self::V6 => StartsWith::HomaHeader,
        }
    }

    /// Sets one of two options, IPv4's and IPv6's.
    pub(super) fn set(self, socket: &Socket, v4: i32, v6: i32, value: i32) -> io::Result<()> {
        match self {
            Self::V4 => sys::set_option(socket, libc::IPPROTO_IP, v4, value),
            Self::V6 => sys::set_option(socket, libc::IPPROTO_IPV6, v6, value),
        }
    }
}

/// Packets received before a filter was there at most.
const UNFILTERED_MAX: usize = 65_536;

/// Drops what came to a new socket before its filter: packets for anybody.
fn discard_received(socket: &Socket) {
    let mut byte = [MaybeUninit::uninit()];
    for _ in 0..UNFILTERED_MAX {
        // A packet is cut to one byte; nothing left is an error.
        if socket.recv(&mut byte).is_err() {
            return;
        }
    }
}

/// Opens a socket on `ip` for packets to `port` from the addresses of `part`.
pub(super) fn open(
    ip: IpAddr,
    scope_id: u32,
    (port, part): (u16, ShardSlot),
    buffers: (usize, usize),
    runtime: &Handle,
) -> io::Result<DatagramSocket> {
    let family = Family::of(ip);
    let socket = Socket::new(
        family.domain(),
        Type::RAW,
        Some(Protocol::from(IPPROTO_HOMA)),
    )?;
    // First of all, since packets come from now on.
    socket.attach_filter(&port_filter::only(port, part, family.starts_with()))?;
    socket.set_nonblocking(true)?;
    discard_received(&socket);
    // Above its limit the system takes the limit.
    socket.set_recv_buffer_size(buffers.0)?;
    socket.set_send_buffer_size(buffers.1)?;
    family.set(&socket, libc::IP_PKTINFO, libc::IPV6_RECVPKTINFO, 1)?;
    family.set(&socket, libc::IP_RECVERR, libc::IPV6_RECVERR, 1)?;
    family.set(
        &socket,
        libc::IP_MTU_DISCOVER,
        libc::IPV6_MTU_DISCOVER,
        // The same value for both.
        libc::IP_PMTUDISC_DO,
    )?;
    sys::set_option(&socket, libc::SOL_SOCKET, sys::SO_SELECT_ERR_QUEUE, 1)?;
    if !ip.is_unspecified() {
        socket.bind(&name(with_scope(ip, scope_id)))?;
    }
    DatagramSocket::new(socket, runtime)
}

/// The port at `at` in a Homa header.
pub(super) fn homa_port(packet: &[u8], at: usize) -> Option<u16> {
    array(packet, at).map(u16::from_be_bytes)
}

/// The address of a raw socket's system calls: without a port, which IPv6 would take for a protocol.
pub(super) fn name(mut to: SocketAddr) -> SockAddr {
    to.set_port(0);
    to.into()
}

fn with_scope(ip: IpAddr, scope_id: u32) -> SocketAddr {
    match ip {
        IpAddr::V4(ip) => SocketAddr::from((ip, 0)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, 0, 0, scope_id).into(),
    }
}
