//! Packets in parts, where their way has become narrower since they were cut.

use std::io;
use std::net::SocketAddr;

use super::RawLink;
use crate::endpoint::Transmit;
use crate::error::Unreachable;
use crate::link::datagram::{DatagramLink, DatagramSocket, Sent, transmit};
use crate::link::errno::SendError;

/// Times that a packet is halved at most: 64 kB in 256 parts.
const CUTS_MAX: usize = 8;

impl RawLink {
    /// Sends a packet that is too long for its way as several, each a half of what was one before: a
    /// module drops packets of which it has a part, but such halves it has or lacks as a whole.
    /// Source: homa_incoming.c, `homa_add_packet`.
    pub(super) fn send_in_parts(
        &self,
        socket: &DatagramSocket,
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
        // One part alone: the system calls it too long, and the route does not say why.
        if parts.len() == 1 || parts.iter().any(|part| self.is_too_long(to, part)) {
            self.common
                .reports
                .push(packet.report(Unreachable::PathTooNarrow));
            return Ok(Sent::Done(1));
        }
        let mut sent = 0;
        while let Some(rest) = parts.get(sent..).filter(|rest| !rest.is_empty()) {
            // Blocked halfway, the whole packet is sent again: the receiver drops what it has.
            match transmit(self, socket, rest) {
                Ok(0) => break,
                Ok(count) => sent += count,
                Err(error) => match SendError::of(&error) {
                    SendError::Blocked => return Ok(Sent::Blocked),
                    SendError::DeviceFull => return Ok(Sent::DeviceFull),
                    SendError::Fatal => return Err(error),
                    failure => {
                        // The protocol asks again for what is lost here.
                        tracing::debug!(peer = %packet.to, ?failure, "packet lost");
                        DatagramLink::collect_errors(self, socket);
                        sent += 1;
                    }
                },
            }
        }
        Ok(Sent::Done(1))
    }
}
