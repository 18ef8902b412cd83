//! Packets to the system, several at a time, in parts where the way has become narrow.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::super::address::canonical;
use super::super::cmsg::SendCmsg;
use super::super::errno::SendError;
use super::super::sys::batch::{self, Outgoing, SEND_MAX};
use super::RawLink;
use super::socket::{Family, RawSocket, name};
use crate::endpoint::Transmit;
use crate::error::Unreachable;

/// Slices of the packets of one system call at most.
const SLICES_MAX: usize = 160;
/// Times that a packet is tried when errors of other peers keep getting in its way.
const SEND_ATTEMPTS: usize = 4;
/// Times that a packet is halved at most when its way has become narrow: 64 kB in 256 parts.
const CUTS_MAX: usize = 8;

/// What became of the leading packets.
pub(super) enum Sent {
    /// So many are sent, or lost: either way they need not be sent again.
    Done(usize),
    /// The send buffer is full.
    Blocked,
    /// The queue of the network device is full.
    DeviceFull,
}

impl RawLink {
    /// Sends the leading packets that can go together.
    pub(super) fn send_leading(&self, batch: &[Transmit]) -> io::Result<Sent> {
        let Some(first) = batch.first() else {
            return Ok(Sent::Done(0));
        };
        let Some(socket) = self.socket_to(canonical(first.to)) else {
            self.reports.push(first.report(Unreachable::Network));
            return Ok(Sent::Done(1));
        };
        let together = batch.iter().take(SEND_MAX).take_while(|packet| {
            let to = canonical(packet.to);
            Family::of(to.ip()) == socket.family && !self.is_too_long(to, packet)
        });
        match self.transmit(socket, together) {
            Ok(0) => self.send_alone(socket, first),
            Ok(sent) => Ok(Sent::Done(sent)),
            Err(error) => match SendError::of(&error) {
                SendError::Blocked => Ok(Sent::Blocked),
                SendError::DeviceFull => Ok(Sent::DeviceFull),
                SendError::Fatal => Err(error),
                _ => self.send_alone(socket, first),
            },
        }
    }

    /// Sends one packet, in parts if its way has become narrower since it was cut.
    fn send_alone(&self, socket: &RawSocket, packet: &Transmit) -> io::Result<Sent> {
        let to = canonical(packet.to);
        let mut too_long = false;
        for attempt in 0..SEND_ATTEMPTS {
            if self.is_too_long(to, packet) {
                return self.send_in_parts(socket, to, packet);
            }
            let Err(error) = self.transmit(socket, std::iter::once(packet)) else {
                return Ok(Sent::Done(1));
            };
            // The failure may be that of an earlier packet to another peer, which the system tells
            // whoever comes next. So try again, until no such error was in the way.
            let in_the_way = self.collect_errors(socket);
            let failure = SendError::of(&error);
            too_long = failure == SendError::TooLong;
            match failure {
                SendError::Blocked => return Ok(Sent::Blocked),
                SendError::DeviceFull => return Ok(Sent::DeviceFull),
                SendError::Fatal => return Err(error),
                SendError::TooLong if !self.is_too_long(to, packet) => {
                    self.routes.on_too_long(to);
                }
                SendError::Refused(reason) if attempt > 0 && !in_the_way => {
                    self.reports.refused(packet, reason);
                    return Ok(Sent::Done(1));
                }
                _ => {}
            }
        }
        if too_long {
            // And the route does not say why.
            self.reports.push(packet.report(Unreachable::PathTooNarrow));
        }
        tracing::debug!(peer = %packet.to, too_long, "packet lost among errors");
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
            self.reports.push(packet.report(Unreachable::PathTooNarrow));
            return Ok(Sent::Done(1));
        }
        let mut sent = 0;
        while let Some(rest) = parts.get(sent..).filter(|rest| !rest.is_empty()) {
            // Blocked halfway, the whole packet is sent again: the receiver drops what it has.
            match self.transmit(socket, rest.iter().take(SEND_MAX)) {
                Ok(0) => break,
                Ok(count) => sent += count,
                Err(error) => match SendError::of(&error) {
                    SendError::Blocked => return Ok(Sent::Blocked),
                    SendError::DeviceFull => return Ok(Sent::DeviceFull),
                    SendError::Fatal => return Err(error),
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
}

fn outgoing(packet: &Transmit, slices: Range<usize>) -> Outgoing {
    let to = canonical(packet.to);
    Outgoing {
        name: name(to),
        slices,
        control: SendCmsg::new(to, packet.from, packet.priority),
    }
}
