//! Packets from the system, several at a time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;

use super::super::control::{self, array};
use super::super::sys::Received;
use super::super::sys::batch::{self, RECEIVE_MAX};
use super::super::udp_socket::canonical;
use super::super::{PacketMeta, RecvBatch};
use super::RawLink;
use super::socket::{Family, RawSocket, homa_port};

/// Room a packet may need, in bytes, IP header included: its length field has 16 bits.
const SLOT_BYTES: usize = 1 << 16;
/// Errors in a row after which receiving makes a pause for other tasks.
const RECEIVE_ERRORS_MAX: usize = 64;

/// Why receiving ended.
#[derive(PartialEq, Eq)]
pub(super) enum Filled {
    /// There may be more.
    Full,
    /// There was nothing more.
    Drained,
}

impl RawLink {
    pub(super) fn receive_into(
        &self,
        socket: &RawSocket,
        batch: &mut RecvBatch,
    ) -> io::Result<Filled> {
        let mut controls = [[0; control::RECEIVE_BYTES]; RECEIVE_MAX];
        let mut received = [Received::default(); RECEIVE_MAX];
        let mut errors = 0;
        while batch.packets.len() + RECEIVE_MAX <= RecvBatch::PACKETS_MAX {
            let start = batch.packets.last().map_or(0, |last| last.range.end);
            let room = batch.buffer.get_mut(start..).unwrap_or_default();
            let slots = (room.len() / SLOT_BYTES).min(RECEIVE_MAX);
            if slots == 0 {
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
            if came < slots {
                // What comes from now on, packet or error, makes the socket readable anew.
                return Ok(Filled::Drained);
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
