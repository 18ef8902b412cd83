//! One Homa packet per UDP datagram. `WIRE-UDP.md` describes what goes over the network.

mod gso;
mod path_mtu;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{SockAddr, Socket};
use tokio::runtime::Handle;

use self::path_mtu::PathMtu;
pub use self::socket::UdpOptions;
use self::socket::{Destinations, Opened, open_reserved};
use super::address::{canonical, check_zone_to_bind, local_address};
use super::cmsg;
use super::datagram::{
    Common, DatagramLink, DatagramSocket, PacketError, Received, Segments, Sent, transmit,
    warn_of_small_buffer,
};
use super::errno::SendError;
use super::icmp::NetworkError;
use super::reservation::PortReservation;
use super::{PacketMeta, RecvBatch, sys};
use crate::endpoint::Transmit;
use crate::error::{BindError, Report, Unreachable};
use crate::stats::Backend;
use crate::wire;

/// Room a datagram may need, in bytes: its length field has 16 bits.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A UDP socket as a [`Link`](super::Link).
#[derive(Debug)]
pub struct UdpLink {
    common: Common,
    socket: DatagramSocket,
    destinations: Destinations,
    receive_buffer_bytes: usize,
    paths: PathMtu,
    /// Held while the socket lets packets be sent in fragments.
    fragmenting: Mutex<()>,
    /// The system cuts datagrams into packets.
    gso: AtomicBool,
    _reservation: Arc<PortReservation>,
}

impl UdpLink {
    /// Opens a socket on `addr`; port 0 lets the system choose one ([`Link::local_addr`](super::Link::local_addr) tells).
    /// `[::]` takes IPv4 as well. No other socket of this network namespace can share the port.
    ///
    /// # Errors
    /// [`BindError::AddressInUse`], [`BindError::NoRuntime`] outside a tokio runtime,
    /// [`BindError::Io`] for what else the system may say.
    ///
    /// # Panics
    /// If the tokio runtime was built without I/O.
    pub fn bind(addr: SocketAddr, options: &UdpOptions) -> Result<Self, BindError> {
        Self::bind_group(addr, options, 1).map(|(link, _)| link)
    }

    /// Opens `members` (at least one) sockets on one port: the first, and the others. Each gets the
    /// packets about the RPCs that [`Steering::ById`](super::steering::Steering) gives to it. The group is for
    /// good: the system would number its members anew if one were closed, so all must be kept while
    /// one receives.
    ///
    /// # Errors
    /// As [`UdpLink::bind`].
    ///
    /// # Panics
    /// As [`UdpLink::bind`].
    pub(crate) fn bind_group(
        addr: SocketAddr,
        options: &UdpOptions,
        members: u32,
    ) -> Result<(Self, Vec<Self>), BindError> {
        let runtime = Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        check_zone_to_bind(addr)?;
        let bind_error = |source| BindError::of_system(addr, source);
        let addr = match addr {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => addr,
            _ => SocketAddr::new(addr.ip().to_canonical(), addr.port()),
        };
        let Opened {
            first,
            others,
            reservation,
        } = open_reserved(addr, options, members).map_err(bind_error)?;
        let reservation = Arc::new(reservation);
        let link = |socket| {
            let reservation = Arc::clone(&reservation);
            Self::over(
                socket,
                Destinations::of(addr),
                &runtime,
                options,
                reservation,
            )
        };
        let first = link(first).map_err(bind_error)?;
        let others: io::Result<_> = others.into_iter().map(link).collect();
        Ok((first, others.map_err(bind_error)?))
    }

    fn over(
        socket: Socket,
        destinations: Destinations,
        runtime: &Handle,
        options: &UdpOptions,
        reservation: Arc<PortReservation>,
    ) -> io::Result<Self> {
        let receive_buffer_bytes = socket.recv_buffer_size()? / 2;
        warn_of_small_buffer(receive_buffer_bytes, options.receive_buffer_bytes);
        Ok(Self {
            common: Common::new(local_address(&socket)?),
            socket: DatagramSocket::new(socket, runtime)?,
            destinations,
            receive_buffer_bytes,
            paths: PathMtu::default(),
            fragmenting: Mutex::new(()),
            gso: AtomicBool::new(true),
            _reservation: reservation,
        })
    }

    /// Bytes of packets that the system holds until they are received: what was asked for, or less
    /// if its limit is lower. What it needs beside the packets is not part of it.
    #[must_use]
    pub const fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// Hands one datagram to the system, which may send it as several IP fragments.
    fn transmit_in_fragments(&self, packet: &Transmit) -> io::Result<()> {
        let (destinations, socket) = (self.destinations, self.socket.socket());
        let _only_one = self
            .fragmenting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A packet that another thread sends meanwhile may be fragmented too, which does no harm.
        destinations.set_path_mtu_discovery(socket, libc::IP_PMTUDISC_WANT)?;
        let result = transmit(self, &self.socket, slice::from_ref(packet));
        destinations.set_path_mtu_discovery(socket, libc::IP_PMTUDISC_DO)?;
        result.map(drop)
    }
}

impl DatagramLink for UdpLink {
    const BACKEND: Backend = Backend::Udp;

    fn common(&self) -> &Common {
        &self.common
    }

    fn sockets(&self) -> &[DatagramSocket] {
        slice::from_ref(&self.socket)
    }

    fn socket_to(&self, to: SocketAddr) -> Option<&DatagramSocket> {
        self.destinations.reach(to).then_some(&self.socket)
    }

    fn name(&self, to: SocketAddr) -> SockAddr {
        self.destinations.name(to)
    }

    fn path_bytes_max(&self, peer: SocketAddr) -> usize {
        self.paths.packet_bytes_max(peer)
    }

    fn segments(&self, batch: &[Transmit]) -> Segments {
        if self.gso.load(Ordering::Relaxed) {
            Segments::of(batch)
        } else {
            Segments::single(batch)
        }
    }

    /// A network card without checksums (EIO), or a kernel without GSO. Whatever else it is, the packets find
    /// out one by one.
    fn on_segments_refused(&self, error: &io::Error) {
        if matches!(
            error.raw_os_error(),
            Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
        ) {
            tracing::debug!(%error, "packets go one by one: the system does not cut datagrams");
            self.gso.store(false, Ordering::Relaxed);
        }
    }

    /// The system says so.
    fn is_too_long(&self, _: SocketAddr, _: &Transmit) -> bool {
        false
    }

    /// The error queue says how long it may be.
    fn on_too_long(&self, _: SocketAddr) {}

    /// Later messages are cut into shorter packets, but this one keeps its boundaries: whole it would never
    /// arrive, and its RPC would hang. So it goes in fragments.
    fn send_too_long(
        &self,
        _: &DatagramSocket,
        _: SocketAddr,
        packet: &Transmit,
    ) -> io::Result<Sent> {
        if let Err(error) = self.transmit_in_fragments(packet) {
            match SendError::of(&error) {
                SendError::Blocked => return Ok(Sent::Blocked),
                SendError::DeviceFull => return Ok(Sent::DeviceFull),
                SendError::TooLong => {
                    let report = packet.report(Unreachable::Denied);
                    self.common.reports.push(report);
                }
                _ => {}
            }
            tracing::debug!(peer = %packet.to, bytes = packet.len(), %error, "packet lost");
        }
        Ok(Sent::Done(1))
    }

    fn receive_once(&self, socket: &DatagramSocket, batch: &mut RecvBatch) -> io::Result<Received> {
        if batch.packets.len() + gso::PACKETS_MAX > RecvBatch::PACKETS_MAX {
            return Ok(Received::NoRoom);
        }
        let start = batch.packets.last().map_or(0, |last| last.range.end);
        let room = batch.buffer.get_mut(start..).unwrap_or_default();
        if room.len() < DATAGRAM_BYTES_MAX && !batch.packets.is_empty() {
            return Ok(Received::NoRoom);
        }
        let mut control = [0; cmsg::RECEIVE_BYTES];
        let received = sys::receive(socket.socket(), room, &mut control, 0)?;
        let Some(peer) = received.address.map(canonical) else {
            return Ok(Received::Some);
        };
        if received.truncated {
            self.common.truncated.fetch_add(1, Ordering::Relaxed);
            return Ok(Received::Some);
        }
        let control = control.get(..received.control_len).unwrap_or_default();
        let local = cmsg::local_address(control);
        let local = local.unwrap_or_else(|| self.common.local.ip().to_canonical());
        let end = start + received.len;
        let packet_bytes = cmsg::packet_bytes(control).unwrap_or(received.len).max(1);
        // An empty datagram is a packet too.
        for start in (start..end.max(start + 1)).step_by(packet_bytes) {
            let range = start..end.min(start + packet_bytes);
            batch.packets.push(PacketMeta { peer, local, range });
        }
        Ok(Received::Some)
    }

    fn on_error(&self, error: &PacketError<'_>) {
        let peer = canonical(error.address);
        match error.error {
            NetworkError::Unreachable(reason) => self.common.reports.push(Report {
                peer,
                reason,
                about: wire::quoted_id(error.quoted),
            }),
            NetworkError::PacketTooBig { mtu } => self.paths.learn(peer.ip(), mtu),
        }
    }
}

#[cfg(test)]
mod tests;
