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
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use socket2::{Domain, Type};

    use super::*;
    use crate::link::Link;
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
        sys::set_option(
            sender.socket.socket(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU,
            1400,
        )
        .unwrap();

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
    async fn packets_to_many_peers_share_system_calls() {
        let sender = bind("127.0.0.1:0");
        let receivers = [(); 64].map(|()| bind("127.0.0.1:0"));
        // To each a message of one packet, and to every fourth one of several.
        let mut batch = Vec::new();
        for (number, receiver) in receivers.iter().enumerate() {
            let copies = if number % 4 == 0 { 3 } else { 1 };
            for copy in 0..copies {
                let payload = vec![u8::try_from(number).unwrap(); 100 + copy];
                batch.push(packet(receiver.local_addr(), Priority::HIGHEST, payload));
            }
        }
        assert_eq!(sender.send(&batch).unwrap(), batch.len());
        let calls = sender.system_calls().send;
        assert!(
            calls <= 4,
            "{calls} system calls for {} packets",
            batch.len()
        );
        for (number, receiver) in receivers.iter().enumerate() {
            let expected = batch
                .iter()
                .filter(|packet| packet.to == receiver.local_addr());
            let expected: Vec<_> = expected.map(Transmit::to_vec).collect();
            let mut arrived = Vec::new();
            while arrived.len() < expected.len() {
                let batch = receive(receiver).await;
                arrived.extend(batch.iter().map(|(_, bytes)| bytes.to_vec()));
            }
            assert!(arrived == expected, "receiver {number}");
        }
    }

    #[tokio::test]
    async fn one_peer_that_cannot_be_reached_stops_no_other() {
        let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
        let to = |to| packet(to, Priority::HIGHEST, vec![1; 10]);
        // The system refuses to send to the second; the third is of a family that the socket does not have.
        let batch = [
            to(receiver.local_addr()),
            to("255.255.255.255:4000".parse().unwrap()),
            to("[::1]:4000".parse().unwrap()),
            to(receiver.local_addr()),
        ];
        assert_eq!(sender.send(&batch).unwrap(), batch.len());
        let mut arrived = 0;
        while arrived < 2 {
            arrived += receive(&receiver).await.packets.len();
        }
        assert_eq!(arrived, 2);
        let reported = receive(&sender).await.unreachable;
        assert!(
            reported.iter().any(|report| report.peer == batch[2].to),
            "{reported:?}"
        );
    }

    #[tokio::test]
    async fn a_packet_that_the_device_never_takes_holds_up_the_others_once() {
        let (sender, receiver) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
        // As after a packet that found the device full and was not tried again yet.
        sender.socket.device_full.store(true, Ordering::Relaxed);
        poll_fn(|cx| sender.poll_writable(cx)).await.unwrap();
        let next = packet(receiver.local_addr(), Priority::HIGHEST, Vec::new());
        assert_eq!(sender.send(&[next]).unwrap(), 1);
        assert!(!sender.socket.device_full.load(Ordering::Relaxed));
        assert_eq!(receive(&receiver).await.packets.len(), 1);
    }
}
