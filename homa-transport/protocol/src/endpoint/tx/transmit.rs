//! A packet on its way out: header inline, data as slices of the message.

use std::net::{IpAddr, SocketAddr};

use crate::error::{Report, Unreachable};
use crate::message::Message;
use crate::units::Priority;
use crate::wire::{self, HeaderBytes};

/// A packet to send. It owns what it needs, so it can be sent after the core is unlocked.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Receiver: its address and Homa port.
    pub to: SocketAddr,
    /// Address to send from; `None` leaves the choice to the system.
    pub from: Option<IpAddr>,
    /// Priority in the network.
    pub priority: Priority,
    /// The Homa header.
    pub header: HeaderBytes,
    /// The data behind the header.
    pub payload: Message,
}

impl Transmit {
    /// Length of the packet, header and data, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.as_slice().len() + self.payload.len()
    }

    /// The report that it cannot be sent.
    #[must_use]
    pub fn report(&self, reason: Unreachable) -> Report {
        Report {
            peer: self.to,
            reason,
            about: wire::quoted_id(self.header.as_slice()),
        }
    }

    /// Never true: there is no packet without a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packet as two, if it holds data enough: each is a packet in its own right. Cutting halves again
    /// never makes a packet that overlaps one cut before.
    #[must_use]
    pub fn halves(&self) -> Option<[Self; 2]> {
        let middle = self.payload.len() / 2;
        if middle == 0 {
            return None;
        }
        let second = self.header.for_data_behind(u32::try_from(middle).ok()?)?;
        let half = |header, payload| Self {
            to: self.to,
            from: self.from,
            priority: self.priority,
            header,
            payload,
        };
        Some([
            half(self.header, self.payload.slice(0, middle)),
            half(second, self.payload.slice(middle, self.payload.len())),
        ])
    }

    /// The packet in one piece; for links and tests that cannot gather.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(self.len());
        packet.extend_from_slice(self.header.as_slice());
        for part in self.payload.parts() {
            packet.extend_from_slice(part);
        }
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Priority, RpcId};
    use crate::wire::{Data, Header, Packet, Tokens, emit, parse};

    #[test]
    fn halves_are_at_their_places_and_keep_the_tokens() {
        let header = Header {
            source_port: 1,
            destination_port: 2,
            sender_id: RpcId::new(6),
        };
        let data = Data {
            message_length: 5_000,
            incoming: 5_000,
            ack: None,
            cutoff_version: 1,
            retransmit: false,
            few_unscheduled: false,
            following: 0,
            offset: 1_000,
        };
        let plain = emit(&header, &Packet::Data(data, &[]));
        let tokens = Tokens {
            own: 0x0102_0304_0506_0708,
            shown: 0x1112_1314_1516_1718,
        };
        for header in [plain, plain.with_tokens(tokens)] {
            let whole = Transmit {
                to: SocketAddr::from(([10, 0, 0, 1], 4_000)),
                from: None,
                priority: Priority::LOWEST,
                header,
                payload: Message::from(vec![7; 1_001]),
            };
            let [first, second] = whole.halves().unwrap();
            let offsets = [&first, &second].map(|half| {
                let bytes = half.to_vec();
                let told = Tokens::of(&bytes);
                if header == plain {
                    // The module reads the offset here too.
                    assert_eq!(Tokens::of(header.as_slice()).shown, told.shown);
                } else {
                    assert_eq!(told, tokens);
                }
                let Ok((_, Packet::Data(data, bytes))) = parse(&bytes) else {
                    panic!("DATA");
                };
                (data.offset, bytes.len())
            });
            assert_eq!(offsets, [(1_000, 500), (1_500, 501)]);
        }
    }
}
