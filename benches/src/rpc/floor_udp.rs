//! The floor for UDP: datagrams in trains (UDP_SEGMENT, UDP_GRO), a thread at each end.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};

use super::floor::{InProgress, Waiting};
use super::load::Measured;
use super::scenario::{BULK_BYTES, SMALL_BYTES, Scenario};

/// First byte of a datagram: which kind it is.
const SMALL: u8 = 1;
const BULK: u8 = 2;
const ACK: u8 = 3;
/// Packets of a train at most.
const TRAIN_PACKETS: usize = 64;
/// Bytes of a bulk datagram: fits the packets that Homa cuts on loopback, and divides an upload.
const SEGMENT_BYTES: u16 = 8_000;
/// Bytes of a train of them. Divides an upload.
const TRAIN_BYTES: usize = 8 * SEGMENT_BYTES as usize;
/// Bytes sent and not acknowledged at most: there is no recovery, so the receive buffer must do.
const WINDOW_BYTES: usize = 8 * TRAIN_BYTES;
const BUFFER_BYTES: usize = 64 * 1024;
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    waiting: Waiting,
    buffer: Vec<u8>,
}

/// A datagram, or a train of them.
struct Received<'a> {
    bytes: &'a [u8],
    /// Length of its packets.
    segment: u16,
    from: SockaddrIn,
}

impl Socket {
    fn open(waiting: Waiting) -> Result<Self, String> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = UdpSocket::bind(any).map_err(|error| error.to_string())?;
        let text = |error: nix::Error| error.to_string();
        setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES).map_err(text)?;
        setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES).map_err(text)?;
        setsockopt(&socket, sockopt::UdpGroSegment, &true).map_err(text)?;
        Ok(Self {
            socket,
            waiting,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Sends `bytes` as packets of `segment` bytes.
    fn send(&self, to: SockaddrIn, bytes: &[u8], segment: u16) -> Result<(), String> {
        let cut = [ControlMessage::UdpGsoSegments(&segment)];
        let control = if bytes.len() > usize::from(segment) {
            cut.as_slice()
        } else {
            &[]
        };
        let slices = [IoSlice::new(bytes)];
        let flags = MsgFlags::empty();
        sendmsg(self.socket.as_raw_fd(), &slices, control, flags, Some(&to))
            .map(drop)
            .map_err(|error| format!("cannot send: {error}"))
    }

    /// `None`: nothing came for a while.
    fn receive(&mut self) -> Result<Option<Received<'_>>, String> {
        let fd = self.socket.as_raw_fd();
        let buffer = &mut self.buffer;
        let mut control = cmsg_space!(i32);
        let received = self.waiting.receive(&self.socket, || {
            let mut slices = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let received = recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut control), flags)?;
            let segment = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::UdpGroSegments(bytes) => u16::try_from(bytes).ok(),
                _ => None,
            });
            Ok((received.bytes, segment, received.address))
        })?;
        let Some((len, segment, Some(from))) = received else {
            return Ok(None);
        };
        let bytes = self.buffer.get(..len).unwrap_or_default();
        let whole = u16::try_from(len).unwrap_or(u16::MAX).max(1);
        Ok(Some(Received {
            bytes,
            segment: segment.unwrap_or(whole),
            from,
        }))
    }
}

/// A server that is ready.
#[derive(Debug)]
pub(crate) struct Server(Socket);

impl Server {
    /// # Errors
    /// Why there is no socket.
    pub(crate) fn bind(waiting: Waiting) -> Result<(Self, String), String> {
        let socket = Socket::open(waiting)?;
        let address = socket.socket.local_addr().map_err(|e| e.to_string())?;
        Ok((Self(socket), address.to_string()))
    }

    /// Serves until a packet of an unknown kind comes.
    ///
    /// # Errors
    /// What went wrong with the socket.
    pub(crate) fn serve(mut self) -> Result<(), String> {
        loop {
            let Some(received) = self.0.receive()? else {
                continue;
            };
            let Received {
                bytes,
                segment,
                from,
            } = received;
            match bytes.first() {
                Some(&SMALL) => {
                    let replies = bytes.to_vec();
                    self.0.send(from, &replies, segment)?;
                }
                Some(&BULK) => {
                    let mut ack = vec![ACK];
                    ack.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
                    let len = u16::try_from(ack.len()).unwrap_or(u16::MAX);
                    self.0.send(from, &ack, len)?;
                }
                _ => return Ok(()),
            }
        }
    }
}

/// The client's end.
#[derive(Debug)]
pub(crate) struct Client {
    socket: Socket,
    server: SockaddrIn,
    small: Vec<u8>,
    train: Vec<u8>,
}

impl Client {
    /// # Errors
    /// Why there is no socket.
    pub(crate) fn open(address: &str, waiting: Waiting) -> Result<Self, String> {
        let server: SocketAddrV4 = address
            .parse()
            .map_err(|_| format!("the server's address is {address:?}"))?;
        let mut small = vec![0; SMALL_BYTES * TRAIN_PACKETS];
        for packet in small.chunks_mut(SMALL_BYTES) {
            packet.fill(SMALL);
        }
        Ok(Self {
            socket: Socket::open(waiting)?,
            server: SockaddrIn::from(server),
            small,
            train: vec![BULK; TRAIN_BYTES],
        })
    }

    /// # Errors
    /// What went wrong with the socket.
    pub(crate) fn run(
        &mut self,
        scenario: Scenario,
        duration: Duration,
    ) -> Result<Measured, String> {
        let mut calls = InProgress::new(scenario, duration);
        // Bytes of uploads to send, on their way, and acknowledged of the oldest upload.
        let (mut to_send, mut on_the_way, mut acknowledged) = (0, 0, 0);
        loop {
            let mut small = calls.begin_small();
            while small > 0 {
                let count = small.min(TRAIN_PACKETS);
                let train = self.small.get(..count * SMALL_BYTES).unwrap_or_default();
                let segment = u16::try_from(SMALL_BYTES).unwrap_or(u16::MAX);
                self.socket.send(self.server, train, segment)?;
                small -= count;
            }
            to_send += calls.begin_bulk() * BULK_BYTES;
            while to_send > 0 && on_the_way < WINDOW_BYTES {
                self.socket.send(self.server, &self.train, SEGMENT_BYTES)?;
                to_send -= TRAIN_BYTES;
                on_the_way += TRAIN_BYTES;
            }
            if calls.is_empty() {
                return Ok(calls.finish());
            }
            let Some(Received { bytes, segment, .. }) = self.socket.receive()? else {
                calls.lose();
                (to_send, on_the_way, acknowledged) = (0, 0, 0);
                continue;
            };
            if bytes.first() == Some(&SMALL) {
                calls.end_small(bytes.len().div_ceil(SMALL_BYTES));
                continue;
            }
            for ack in bytes.chunks(usize::from(segment)) {
                let Some(&[ACK, a, b, c, d]) = ack.first_chunk() else {
                    return Err("the server sent a packet of an unknown kind".to_owned());
                };
                let bytes = u32::from_be_bytes([a, b, c, d]) as usize;
                on_the_way = on_the_way.saturating_sub(bytes);
                acknowledged += bytes;
            }
            calls.end_bulk(acknowledged / BULK_BYTES);
            acknowledged %= BULK_BYTES;
        }
    }
}

impl Drop for Client {
    /// Ends the server.
    fn drop(&mut self) {
        // If it does not arrive, the server ends with its process.
        let _ = self.socket.send(self.server, &[0], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_exchange_the_calls_of_every_scenario() {
        let waiting = Waiting {
            spin: Duration::ZERO,
        };
        let (server, address) = Server::bind(waiting).unwrap();
        let server = std::thread::spawn(move || server.serve());
        let mut client = Client::open(&address, waiting).unwrap();
        for scenario in Scenario::ALL.into_iter().filter(Scenario::has_floor) {
            let duration = Duration::from_millis(50);
            while client.run(scenario, duration).unwrap().times.is_empty() {}
        }
        drop(client);
        server.join().unwrap().unwrap();
    }
}
