//! The send engine of UDP and protocol 146: many packets, to whatever peers, in one system call.
//!
//! Packets that the system takes as one datagram ([`Segments`]) are gathered into one; up to [`SEND_MAX`]
//! datagrams leave together. An error is that of the first datagram, which is then tried alone.

use std::io::{self, IoSlice};
use std::iter;
use std::net::SocketAddr;
use std::ptr;
use std::slice;
use std::sync::atomic::Ordering;

use super::{DatagramLink, DatagramSocket};
use crate::endpoint::Transmit;
use crate::error::Unreachable;
use crate::link::address::canonical;
use crate::link::cmsg::SendCmsg;
use crate::link::errno::SendError;
use crate::link::sys::batch::{self, Outgoing, SEND_MAX};

/// Slices of the packets of one system call at most.
pub(in crate::link) const SLICES_MAX: usize = 256;
/// Slices of a packet that is sent by itself without being joined.
const SLICES_OF_ONE_MAX: usize = 16;
/// Padding behind the end of a message at most, in bytes. It saves a system call, which costs as much
/// as the copying of a hundred kilobytes, but the network has to carry it.
pub(in crate::link) const PADDING_MAX: usize = 512;
/// Times that a packet is tried when errors of other peers keep getting in its way.
const SEND_ATTEMPTS: usize = 4;

/// Packets that leave as one datagram: how many at the head of a batch, and the length to which all but the
/// last are padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) struct Segments {
    pub(in crate::link) packets: usize,
    pub(in crate::link) packet_bytes: usize,
}

impl Segments {
    /// The first packet alone.
    pub(in crate::link) fn single(batch: &[Transmit]) -> Self {
        Self {
            packets: batch.len().min(1),
            packet_bytes: batch.first().map_or(0, Transmit::len),
        }
    }
}

/// What became of the leading packets.
pub(in crate::link) enum Sent {
    /// So many are sent, or lost: either way they need not be sent again.
    Done(usize),
    /// The send buffer is full.
    Blocked,
    /// The queue of the network device is full.
    DeviceFull,
}

/// See [`Link::send`](crate::link::Link::send).
pub(in crate::link) fn send<L: DatagramLink>(link: &L, batch: &[Transmit]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = batch.get(done..)
        && let Some(first) = rest.first()
    {
        let Some(socket) = link.socket_to(canonical(first.to)) else {
            link.common()
                .reports
                .push(first.report(Unreachable::Network));
            done += 1;
            continue;
        };
        let was_full = socket.device_full.load(Ordering::Relaxed);
        match send_leading(link, socket, rest)? {
            Sent::Done(count) => done += count,
            Sent::Blocked => return Ok(done),
            Sent::DeviceFull if done == 0 && was_full => {
                // Not only a full queue looks like this, a filter's rule does too: it must not hold up
                // the other packets for ever.
                let lost = link.segments(rest).packets;
                tracing::debug!(packets = lost, "packets lost at the network device");
                done += lost;
            }
            Sent::DeviceFull => {
                socket.device_full.store(true, Ordering::Relaxed);
                return Ok(done);
            }
        }
        if was_full {
            socket.device_full.store(false, Ordering::Relaxed);
        }
    }
    Ok(batch.len())
}

/// Sends the leading packets that can go together, or the first.
fn send_leading<L: DatagramLink>(
    link: &L,
    socket: &DatagramSocket,
    batch: &[Transmit],
) -> io::Result<Sent> {
    let Some(first) = batch.first() else {
        return Ok(Sent::Done(0));
    };
    match transmit(link, socket, batch) {
        Ok(0) => {}
        Ok(sent) => return Ok(Sent::Done(sent)),
        Err(error) => match SendError::of(&error) {
            SendError::Blocked => return Ok(Sent::Blocked),
            SendError::DeviceFull => return Ok(Sent::DeviceFull),
            SendError::Fatal => return Err(error),
            _ if link.segments(batch).packets > 1 => link.on_segments_refused(&error),
            _ => {}
        },
    }
    send_alone(link, socket, first)
}

/// Sends one packet, and settles an error that is its own.
fn send_alone<L: DatagramLink>(
    link: &L,
    socket: &DatagramSocket,
    packet: &Transmit,
) -> io::Result<Sent> {
    let to = canonical(packet.to);
    for attempt in 0..SEND_ATTEMPTS {
        if link.is_too_long(to, packet) {
            return link.send_too_long(socket, to, packet);
        }
        let Err(error) = transmit(link, socket, slice::from_ref(packet)) else {
            return Ok(Sent::Done(1));
        };
        let failure = SendError::of(&error);
        match failure {
            SendError::Blocked => return Ok(Sent::Blocked),
            SendError::DeviceFull => return Ok(Sent::DeviceFull),
            SendError::Fatal => return Err(error),
            SendError::Interrupted => continue,
            SendError::TooLong if attempt == 0 => link.on_too_long(to),
            SendError::TooLong | SendError::Refused(_) | SendError::OfOthers => {}
        }
        // The failure may be that of an earlier packet to another peer, which the system tells
        // whoever comes next. So try again, until no such error was in the way.
        let in_the_way = link.collect_errors(socket);
        if attempt == 0 || in_the_way {
            continue;
        }
        match failure {
            SendError::TooLong => return link.send_too_long(socket, to, packet),
            SendError::Refused(reason) => link.common().reports.refused(packet, reason),
            _ => tracing::debug!(peer = %packet.to, ?failure, "packet lost"),
        }
        return Ok(Sent::Done(1));
    }
    tracing::debug!(peer = %packet.to, "packet lost among errors of other peers");
    Ok(Sent::Done(1))
}

/// Hands the leading packets for `socket` to the system, as many as fit into one call, and returns how many
/// it took. None if the first is too long for its way.
pub(in crate::link) fn transmit<L: DatagramLink>(
    link: &L,
    socket: &DatagramSocket,
    batch: &[Transmit],
) -> io::Result<usize> {
    let Some(first) = batch.first() else {
        return Ok(0);
    };
    let taken = if batch.len() == 1 {
        transmit_gathered::<L, 1, SLICES_OF_ONE_MAX>(link, socket, batch)?
    } else {
        transmit_gathered::<L, SEND_MAX, SLICES_MAX>(link, socket, batch)?
    };
    let to = canonical(first.to);
    if taken > 0 || link.is_too_long(to, first) {
        return Ok(taken);
    }
    // Too many slices.
    let joined = first.to_vec();
    let datagram = Some(outgoing(link, to, first, 0..1));
    link.common().send_calls.fetch_add(1, Ordering::Relaxed);
    batch::send_many::<1>(socket.socket(), &[datagram], &[IoSlice::new(&joined)])
}

fn transmit_gathered<L: DatagramLink, const DATAGRAMS: usize, const SLICES: usize>(
    link: &L,
    socket: &DatagramSocket,
    batch: &[Transmit],
) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut datagrams = [const { None }; DATAGRAMS];
    let (mut used, mut packets) = (0, 0);
    for place in &mut datagrams {
        let rest = batch.get(packets..).unwrap_or_default();
        let Some(first) = rest.first() else { break };
        let to = canonical(first.to);
        let same_socket = link
            .socket_to(to)
            .is_some_and(|other| ptr::eq(other, socket));
        if !same_socket || link.is_too_long(to, first) {
            break;
        }
        let segments = link.segments(rest);
        let together = rest.get(..segments.packets).unwrap_or_default();
        let free = slices.get_mut(used..).unwrap_or_default();
        let Some(count) = gather(together, segments.packet_bytes, free) else {
            break;
        };
        let mut datagram = outgoing(link, to, first, used..used + count);
        if segments.packets > 1 {
            datagram.packets = segments.packets;
            datagram.control.cut_into(segments.packet_bytes);
        }
        *place = Some(datagram);
        used += count;
        packets += segments.packets;
    }
    if packets == 0 {
        return Ok(0);
    }
    link.common().send_calls.fetch_add(1, Ordering::Relaxed);
    let sent = batch::send_many::<DATAGRAMS>(socket.socket(), &datagrams, &slices)?;
    let sent = datagrams.iter().flatten().take(sent);
    Ok(sent.map(|datagram| datagram.packets).sum())
}

fn outgoing<L: DatagramLink>(
    link: &L,
    to: SocketAddr,
    packet: &Transmit,
    slices: std::ops::Range<usize>,
) -> Outgoing {
    Outgoing {
        name: link.name(to),
        slices,
        control: SendCmsg::new(to, packet.from, packet.priority),
        packets: 1,
    }
}

/// Puts the slices of `packets`, all but the last padded to `packet_bytes`, into `slices`, and returns how
/// many they are. `None`: there is no room for them.
pub(in crate::link) fn gather<'p>(
    packets: &'p [Transmit],
    packet_bytes: usize,
    slices: &mut [IoSlice<'p>],
) -> Option<usize> {
    const PADDING: [u8; PADDING_MAX] = [0; PADDING_MAX];
    let mut count = 0;
    let mut put = |part: &'p [u8]| {
        *slices.get_mut(count)? = IoSlice::new(part);
        count += 1;
        Some(())
    };
    for (index, packet) in packets.iter().enumerate() {
        let header = packet.header.as_slice();
        for part in iter::once(header).chain(packet.payload.parts().map(|part| &part[..])) {
            put(part)?;
        }
        let missing = packet_bytes.saturating_sub(packet.len());
        if missing > 0 && index + 1 < packets.len() {
            put(PADDING.get(..missing)?)?;
        }
    }
    Some(count)
}
