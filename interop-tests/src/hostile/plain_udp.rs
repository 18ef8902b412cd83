//! UDP as simply as it goes: a link whose socket forges packets as well.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use homa_transport::endpoint::Transmit;
use homa_transport::link::{Link, PacketMeta, RecvBatch};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// Fits what a loopback interface takes.
const PACKET_BYTES_MAX: usize = 8_952;
/// No datagram has more.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// One system call for each packet, no priorities, no reports.
#[derive(Debug)]
pub(super) struct PlainUdp {
    socket: UdpSocket,
    local: SocketAddr,
}

impl PlainUdp {
    pub(super) async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(addr).await?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    /// Sends any bytes from the address of the link.
    pub(super) fn forge(&self, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.try_send_to(packet, to).map(|_| ())
    }
}

impl Link for PlainUdp {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn packet_bytes_max(&self, _peer: SocketAddr) -> usize {
        PACKET_BYTES_MAX
    }

    fn send(&self, batch: &[Transmit]) -> io::Result<usize> {
        for (done, transmit) in batch.iter().enumerate() {
            let mut packet = transmit.header.as_slice().to_vec();
            for part in transmit.payload.parts() {
                packet.extend_from_slice(part);
            }
            match self.forge(&packet, transmit.to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(done),
                // The protocol takes what cannot be sent for lost.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(batch.len())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        let mut start = 0;
        while batch.packets.len() < RecvBatch::PACKETS_MAX {
            let Some(room) = batch.buffer.get_mut(start..start + DATAGRAM_BYTES_MAX) else {
                batch.full = true;
                break;
            };
            let mut room = ReadBuf::new(room);
            match self.socket.poll_recv_from(cx, &mut room) {
                Poll::Ready(Ok(peer)) => {
                    let range = start..start + room.filled().len();
                    start = range.end;
                    batch.packets.push(PacketMeta {
                        peer,
                        local: self.local.ip(),
                        range,
                    });
                }
                // That of an earlier datagram.
                Poll::Ready(Err(_)) => {}
                Poll::Pending if batch.packets.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
