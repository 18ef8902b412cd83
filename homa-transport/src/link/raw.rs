//! Packets of IP protocol 146, as the Homa kernel module sends them: the Homa header comes right behind
//! that of IP.
//!
//! Every raw socket of a network namespace gets a copy of every such packet. A filter in the kernel
//! (`port_filter.rs`) leaves each socket those to its own port, and a name reserved for the port keeps
//! two sockets from having the same one.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;

use super::control::{self, SendControl, array};
use super::icmp::NetworkError;
use super::raw_socket::{Family, RawSocket, homa_port, name};
use super::refusal::Refusals;
use super::reports::Reports;
use super::reservation::PortReservation;
use super::route_mtu::RouteMtu;
use super::send_failure::SendFailure;
use super::sys::batch::{self, Outgoing, RECEIVE_MAX, SEND_MAX};
use super::sys::{self, Received};
use super::udp_socket::{canonical, warn_of_small_buffer};
use super::{Link, PacketMeta, RecvBatch, SystemCalls, kernel_module};
use crate::endpoint::Transmit;
use crate::error::{BindError, Unreachable};
use crate::stats::Backend;

/// Highest port of servers; clients have those above. Source: homa.h, `HOMA_MIN_DEFAULT_PORT`.
const SERVER_PORT_MAX: u16 = 32_767;
/// Receive buffer to ask the system for, in bytes of packets (`net.core.rmem_max` limits it).
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Send buffer to ask the system for. What is in there is beyond the control of the protocol, which would
/// send the shortest message first.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// Room a packet may need, in bytes, IP header included: its length field has 16 bits.
const SLOT_BYTES: usize = 1 << 16;
/// Slices of the packets of one system call at most.
const SLICES_MAX: usize = 160;
/// Times that a packet is tried when errors of other peers keep getting in its way.
const SEND_ATTEMPTS: usize = 4;
/// Errors in a row after which receiving makes a pause for other tasks.
const RECEIVE_ERRORS_MAX: usize = 64;
/// Parts into which a packet is cut at most when its way has become narrow: 64 kB in 256.
const CUTS_MAX: usize = 8;

/// Raw sockets of one port as a [`Link`].
#[derive(Debug)]
pub struct RawLink {
    /// One per address family.
    sockets: Vec<RawSocket>,
    local: SocketAddr,
    receive_buffer_bytes: usize,
    reports: Reports,
    routes: RouteMtu,
    malformed: AtomicU64,
    send_calls: AtomicU64,
    receive_calls: AtomicU64,
    _refusals: Refusals,
    /// Behind the sockets: the port is free when they are closed.
    _reservation: PortReservation,
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
        let addr = canonical(addr);
        let (port, reservation) = match addr.port() {
            0 => first_free(addr, 1, 1, SERVER_PORT_MAX)?,
            port @ 1..=SERVER_PORT_MAX => (port, reserve(addr, port)?),
            _ => return Err(BindError::ServerPort { addr }),
        };
        Self::open(SocketAddr::new(addr.ip(), port), addr, reservation)
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
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let io_error = |source| BindError::Io { addr: any, source };
        // Not the port that the last process had: what is still on its way to that is not for us.
        let random = getrandom::u32().map_err(|error| io_error(error.into()))?;
        let [low, high, ..] = random.to_ne_bytes();
        let start = u16::from_ne_bytes([low, high]) | (SERVER_PORT_MAX + 1);
        let (port, reservation) = first_free(any, start, SERVER_PORT_MAX + 1, u16::MAX)?;
        let addr = SocketAddr::new(any.ip(), port);
        Self::open(addr, addr, reservation)
    }

    fn open(
        local: SocketAddr,
        asked: SocketAddr,
        reservation: PortReservation,
    ) -> Result<Self, BindError> {
        let runtime = Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        match kernel_module::is_loaded() {
            Ok(false) => {}
            Ok(true) => return Err(BindError::ModuleLoaded),
            Err(error) => tracing::debug!(%error, "cannot see whether the Homa module is loaded"),
        }
        let bind_error = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => BindError::RawNotPermitted { source },
            _ => BindError::Io {
                addr: asked,
                source,
            },
        };
        let sockets = open_sockets(local, &runtime).map_err(bind_error)?;
        let mut local = local;
        let mut receive_buffer_bytes = usize::MAX;
        for socket in &sockets {
            let bytes = socket.socket().recv_buffer_size().map_err(bind_error)? / 2;
            receive_buffer_bytes = receive_buffer_bytes.min(bytes);
        }
        if let [
            RawSocket {
                family: Family::V4, ..
            },
        ] = sockets.as_slice()
            && local.is_ipv6()
        {
            local.set_ip(Ipv4Addr::UNSPECIFIED.into());
        }
        warn_of_small_buffer(receive_buffer_bytes, RECEIVE_BUFFER_BYTES);
        Ok(Self {
            sockets,
            local,
            receive_buffer_bytes,
            reports: Reports::default(),
            routes: RouteMtu::new(local.ip()).map_err(bind_error)?,
            malformed: AtomicU64::new(0),
            send_calls: AtomicU64::new(0),
            receive_calls: AtomicU64::new(0),
            _refusals: Refusals::start(&runtime),
            _reservation: reservation,
        })
    }

    /// Bytes of packets that the system holds until they are received: what was asked for, or less
    /// if its limit is lower. What it needs beside the packets is not part of it.
    #[must_use]
    pub const fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// The socket by which `to` is reached.
    fn socket_to(&self, to: SocketAddr) -> Option<&RawSocket> {
        let family = Family::of(to.ip());
        self.sockets.iter().find(|socket| socket.family == family)
    }

    // ---- sending ----

    /// Sends the leading packets that can go together.
    fn send_leading(&self, batch: &[Transmit]) -> io::Result<Sent> {
        let Some(first) = batch.first() else {
            return Ok(Sent::Done(0));
        };
        let Some(socket) = self.socket_to(canonical(first.to)) else {
            self.reports.push(first.to, Unreachable::Network);
            return Ok(Sent::Done(1));
        };
        let together = batch.iter().take(SEND_MAX).take_while(|packet| {
            let to = canonical(packet.to);
            Family::of(to.ip()) == socket.family && !self.is_too_long(to, packet)
        });
        match self.transmit(socket, together) {
            Ok(0) => self.send_alone(socket, first),
            Ok(sent) => Ok(Sent::Done(sent)),
            Err(error) => match SendFailure::of(&error) {
                SendFailure::Blocked => Ok(Sent::Blocked),
                SendFailure::DeviceFull => Ok(Sent::DeviceFull),
                SendFailure::Fatal => Err(error),
                _ => self.send_alone(socket, first),
            },
        }
    }

    /// Sends one packet, in parts if its way has become narrower since it was cut.
    fn send_alone(&self, socket: &RawSocket, packet: &Transmit) -> io::Result<Sent> {
        let to = canonical(packet.to);
        for attempt in 0..SEND_ATTEMPTS {
            if self.is_too_long(to, packet) {
                return self.send_in_parts(socket, to, packet);
            }
            let error = match self.transmit(socket, std::iter::once(packet)) {
                Ok(0) => break,
                Ok(_) => return Ok(Sent::Done(1)),
                Err(error) => error,
            };
            // The failure may be that of an earlier packet to another peer, which the system tells
            // whoever comes next. So try again, until no such error was in the way.
            let in_the_way = self.collect_errors(socket);
            match SendFailure::of(&error) {
                SendFailure::Blocked => return Ok(Sent::Blocked),
                SendFailure::DeviceFull => return Ok(Sent::DeviceFull),
                SendFailure::Fatal => return Err(error),
                SendFailure::TooLong if !self.is_too_long(to, packet) => {
                    self.routes.on_too_long(to);
                }
                SendFailure::Refused(reason) if attempt > 0 && !in_the_way => {
                    self.reports.push(packet.to, reason);
                    return Ok(Sent::Done(1));
                }
                _ => {}
            }
        }
        tracing::debug!(peer = %packet.to, "packet lost among errors");
        Ok(Sent::Done(1))
    }

    /// Whether the packet was cut before its way became narrower.
    fn is_too_long(&self, to: SocketAddr, packet: &Transmit) -> bool {
        self.routes
            .narrowed(to)
            .is_some_and(|max| packet.len() > max)
    }

    /// Sends a packet that is too long for its way as several, each a half of what was one before: a
    /// module drops packets of which it has a part, but such halves it has or lacks as a whole.
    /// Source: homa_incoming.c, `homa_add_packet`.
    fn send_in_parts(
        &self,
        socket: &RawSocket,
        to: SocketAddr,
        packet: &Transmit,
    ) -> io::Result<Sent> {
        let mut parts = vec![packet.clone()];
        for _ in 0..CUTS_MAX {
            if !parts.iter().any(|part| self.is_too_long(to, part)) {
                break;
            }
            parts = parts
                .into_iter()
                .flat_map(|part| match part.halves() {
                    Some(halves) => halves.to_vec(),
                    None => vec![part],
                })
                .collect();
        }
        if parts.iter().any(|part| self.is_too_long(to, part)) {
            self.reports.push(packet.to, Unreachable::PathTooNarrow);
            return Ok(Sent::Done(1));
        }
        let mut sent = 0;
        while let Some(rest) = parts.get(sent..).filter(|rest| !rest.is_empty()) {
            // Blocked halfway, the whole packet is sent again: the receiver drops what it has.
            match self.transmit(socket, rest.iter().take(SEND_MAX)) {
                Ok(0) => break,
                Ok(count) => sent += count,
                Err(error) => match SendFailure::of(&error) {
                    SendFailure::Blocked => return Ok(Sent::Blocked),
                    SendFailure::DeviceFull => return Ok(Sent::DeviceFull),
                    SendFailure::Fatal => return Err(error),
                    failure => {
                        // The protocol asks again for what is lost here.
                        tracing::debug!(peer = %packet.to, ?failure, "packet lost");
                        self.collect_errors(socket);
                        sent += 1;
                    }
                },
            }
        }
        Ok(Sent::Done(1))
    }

    /// Hands packets to the system, as many as fit into one call, and returns how many it took.
    fn transmit<'p>(
        &self,
        socket: &RawSocket,
        packets: impl Iterator<Item = &'p Transmit>,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        let mut datagrams: Vec<Outgoing> = Vec::new();
        for packet in packets {
            let header = std::iter::once(packet.header.as_slice());
            let mut parts = header.chain(packet.payload.parts().map(|part| &part[..]));
            let start = used;
            for (slot, part) in slices.iter_mut().skip(start).zip(parts.by_ref()) {
                *slot = IoSlice::new(part);
                used += 1;
            }
            if used == SLICES_MAX && parts.next().is_some() {
                if datagrams.is_empty() {
                    return self.transmit_joined(socket, packet);
                }
                break;
            }
            datagrams.push(outgoing(packet, start..used));
        }
        self.send_calls.fetch_add(1, Ordering::Relaxed);
        batch::send_many(socket.socket(), &datagrams, &slices)
    }

    /// A packet of too many slices is joined.
    fn transmit_joined(&self, socket: &RawSocket, packet: &Transmit) -> io::Result<usize> {
        let joined = packet.to_vec();
        self.send_calls.fetch_add(1, Ordering::Relaxed);
        batch::send_many(
            socket.socket(),
            &[outgoing(packet, 0..1)],
            &[IoSlice::new(&joined)],
        )
    }

    // ---- receiving ----

    fn collect_errors(&self, socket: &RawSocket) -> bool {
        socket.collect_errors(self.local.port(), |peer, error| match error {
            NetworkError::Unreachable(reason) if peer.port() != 0 => {
                self.reports.push(peer, reason);
            }
            NetworkError::Unreachable(_) => {}
            NetworkError::PacketTooBig { .. } => self.routes.on_too_long(peer),
        })
    }

    fn receive_into(&self, socket: &RawSocket, batch: &mut RecvBatch) -> io::Result<Filled> {
        let mut controls = [[0; control::RECEIVE_BYTES]; RECEIVE_MAX];
        let mut received = [Received::default(); RECEIVE_MAX];
        let mut errors = 0;
        while batch.packets.len() + RECEIVE_MAX <= RecvBatch::PACKETS_MAX {
            let start = batch.packets.last().map_or(0, |last| last.range.end);
            let room = batch.buffer.get_mut(start..).unwrap_or_default();
            if room.len() < SLOT_BYTES {
                break;
            }
            self.receive_calls.fetch_add(1, Ordering::Relaxed);
            let came = batch::receive_many(
                socket.socket(),
                room,
                SLOT_BYTES,
                &mut controls,
                &mut received,
            );
            let came = match came {
                Ok(came) => came,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Filled::Drained);
                }
                Err(error) if is_fatal_to_receiving(&error) => return Err(error),
                Err(_) if errors < RECEIVE_ERRORS_MAX => {
                    errors += 1;
                    self.collect_errors(socket);
                    continue;
                }
                Err(_) => break,
            };
            let mut slot = start;
            for (received, control) in received.iter().zip(&controls).take(came) {
                if !self.take_packet(socket.family, batch, slot, received, control) {
                    self.malformed.fetch_add(1, Ordering::Relaxed);
                }
                slot += SLOT_BYTES;
            }
        }
        Ok(Filled::Full)
    }

    /// Moves the packet at `slot` behind the last one in the batch. False: it is no packet.
    fn take_packet(
        &self,
        family: Family,
        batch: &mut RecvBatch,
        slot: usize,
        received: &Received,
        control: &[u8],
    ) -> bool {
        let Some(packet) = batch.buffer.get(slot..slot + received.len) else {
            return false;
        };
        let control = control.get(..received.control_len).unwrap_or_default();
        let (skip, from, local) = match family {
            Family::V4 => match ipv4_header(packet) {
                Some((len, from, to)) => (len, SocketAddr::from((from, 0)), IpAddr::V4(to)),
                None => return false,
            },
            Family::V6 => match (received.address, control::local_address(control)) {
                (Some(from), Some(local)) => (0, canonical(from), local),
                _ => return false,
            },
        };
        let homa = packet.get(skip..).unwrap_or_default();
        let Some(port) = homa_port(homa, 0).filter(|_| !received.truncated) else {
            return false;
        };
        let mut peer = from;
        peer.set_port(port);
        let (source, end) = (slot + skip..slot + received.len, homa.len());
        let start = batch.packets.last().map_or(0, |last| last.range.end);
        batch.buffer.copy_within(source, start);
        let range = start..start + end;
        batch.packets.push(PacketMeta { peer, local, range });
        true
    }
}

impl Link for RawLink {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn backend(&self) -> Option<Backend> {
        Some(Backend::Raw)
    }

    fn packet_bytes_max(&self, peer: SocketAddr) -> usize {
        self.routes.packet_bytes_max(canonical(peer))
    }

    fn send(&self, batch: &[Transmit]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = batch.get(done..).filter(|rest| !rest.is_empty()) {
            let socket = rest
                .first()
                .and_then(|first| self.socket_to(canonical(first.to)));
            let device_full = socket.map(|socket| &socket.device_full);
            let was_full = device_full.is_some_and(|full| full.load(Ordering::Relaxed));
            let is_full = match self.send_leading(rest)? {
                Sent::Done(count) => {
                    done += count;
                    false
                }
                Sent::Blocked => return Ok(done),
                Sent::DeviceFull if done == 0 && was_full => {
                    // Not only a full queue looks like this, a filter's rule does too: it must
                    // not hold up the other packets for ever.
                    tracing::debug!("packet lost at the network device");
                    done += 1;
                    false
                }
                Sent::DeviceFull => true,
            };
            if let Some(device_full) = device_full.filter(|_| is_full != was_full) {
                device_full.store(is_full, Ordering::Relaxed);
            }
            if is_full {
                return Ok(done);
            }
        }
        Ok(batch.len())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for socket in &self.sockets {
            let device_full = socket.device_full.load(Ordering::Relaxed);
            ready!(socket.write_waiter.poll(cx, socket.socket(), device_full))?;
            // Errors still in the queue would make the socket look writable again and again.
            self.collect_errors(socket);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        loop {
            self.reports.take(&mut batch.unreachable);
            let (mut all_pending, mut full) = (true, false);
            for socket in &self.sockets {
                let Poll::Ready(mut readable) = socket.fd.poll_read_ready(cx)? else {
                    continue;
                };
                all_pending = false;
                let before = batch.packets.len();
                let filled = self.receive_into(socket, batch)?;
                if batch.packets.len() == before {
                    // Nothing to read: so it was an error, whether or not a system call has failed.
                    self.collect_errors(socket);
                }
                match filled {
                    Filled::Full => full = true,
                    Filled::Drained => readable.clear_ready(),
                }
            }
            self.reports.take(&mut batch.unreachable);
            batch.full = full;
            if !batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if full {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if all_pending && self.reports.wait(cx.waker()) {
                return Poll::Pending;
            }
        }
    }

    fn system_calls(&self) -> SystemCalls {
        SystemCalls {
            send: self.send_calls.load(Ordering::Relaxed),
            receive: self.receive_calls.load(Ordering::Relaxed),
        }
    }

    fn receive_drops(&self) -> u64 {
        let drops =
            |socket: &RawSocket| u64::from(sys::receive_drops(socket.socket()).unwrap_or(0));
        self.sockets.iter().map(drops).sum::<u64>() + self.malformed.load(Ordering::Relaxed)
    }
}

/// What became of the leading packets.
enum Sent {
    /// So many are sent, or lost: either way they need not be sent again.
    Done(usize),
    /// The send buffer is full.
    Blocked,
    /// The queue of the network device is full.
    DeviceFull,
}

/// Why receiving ended.
#[derive(PartialEq, Eq)]
enum Filled {
    /// There may be more.
    Full,
    /// There was nothing more.
    Drained,
}

fn outgoing(packet: &Transmit, slices: std::ops::Range<usize>) -> Outgoing {
    let to = canonical(packet.to);
    Outgoing {
        name: name(to),
        slices,
        control: SendControl::new(to, packet.from, packet.priority),
    }
}

/// Length, source and destination of an IPv4 header.
fn ipv4_header(packet: &[u8]) -> Option<(usize, Ipv4Addr, Ipv4Addr)> {
    let len = usize::from(packet.first()? & 0xf) * 4;
    let source: [u8; 4] = array(packet, 12)?;
    let destination: [u8; 4] = array(packet, 16)?;
    (len >= 20 && len <= packet.len()).then(|| (len, source.into(), destination.into()))
}

fn is_fatal_to_receiving(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL | libc::ENOTCONN)
    )
}

/// One socket for an address, two for "any" of IPv6, of which one may be missing.
fn open_sockets(local: SocketAddr, runtime: &Handle) -> io::Result<Vec<RawSocket>> {
    let open = |ip: IpAddr, scope_id| {
        let buffers = (RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES);
        RawSocket::open(ip, scope_id, local.port(), buffers, runtime.clone())
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
