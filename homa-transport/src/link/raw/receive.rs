//! Packets from the system, several at a time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use super::RawLink;
use super::socket::{Family, homa_port};
use crate::link::address::canonical;
use crate::link::cmsg::{self, array};
use crate::link::datagram::{DatagramSocket, Received};
use crate::link::sys::batch::{self, RECEIVE_MAX};
use crate::link::{PacketMeta, RecvBatch, sys};

/// Room a packet may need, in bytes, IP header included: its length field has 16 bits.
const SLOT_BYTES: usize = 1 << 16;
impl RawLink {
    pub(super) fn receive(
        &self,
        socket: &DatagramSocket,
        family: Family,
        batch: &mut RecvBatch,
    ) -> io::Result<Received> {
        let start = batch.packets.last().map_or(0, |last| last.range.end);
        let room = batch.buffer.get_mut(start..).unwrap_or_default();
        let slots = (room.len() / SLOT_BYTES).min(RECEIVE_MAX);
        if slots == 0 || batch.packets.len() + RECEIVE_MAX > RecvBatch::PACKETS_MAX {
            return Ok(Received::NoRoom);
        }
        let mut controls = [[0; cmsg::RECEIVE_BYTES]; RECEIVE_MAX];
        let mut received = [sys::Received::default(); RECEIVE_MAX];
        let came = batch::receive_many(
            socket.socket(),
            room,
            SLOT_BYTES,
            &mut controls,
            &mut received,
        )?;
        let mut slot = start;
        for (received, control) in received.iter().zip(&controls).take(came) {
            let taken = self.take_packet(family, batch, slot, received, control);
            if taken.is_none() {
                tracing::debug!(
                    bytes = received.len,
                    "packet dropped: not one, or a broadcast"
                );
            }
            slot += SLOT_BYTES;
        }
        Ok(if came < slots {
            Received::Last
        } else {
            Received::Some
        })
    }

    /// Takes the packet at `slot` into the batch, unless it was not for this host alone or is not one.
    fn take_packet(
        &self,
        family: Family,
        batch: &mut RecvBatch,
        slot: usize,
        received: &sys::Received,
        control: &[u8],
    ) -> Option<()> {
        let packet = batch.buffer.get(slot..slot + received.len)?;
        let control = control.get(..received.control_len).unwrap_or_default();
        let local = cmsg::unicast_address(control)?;
        let (skip, mut peer) = match family {
            Family::V4 => {
                let (len, from) = ipv4_header(packet)?;
                (len, SocketAddr::from((from, 0)))
            }
            Family::V6 => (0, canonical(received.address?)),
        };
        let homa = packet.get(skip..)?;
        peer.set_port(homa_port(homa, 0).filter(|_| !received.truncated)?);
        let source = slot + skip..slot + received.len;
        let start = batch.packets.last().map_or(0, |last| last.range.end);
        // Short packets are moved together, so that more fit into the batch.
        let range = if source.len() < SLOT_BYTES / 2 {
            let range = start..start + source.len();
            batch.buffer.copy_within(source, start);
            range
        } else {
            source
        };
        batch.packets.push(PacketMeta { peer, local, range });
        Some(())
    }
}

/// Length and source of an IPv4 header.
fn ipv4_header(packet: &[u8]) -> Option<(usize, Ipv4Addr)> {
    let len = usize::from(packet.first()? & 0xf) * 4;
    let source: [u8; 4] = array(packet, 12)?;
    (len >= 20).then(|| (len, source.into()))
}
