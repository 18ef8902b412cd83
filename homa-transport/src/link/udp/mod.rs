//! One Homa packet per UDP datagram. `WIRE-UDP.md` describes what goes over the network.

mod gso;
mod path_mtu;
mod socket;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use socket2::{MsgHdr, SockAddr, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use self::gso::Segments;
use self::path_mtu::PathMtu;
pub use self::socket::UdpOptions;
use self::socket::{Destinations, Opened, open_reserved};
use super::address::{canonical, check_zone_to_bind, local_address};
use super::cmsg::{self, SendCmsg};
use super::datagram::warn_of_small_buffer;
use super::errno::SendError;
use super::icmp::{ExtendedError, NetworkError};
use super::reports::Reports;
use super::reservation::PortReservation;
use super::writable::WritableWait;
use super::{Link, PacketMeta, RecvBatch, SystemCalls, sys};
use crate::endpoint::Transmit;
use crate::error::{BindError, Report, Unreachable};
use crate::stats::Backend;
use crate::wire::{self, COMMON_HEADER_BYTES};

/// Room a datagram may need, in bytes: its length field has 16 bits.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Times that a packet is tried when errors of other peers keep getting in its way.
const SEND_ATTEMPTS: usize = 4;
/// Errors in a row after which receiving makes a pause for other tasks.
const RECEIVE_ERRORS_MAX: usize = 64;
/// Slices of a packet that are sent without being joined.
const SLICES_MAX: usize = 16;

/// A UDP socket as a [`Link`].
#[derive(Debug)]
pub struct UdpLink {
    socket: AsyncFd<Socket>,
    local: SocketAddr,
    destinations: Destinations,
    receive_buffer_bytes: usize,
    reports: Reports,
    paths: PathMtu,
    writable: WritableWait,
    /// The last packet found the queue of the network device full.
    device_full: AtomicBool,
    /// Held while the socket lets packets be sent in fragments.
    fragmenting: Mutex<()>,
    truncated: AtomicU64,
    /// The system cuts trains into packets.
    trains: AtomicBool,
    send_calls: AtomicU64,
    receive_calls: AtomicU64,
    _reservation: Arc<PortReservation>,
}

impl UdpLink {
    /// Opens a socket on `addr`; port 0 lets the system choose one ([`Link::local_addr`] tells).
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
        let local = local_address(&socket)?;
        // PRIORITY, because an error alone makes no socket readable to tokio.
        let interest = Interest::READABLE | Interest::PRIORITY;
        Ok(Self {
            socket: sys::register(socket, interest)?,
            local,
            destinations,
            receive_buffer_bytes,
            reports: Reports::default(),
            paths: PathMtu::default(),
            writable: WritableWait::new(runtime.clone()),
            device_full: AtomicBool::new(false),
            fragmenting: Mutex::new(()),
            truncated: AtomicU64::new(0),
            trains: AtomicBool::new(true),
            send_calls: AtomicU64::new(0),
            receive_calls: AtomicU64::new(0),
            _reservation: reservation,
        })
    }

    /// Bytes of packets that the system holds until they are received: what was asked for, or less
    /// if its limit is lower. What it needs beside the packets is not part of it.
    #[must_use]
    pub const fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    fn socket(&self) -> &Socket {
        self.socket.get_ref()
    }

    /// Sends several packets with one system call. `None`: they have to go one by one.
    fn send_train(&self, train: &[Transmit], packet_bytes: usize) -> io::Result<Option<Sent>> {
        let Some(first) = train
            .first()
            .filter(|_| self.trains.load(Ordering::Relaxed))
        else {
            return Ok(None);
        };
        let (Some(to), Ok(bytes)) = (
            self.destinations.reach(first.to),
            u16::try_from(packet_bytes),
        ) else {
            return Ok(None);
        };
        let mut control = SendCmsg::new(to, first.from, first.priority);
        control.cut_into(bytes);
        let result = gso::gather(train, packet_bytes, |slices| {
            self.transmit_slices(to, slices, &control)
        });
        let Err(error) = result else {
            return Ok(Some(Sent::Done));
        };
        match SendError::of(&error) {
            SendError::Blocked => return Ok(Some(Sent::Blocked)),
            SendError::DeviceFull => return Ok(Some(Sent::DeviceFull)),
            SendError::Fatal => return Err(error),
            _ => {}
        }
        // A network card without checksums (EIO), or a kernel without trains. Whatever else it is, the
        // packets find out one by one.
        if matches!(
            error.raw_os_error(),
            Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
        ) {
            tracing::debug!(%error, "packets go one by one: the system takes no trains");
            self.trains.store(false, Ordering::Relaxed);
        }
        Ok(None)
    }

    fn send_one(&self, packet: &Transmit) -> io::Result<Sent> {
        let Some(to) = self.destinations.reach(packet.to) else {
            self.reports.push(packet.report(Unreachable::Network));
            return Ok(Sent::Done);
        };
        for attempt in 0..SEND_ATTEMPTS {
            let error = match self.transmit(to, packet) {
                Ok(()) => return Ok(Sent::Done),
                Err(error) => error,
            };
            let failure = SendError::of(&error);
            match failure {
                SendError::Blocked => return Ok(Sent::Blocked),
                SendError::DeviceFull => return Ok(Sent::DeviceFull),
                SendError::Interrupted => continue,
                SendError::Fatal => return Err(error),
                SendError::TooLong | SendError::Refused(_) | SendError::OfOthers => {}
            }
            // The failure may be that of an earlier packet to another peer, which the system tells
            // whoever comes next. So try again, until no such error was in the way.
            let in_the_way = self.collect_errors();
            if attempt > 0 && !in_the_way {
                return Ok(self.give_up(to, packet, failure));
            }
        }
        tracing::debug!(peer = %packet.to, "packet lost among errors of other peers");
        Ok(Sent::Done)
    }

    /// Settles a packet whose `failure` is its own.
    fn give_up(&self, to: SocketAddr, packet: &Transmit, failure: SendError) -> Sent {
        match failure {
            SendError::Refused(reason) => self.reports.refused(packet, reason),
            SendError::TooLong => return self.send_in_fragments(to, packet),
            _ => tracing::debug!(peer = %packet.to, ?failure, "packet lost"),
        }
        Sent::Done
    }

    /// Sends a packet that is too long for its way. Later messages are cut into shorter packets, but
    /// this one keeps its boundaries: whole it would never arrive, and its RPC would hang.
    fn send_in_fragments(&self, to: SocketAddr, packet: &Transmit) -> Sent {
        let Err(error) = self.transmit_in_fragments(to, packet) else {
            return Sent::Done;
        };
        match SendError::of(&error) {
            SendError::Blocked => return Sent::Blocked,
            SendError::DeviceFull => return Sent::DeviceFull,
            SendError::TooLong => self.reports.push(packet.report(Unreachable::Denied)),
            _ => {}
        }
        tracing::debug!(peer = %packet.to, bytes = packet.len(), %error, "packet lost");
        Sent::Done
    }

    /// Hands one datagram to the system. `to` is the receiver with IPv4 addresses unmapped.
    fn transmit(&self, to: SocketAddr, packet: &Transmit) -> io::Result<()> {
        let control = SendCmsg::new(to, packet.from, packet.priority);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let joined;
        let buffers = if let Some(buffers) = gather(packet, &mut slices) {
            buffers
        } else {
            joined = packet.to_vec();
            &[IoSlice::new(&joined)]
        };
        self.transmit_slices(to, buffers, &control)
    }

    fn transmit_slices(
        &self,
        to: SocketAddr,
        slices: &[IoSlice<'_>],
        control: &SendCmsg,
    ) -> io::Result<()> {
        let name = SockAddr::from(match to {
            SocketAddr::V4(v4) if self.destinations == Destinations::Both => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => to,
        });
        let message = MsgHdr::new()
            .with_addr(&name)
            .with_buffers(slices)
            .with_control(control.as_slice());
        self.send_calls.fetch_add(1, Ordering::Relaxed);
        self.socket()
            .sendmsg(&message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .map(drop)
    }

    /// Hands one datagram to the system, which may send it as several IP fragments.
    fn transmit_in_fragments(&self, to: SocketAddr, packet: &Transmit) -> io::Result<()> {
        let _only_one = self
            .fragmenting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A packet that another thread sends meanwhile may be fragmented too, which does no harm.
        self.destinations
            .set_path_mtu_discovery(self.socket(), libc::IP_PMTUDISC_WANT)?;
        let result = self.transmit(to, packet);
        self.destinations
            .set_path_mtu_discovery(self.socket(), libc::IP_PMTUDISC_DO)?;
        result
    }

    /// Empties the system's error queue, and returns whether an error in it may have made a system
    /// call fail that had nothing to do with it.
    fn collect_errors(&self) -> bool {
        let mut any_from_network = false;
        let mut control = [0; cmsg::RECEIVE_BYTES];
        // The start of the packet that the error quotes.
        let mut quoted = [0; COMMON_HEADER_BYTES];
        // The queue shares the bounds of the receive buffer; an error that comes while this runs
        // may wait for the next time.
        for _ in 0..1024 {
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
            let Some(peer) = received.address.map(canonical) else {
                continue;
            };
            match error.meaning() {
                Some(NetworkError::Unreachable(reason)) => {
                    let quoted = quoted.get(..received.len).unwrap_or_default();
                    self.reports.push(Report {
                        peer,
                        reason,
                        about: wire::quoted_id(quoted),
                    });
                }
                Some(NetworkError::PacketTooBig { mtu }) => self.paths.learn(peer.ip(), mtu),
                None => {}
            }
        }
        any_from_network
    }

    fn receive_into(&self, batch: &mut RecvBatch) -> io::Result<Filled> {
        let mut control = [0; cmsg::RECEIVE_BYTES];
        let mut errors = 0;
        while batch.packets.len() + gso::PACKETS_MAX <= RecvBatch::PACKETS_MAX {
            let start = batch.packets.last().map_or(0, |last| last.range.end);
            let room = batch.buffer.get_mut(start..).unwrap_or_default();
            if room.len() < DATAGRAM_BYTES_MAX && !batch.packets.is_empty() {
                break;
            }
            let received = match sys::receive(self.socket(), room, &mut control, 0) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Filled::Drained);
                }
                Err(error) if is_fatal_to_receiving(&error) => return Err(error),
                Err(_) if errors < RECEIVE_ERRORS_MAX => {
                    errors += 1;
                    self.collect_errors();
                    continue;
                }
                Err(_) => break,
            };
            self.receive_calls.fetch_add(1, Ordering::Relaxed);
            let Some(peer) = received.address.map(canonical) else {
                continue;
            };
            if received.truncated {
                self.truncated.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let control = control.get(..received.control_len).unwrap_or_default();
            let local = cmsg::local_address(control);
            let local = local.unwrap_or_else(|| self.local.ip().to_canonical());
            let end = start + received.len;
            let packet_bytes = cmsg::packet_bytes(control).unwrap_or(received.len).max(1);
            // An empty datagram is a packet too.
            for start in (start..end.max(start + 1)).step_by(packet_bytes) {
                let range = start..end.min(start + packet_bytes);
                batch.packets.push(PacketMeta { peer, local, range });
            }
        }
        Ok(Filled::Full)
    }
}

impl Link for UdpLink {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn backend(&self) -> Option<Backend> {
        Some(Backend::Udp)
    }

    fn packet_bytes_max(&self, peer: SocketAddr) -> usize {
        self.paths.packet_bytes_max(peer)
    }

    fn send(&self, batch: &[Transmit]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = batch.get(done..).filter(|rest| !rest.is_empty()) {
            let Segments {
                packets: mut count,
                packet_bytes,
            } = Segments::of(rest);
            let train = rest.get(..count).unwrap_or_default();
            let sent = if count > 1 {
                self.send_train(train, packet_bytes)?
            } else {
                None
            };
            let sent = match sent {
                Some(sent) => sent,
                None => {
                    // Not a train, or one that has to go in single packets.
                    count = 1;
                    match rest.first() {
                        Some(packet) => self.send_one(packet)?,
                        None => break,
                    }
                }
            };
            match sent {
                Sent::Done => {
                    if self.device_full.load(Ordering::Relaxed) {
                        self.device_full.store(false, Ordering::Relaxed);
                    }
                }
                Sent::Blocked => return Ok(done),
                Sent::DeviceFull => {
                    // Not only a full queue looks like this, a filter's rule does too: it must
                    // not hold up the other packets for ever.
                    let waited_for = done == 0 && self.device_full.load(Ordering::Relaxed);
                    self.device_full.store(!waited_for, Ordering::Relaxed);
                    if !waited_for {
                        return Ok(done);
                    }
                    tracing::debug!(packets = count, "packets lost at the network device");
                }
            }
            done += count;
        }
        Ok(batch.len())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let device_full = self.device_full.load(Ordering::Relaxed);
        ready!(self.writable.poll(cx, self.socket(), device_full))?;
        // Errors still in the queue would make the socket look writable again and again.
        self.collect_errors();
        Poll::Ready(Ok(()))
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        loop {
            self.reports.take(&mut batch.unreachable);
            let mut readable = match self.socket.poll_read_ready(cx)? {
                Poll::Ready(readable) => readable,
                Poll::Pending if !batch.is_empty() => return Poll::Ready(Ok(())),
                Poll::Pending if self.reports.wait(cx.waker()) => return Poll::Pending,
                Poll::Pending => continue,
            };
            let filled = self.receive_into(batch)?;
            if batch.packets.is_empty() {
                // Nothing to read: so it was an error, whether or not a system call has failed.
                self.collect_errors();
            }
            self.reports.take(&mut batch.unreachable);
            batch.full = filled == Filled::Full;
            if filled == Filled::Drained {
                readable.clear_ready();
            }
            if !batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if filled == Filled::Full {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn can_busy_poll(&self) -> bool {
        true
    }

    fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        self.reports.take(&mut batch.unreachable);
        batch.full = self.receive_into(batch)? == Filled::Full;
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
        let by_system = sys::receive_drops(self.socket()).unwrap_or(0);
        u64::from(by_system) + self.truncated.load(Ordering::Relaxed)
    }
}

/// What became of a packet.
enum Sent {
    /// It is sent, or lost: either way it need not be sent again.
    Done,
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

/// The slices of a packet, unless they are too many.
fn gather<'s, 'p>(
    packet: &'p Transmit,
    slices: &'s mut [IoSlice<'p>; SLICES_MAX],
) -> Option<&'s [IoSlice<'p>]> {
    let mut count = 0;
    let header = std::iter::once(packet.header.as_slice());
    for part in header.chain(packet.payload.parts().map(|part| &part[..])) {
        *slices.get_mut(count)? = IoSlice::new(part);
        count += 1;
    }
    slices.get(..count)
}

pub(super) fn is_fatal_to_receiving(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL | libc::ENOTCONN)
    )
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use socket2::{Domain, Type};

    use super::*;
    use crate::message::Message;
    use crate::units::{Priority, RpcId};
    use crate::wire::{Busy, Header, Packet, emit};

    fn bind(addr: &str) -> UdpLink {
        UdpLink::bind(addr.parse().unwrap(), &UdpOptions::default()).unwrap()
    }

    fn packet(to: SocketAddr, priority: Priority, payload: Vec<u8>) -> Transmit {
        let header = Header {
            source_port: 1,
            destination_port: 2,
            sender_id: RpcId::new(4),
        };
        Transmit {
            to,
            from: None,
            priority,
            header: emit(&header, &Packet::Busy(Busy::Unexplained)),
            payload: Message::from(payload),
        }
    }

    async fn receive(link: &UdpLink) -> RecvBatch {
        let mut batch = RecvBatch::new();
        poll_fn(|cx| link.poll_recv(cx, &mut batch)).await.unwrap();
        batch
    }

    /// The traffic class of the next datagram, as its receiver sees it.
    fn traffic_class(receiver: &Socket) -> u8 {
        let (mut buffer, mut control) = ([0; 100], [0; cmsg::RECEIVE_BYTES]);
        let received = loop {
            match sys::receive(receiver, &mut buffer, &mut control, 0) {
                Ok(received) => break received,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        cmsg::messages(&control[..received.control_len])
            .find(|message| {
                matches!(
                    (message.level, message.kind),
                    (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
                )
            })
            .unwrap()
            .data[0]
    }

    #[tokio::test]
    async fn the_receiver_sees_the_priority_of_each_packet() {
        for (sender, ip) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::]:0", "127.0.0.1:0"),
            ("[::]:0", "[::1]:0"),
        ] {
            let sender = bind(sender);
            let at: SocketAddr = ip.parse().unwrap();
            let receiver = Socket::new(Domain::for_address(at), Type::DGRAM, None).unwrap();
            let (level, name) = match at {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVTOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
            };
            sys::set_option(&receiver, level, name, 1).unwrap();
            receiver.bind(&at.into()).unwrap();
            let to = local_address(&receiver).unwrap();
            for level in [7, 0, 3] {
                let priority = Priority::new(level).unwrap();
                assert_eq!(sender.send(&[packet(to, priority, Vec::new())]).unwrap(), 1);
                assert_eq!(traffic_class(&receiver), level << 5, "{to}");
            }
        }
    }

    #[tokio::test]
    async fn a_way_narrower_than_assumed_shrinks_later_packets_and_loses_none() {
        let (sender, receiver) = (bind("[::1]:0"), bind("[::1]:0"));
        let to = receiver.local_addr();
        assert_eq!(sender.packet_bytes_max(to), 8952);
        // The socket's own limit has the effect of a narrow path.
        sys::set_option(sender.socket(), libc::IPPROTO_IPV6, libc::IPV6_MTU, 1400).unwrap();

        let long = packet(to, Priority::HIGHEST, vec![1; 8000]);
        let short = packet(to, Priority::HIGHEST, vec![2; 1000]);
        let batch = [long.clone(), short.clone(), long.clone()];
        assert_eq!(sender.send(&batch).unwrap(), 3);
        let mut arrived = Vec::new();
        while arrived.len() < 3 {
            let batch = receive(&receiver).await;
            arrived.extend(batch.iter().map(|(_, bytes)| bytes.to_vec()));
        }
        arrived.sort_unstable();
        let mut expected = batch.map(|packet| packet.to_vec());
        expected.sort_unstable();
        assert!(arrived == expected);
        assert_eq!(sender.packet_bytes_max(to), 1400 - 48);

        let reported = poll_fn(|cx| Poll::Ready(sender.poll_recv(cx, &mut RecvBatch::new()))).await;
        assert!(reported.is_pending(), "the peer is not unreachable");
    }

    #[tokio::test]
    async fn the_receive_buffer_is_what_the_system_grants() {
        let options = UdpOptions {
            receive_buffer_bytes: usize::MAX,
            send_buffer_bytes: 0,
        };
        let link = UdpLink::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let granted = link.receive_buffer_bytes();
        assert!((2048..=1 << 30).contains(&granted), "{granted}");
    }

    #[tokio::test]
    async fn a_packet_that_the_device_never_takes_holds_up_the_others_once() {
        let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
        // As after a packet that found the device full and was not tried again yet.
        sender.device_full.store(true, Ordering::Relaxed);
        poll_fn(|cx| sender.poll_writable(cx)).await.unwrap();
        let next = packet(receiver.local_addr(), Priority::HIGHEST, Vec::new());
        assert_eq!(sender.send(&[next]).unwrap(), 1);
        assert!(!sender.device_full.load(Ordering::Relaxed));
        assert_eq!(receive(&receiver).await.packets.len(), 1);
    }
}
