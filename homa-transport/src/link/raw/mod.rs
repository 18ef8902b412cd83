//! Packets of IP protocol 146, as the Homa kernel module sends them: the Homa header comes right behind
//! that of IP.
//!
//! Every raw socket of a network namespace gets a copy of every such packet. A filter in the kernel
//! (`raw/port_filter.rs`) leaves each socket those to its own port, and a name reserved for the port keeps
//! two sockets from having the same one.

mod parts;
mod port_filter;
mod port_unreachable;
mod receive;
mod route_mtu;
mod socket;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr;
use std::sync::Arc;

use socket2::SockAddr;
use tokio::runtime::Handle;

use self::port_unreachable::Responder;
use self::route_mtu::RouteMtu;
use self::socket::{Family, homa_port, name};
use super::address::{canonical, check_zone_to_bind};
use super::datagram::{
    Common, DatagramLink, DatagramSocket, PacketError, Received, Segments, Sent,
    warn_of_small_buffer,
};
use super::icmp::NetworkError;
use super::reservation::PortReservation;
use super::steering::{ShardSlot, shard_of_host};
use super::{RecvBatch, kernel_module};
use crate::endpoint::Transmit;
use crate::error::{BindError, Report};
use crate::stats::Backend;
use crate::wire;

/// Highest port of servers; clients have those above. Source: homa.h, `HOMA_MIN_DEFAULT_PORT`.
const SERVER_PORT_MAX: u16 = 32_767;
/// Receive buffer to ask the system for, in bytes of packets (`net.core.rmem_max` limits it).
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Send buffer to ask the system for. What is in there is beyond the control of the protocol, which would
/// send the shortest message first.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// Raw sockets of one port as a [`Link`](super::Link).
#[derive(Debug)]
pub struct RawLink {
    common: Common,
    /// One per address family.
    sockets: Vec<DatagramSocket>,
    /// Of each of them.
    families: Vec<Family>,
    /// Whose packets these are.
    slot: ShardSlot,
    receive_buffer_bytes: usize,
    routes: RouteMtu,
    _responder: Arc<Responder>,
    /// Behind the sockets: the port is free when they are closed.
    _reservation: Arc<PortReservation>,
}

impl RawLink {
    /// Opens a server's sockets on `addr`, port 0 meaning the first that is free. `[::]` takes IPv4 as
    /// well. A port belongs to one socket of the network namespace, whatever its address.
    ///
    /// # Errors
    /// [`BindError::RawNotPermitted`] without CAP_NET_RAW, [`BindError::ModuleLoaded`] where the kernel
    /// module is, [`BindError::ServerPort`] for a port above 32767, [`BindError::AddressInUse`],
    /// [`BindError::NoFreePort`], [`BindError::NoRuntime`] outside a tokio runtime, and
    /// [`BindError::Io`] for what else the system may say.
    ///
    /// # Panics
    /// If the tokio runtime was built without I/O or timers.
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        Self::bind_group(addr, 1).map(|(link, _)| link)
    }

    /// Opens `members` (at least one) links on one port: the first, and the others. Each gets the packets
    /// from the addresses that [`Steering::ByAddress`](super::steering::Steering) gives to it.
    ///
    /// # Errors
    /// As [`RawLink::bind`].
    ///
    /// # Panics
    /// As [`RawLink::bind`].
    pub(crate) fn bind_group(
        addr: SocketAddr,
        members: u32,
    ) -> Result<(Self, Vec<Self>), BindError> {
        check_module()?;
        let addr = canonical(addr);
        check_zone_to_bind(addr)?;
        let (port, reservation) = match addr.port() {
            0 => first_free(addr, 1, 1, SERVER_PORT_MAX)?,
            port @ 1..=SERVER_PORT_MAX => (port, reserve(addr, port)?),
            _ => return Err(BindError::ServerPort { addr }),
        };
        let mut local = addr;
        local.set_port(port);
        Self::open_group(local, addr, members, reservation)
    }

    /// Opens a client's sockets, IPv4 and IPv6 where the machine has both, on a free port of the upper
    /// half.
    ///
    /// # Errors
    /// As [`RawLink::bind`].
    ///
    /// # Panics
    /// As [`RawLink::bind`].
    pub fn client() -> Result<Self, BindError> {
        check_module()?;
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let io_error = |source| BindError::Io { addr: any, source };
        // Not the port that the last process had: what is still on its way to that is not for us.
        let random = getrandom::u32().map_err(|error| io_error(error.into()))?;
        let [low, high, ..] = random.to_ne_bytes();
        let start = u16::from_ne_bytes([low, high]) | (SERVER_PORT_MAX + 1);
        let (port, reservation) = first_free(any, start, SERVER_PORT_MAX + 1, u16::MAX)?;
        let addr = SocketAddr::new(any.ip(), port);
        Self::open_group(addr, addr, 1, reservation).map(|(link, _)| link)
    }

    fn open_group(
        local: SocketAddr,
        asked: SocketAddr,
        members: u32,
        reservation: PortReservation,
    ) -> Result<(Self, Vec<Self>), BindError> {
        let runtime = Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let bind_error = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => BindError::RawNotPermitted { source },
            _ => BindError::Io {
                addr: asked,
                source,
            },
        };
        let reservation = Arc::new(reservation);
        let responder = Arc::new(Responder::start(&runtime));
        let open = |number| {
            let part = ShardSlot {
                number,
                of: members.max(1),
            };
            let shared = (Arc::clone(&responder), Arc::clone(&reservation));
            Self::open(local, part, &runtime, shared).map_err(bind_error)
        };
        let others = (1..members).map(open).collect::<Result<_, _>>()?;
        Ok((open(0)?, others))
    }

    fn open(
        mut local: SocketAddr,
        part: ShardSlot,
        runtime: &Handle,
        (responder, reservation): (Arc<Responder>, Arc<PortReservation>),
    ) -> io::Result<Self> {
        let (sockets, families): (Vec<_>, Vec<_>) =
            open_sockets(local, part, runtime)?.into_iter().unzip();
        let mut receive_buffer_bytes = usize::MAX;
        for socket in &sockets {
            let bytes = socket.socket().recv_buffer_size()? / 2;
            receive_buffer_bytes = receive_buffer_bytes.min(bytes);
        }
        if families == [Family::V4] && local.is_ipv6() {
            local.set_ip(Ipv4Addr::UNSPECIFIED.into());
        }
        warn_of_small_buffer(receive_buffer_bytes, RECEIVE_BUFFER_BYTES);
        Ok(Self {
            common: Common::new(local),
            sockets,
            families,
            slot: part,
            receive_buffer_bytes,
            routes: RouteMtu::new(local)?,
            _responder: responder,
            _reservation: reservation,
        })
    }

    /// Bytes of packets that the system holds until they are received: what was asked for, or less
    /// if its limit is lower. What it needs beside the packets is not part of it.
    #[must_use]
    pub const fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    fn has_part_of(&self, peer: SocketAddr) -> bool {
        shard_of_host(peer.ip(), self.slot.of) == self.slot.number
    }

    fn sockets_by_family(&self) -> impl Iterator<Item = (&DatagramSocket, Family)> {
        self.sockets.iter().zip(self.families.iter().copied())
    }
}

impl DatagramLink for RawLink {
    const BACKEND: Backend = Backend::Raw;

    fn common(&self) -> &Common {
        &self.common
    }

    fn sockets(&self) -> &[DatagramSocket] {
        &self.sockets
    }

    fn socket_to(&self, to: SocketAddr) -> Option<&DatagramSocket> {
        let family = Family::of(to.ip());
        let mut sockets = self.sockets_by_family();
        sockets.find_map(|(socket, of)| (of == family).then_some(socket))
    }

    fn name(&self, to: SocketAddr) -> SockAddr {
        name(to)
    }

    fn path_bytes_max(&self, peer: SocketAddr) -> usize {
        self.routes.packet_bytes_max(canonical(peer))
    }

    /// There is no segmentation offload for raw sockets.
    fn segments(&self, batch: &[Transmit]) -> Segments {
        Segments::single(batch)
    }

    fn on_segments_refused(&self, _: &io::Error) {}

    /// Whether the packet was cut before its way became narrower.
    fn is_too_long(&self, to: SocketAddr, packet: &Transmit) -> bool {
        let narrowed = self.routes.narrowed(to);
        narrowed.is_some_and(|max| packet.len() > max)
    }

    fn on_too_long(&self, to: SocketAddr) {
        self.routes.on_too_long(to);
    }

    fn send_too_long(
        &self,
        socket: &DatagramSocket,
        to: SocketAddr,
        packet: &Transmit,
    ) -> io::Result<Sent> {
        self.send_in_parts(socket, to, packet)
    }

    fn receive_once(&self, socket: &DatagramSocket, batch: &mut RecvBatch) -> io::Result<Received> {
        let mut sockets = self.sockets_by_family();
        match sockets.find(|(other, _)| ptr::eq(*other, socket)) {
            Some((_, family)) => self.receive(socket, family, batch),
            None => Ok(Received::NoRoom),
        }
    }

    fn on_error(&self, error: &PacketError<'_>) {
        let (source, destination) = (homa_port(error.quoted, 0), homa_port(error.quoted, 2));
        // Every raw socket hears of the errors of all. Those of the system's own making quote nothing, and
        // are ours alone.
        if error.from_network && source.is_some_and(|source| source != self.common.local.port()) {
            return;
        }
        let mut peer = canonical(error.address);
        peer.set_port(destination.unwrap_or(0));
        match error.error {
            // One of the sockets has to do with that peer.
            NetworkError::Unreachable(reason) if peer.port() != 0 && self.has_part_of(peer) => {
                self.common.reports.push(Report {
                    peer,
                    reason,
                    about: wire::quoted_id(error.quoted),
                });
            }
            NetworkError::Unreachable(_) => {}
            NetworkError::PacketTooBig { .. } => self.routes.on_too_long(peer),
        }
    }
}

/// First of all: beside the module nothing here is of use.
fn check_module() -> Result<(), BindError> {
    match kernel_module::is_loaded() {
        Ok(false) => {}
        Ok(true) => return Err(BindError::ModuleLoaded),
        Err(error) => tracing::debug!(%error, "cannot see whether the Homa module is loaded"),
    }
    Ok(())
}

/// One socket for an address, two for "any" of IPv6, of which one may be missing.
fn open_sockets(
    local: SocketAddr,
    part: ShardSlot,
    runtime: &Handle,
) -> io::Result<Vec<(DatagramSocket, Family)>> {
    let open = |ip: IpAddr, scope_id| -> io::Result<_> {
        let buffers = (RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES);
        let socket = socket::open(ip, scope_id, (local.port(), part), buffers, runtime)?;
        Ok((socket, Family::of(ip)))
    };
    let scope_id = match local {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    let first = open(local.ip(), scope_id);
    if !(local.is_ipv6() && local.ip().is_unspecified()) {
        return Ok(vec![first?]);
    }
    let second = open(Ipv4Addr::UNSPECIFIED.into(), 0);
    match (first, second) {
        (Ok(first), Ok(second)) => Ok(vec![first, second]),
        (Ok(one), Err(error)) | (Err(error), Ok(one))
            if error.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
        {
            Ok(vec![one])
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn reserve(addr: SocketAddr, port: u16) -> Result<PortReservation, BindError> {
    PortReservation::acquire_native(port).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse { addr },
        _ => BindError::Io { addr, source },
    })
}

/// The first port from `start` on that nobody has, coming round to `first` after `last`.
fn first_free(
    addr: SocketAddr,
    start: u16,
    first: u16,
    last: u16,
) -> Result<(u16, PortReservation), BindError> {
    for port in (start..=last).chain(first..start) {
        match reserve(addr, port) {
            Ok(reservation) => return Ok((port, reservation)),
            Err(BindError::AddressInUse { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(BindError::NoFreePort { first, last })
}

#[cfg(test)]
mod tests;
