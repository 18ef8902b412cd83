//! Raw sockets of protocol 146, one address family each, with the options that a link needs.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::atomic::AtomicBool;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use super::super::address::canonical;
use super::super::cmsg::{self, array};
use super::super::icmp::{ExtendedError, NetworkError};
use super::super::steering::ShardSlot;
use super::super::sys;
use super::super::writable::WritableWait;
use super::port_filter::{self, StartsWith};
use crate::units::RpcId;
use crate::wire::{self, COMMON_HEADER_BYTES};

/// The IP protocol number of Homa. Source: homa.h, `IPPROTO_HOMA`.
pub(super) const IPPROTO_HOMA: i32 = 146;
/// Errors collected at a time. The queue shares the bounds of the receive buffer.
const ERRORS_MAX: usize = 1024;

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

/// A raw socket that gets the packets to one port.
#[derive(Debug)]
pub(super) struct RawSocket {
    pub(super) family: Family,
    pub(super) fd: AsyncFd<Socket>,
    pub(super) writable: WritableWait,
    /// The last packet found the queue of the network device full.
    pub(super) device_full: AtomicBool,
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

impl RawSocket {
    /// Opens a socket on `ip` for packets to `port` from the addresses of `part`.
    pub(super) fn open(
        ip: IpAddr,
        scope_id: u32,
        (port, part): (u16, ShardSlot),
        buffers: (usize, usize),
        runtime: Handle,
    ) -> io::Result<Self> {
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
        // PRIORITY, because an error alone makes no socket readable to tokio.
        let interest = Interest::READABLE | Interest::PRIORITY;
        Ok(Self {
            family,
            fd: sys::register(socket, interest)?,
            writable: WritableWait::new(runtime),
            device_full: AtomicBool::new(false),
        })
    }

    pub(super) fn socket(&self) -> &Socket {
        self.fd.get_ref()
    }

    /// Empties the system's error queue; `each` gets those about packets from `port`, with the peer and the
    /// RPC.
    /// Returns whether an error may have made a system call fail that had nothing to do with it.
    pub(super) fn collect_errors(
        &self,
        port: u16,
        mut each: impl FnMut(SocketAddr, NetworkError, Option<RpcId>),
    ) -> bool {
        let mut any_from_network = false;
        let mut control = [0; cmsg::RECEIVE_BYTES];
        for _ in 0..ERRORS_MAX {
            // The start of the Homa packet that the error quotes.
            let mut quoted = [0; COMMON_HEADER_BYTES];
            let flags = libc::MSG_ERRQUEUE;
            let received = match sys::receive(self.socket(), &mut quoted, &mut control, flags) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let control = control.get(..received.control_len).unwrap_or_default();
            let Some(error) = cmsg::messages(control).find_map(ExtendedError::parse) else {
                continue;
            };
            any_from_network |= error.is_from_network();
            let (Some(peer), Some(meaning)) = (received.address.map(canonical), error.meaning())
            else {
                continue;
            };
            let quoted = quoted.get(..received.len).unwrap_or_default();
            match (homa_port(quoted, 0), homa_port(quoted, 2)) {
                // Every raw socket hears of the errors of all. Those of the system's own making quote
                // nothing, and are ours alone.
                (Some(source), _) if error.is_from_network() && source != port => {}
                (_, destination) => {
                    let peer = SocketAddr::new(peer.ip(), destination.unwrap_or(0));
                    let about = wire::quoted_id(quoted);
                    each(keep_scope(peer, received.address), meaning, about);
                }
            }
        }
        any_from_network
    }
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

fn keep_scope(mut peer: SocketAddr, from: Option<SocketAddr>) -> SocketAddr {
    if let (SocketAddr::V6(peer), Some(SocketAddr::V6(from))) = (&mut peer, from) {
        peer.set_scope_id(from.scope_id());
    }
    peer
}
