//! Packets of IP protocol 146, as the Homa kernel module sends them: the Homa header comes right behind
//! that of IP.
//!
//! Every raw socket of a network namespace gets a copy of every such packet. A filter in the kernel
//! (`raw/port_filter.rs`) leaves each socket those to its own port, and a name reserved for the port keeps
//! two sockets from having the same one.

mod port_filter;
mod port_unreachable;
mod receive;
mod route_mtu;
mod send;
mod socket;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;

use self::port_unreachable::Responder;
use self::receive::Filled;
use self::route_mtu::RouteMtu;
use self::send::Sent;
use self::socket::{Family, RawSocket};
use super::address::{canonical, check_zone_to_bind};
use super::datagram::warn_of_small_buffer;
use super::icmp::NetworkError;
use super::reports::Reports;
use super::reservation::PortReservation;
use super::steering::{ShardSlot, shard_of_host};
use super::{Link, RecvBatch, SystemCalls, kernel_module, sys};
use crate::endpoint::Transmit;
use crate::error::{BindError, Report};
use crate::stats::Backend;

/// Highest port of servers; clients have those above. Source: homa.h, `HOMA_MIN_DEFAULT_PORT`.
const SERVER_PORT_MAX: u16 = 32_767;
/// Receive buffer to ask the system for, in bytes of packets (`net.core.rmem_max` limits it).
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Send buffer to ask the system for. What is in there is beyond the control of the protocol, which would
/// send the shortest message first.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// Raw sockets of one port as a [`Link`].
#[derive(Debug)]
pub struct RawLink {
    /// One per address family.
    sockets: Vec<RawSocket>,
    local: SocketAddr,
    /// Whose packets these are.
    part: ShardSlot,
    receive_buffer_bytes: usize,
    reports: Reports,
    routes: RouteMtu,
    send_calls: AtomicU64,
    receive_calls: AtomicU64,
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
    /// from the addresses that [`Steering::ByAddress`] gives to it.
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
        let sockets = open_sockets(local, part, runtime)?;
        let mut receive_buffer_bytes = usize::MAX;
        for socket in &sockets {
            let bytes = socket.socket().recv_buffer_size()? / 2;
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
            part,
            receive_buffer_bytes,
            reports: Reports::default(),
            routes: RouteMtu::new(local)?,
            send_calls: AtomicU64::new(0),
            receive_calls: AtomicU64::new(0),
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

    /// The socket by which `to` is reached.
    fn socket_to(&self, to: SocketAddr) -> Option<&RawSocket> {
        let family = Family::of(to.ip());
        self.sockets.iter().find(|socket| socket.family == family)
    }

    fn has_part_of(&self, peer: SocketAddr) -> bool {
        shard_of_host(peer.ip(), self.part.of) == self.part.number
    }

    fn collect_errors(&self, socket: &RawSocket) -> bool {
        socket.collect_errors(self.local.port(), |peer, error, about| match error {
            // Every socket hears it, and one of them has to do with that peer.
            NetworkError::Unreachable(reason) if peer.port() != 0 && self.has_part_of(peer) => {
                self.reports.push(Report {
                    peer,
                    reason,
                    about,
                });
            }
            NetworkError::Unreachable(_) => {}
            NetworkError::PacketTooBig { .. } => self.routes.on_too_long(peer),
        })
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
            ready!(socket.writable.poll(cx, socket.socket(), device_full))?;
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

    fn can_busy_poll(&self) -> bool {
        true
    }

    fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        for socket in &self.sockets {
            batch.full |= self.receive_into(socket, batch)? == Filled::Full;
        }
        self.reports.take(&mut batch.unreachable);
        Ok(())
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
        self.sockets.iter().map(drops).sum()
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
) -> io::Result<Vec<RawSocket>> {
    let open = |ip: IpAddr, scope_id| {
        let buffers = (RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES);
        RawSocket::open(ip, scope_id, (local.port(), part), buffers, runtime.clone())
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
