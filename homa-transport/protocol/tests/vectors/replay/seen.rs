//! What is compared of two packets.

use std::net::SocketAddr;

use homa_protocol::endpoint::Record;
use homa_protocol::units::Instant;
use homa_protocol::wire::{self, Packet};

/// Packets that are compared with one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// DATA sent for the first time.
    First,
    /// DATA sent again.
    Again,
    Grant,
    Resend,
    Unknown,
    Busy,
    Cutoffs,
    NeedAck,
    Ack,
}

impl Kind {
    /// Sent once for each cause, which is the same for us and the module.
    pub(crate) const fn is_counted(self) -> bool {
        matches!(self, Self::First | Self::Again | Self::Unknown | Self::Busy)
    }
}

/// What is compared of a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) tos: u8,
    pub(crate) data_bytes: usize,
    pub(crate) header: Vec<u8>,
}

impl Seen {
    pub(crate) fn new(tos: u8, bytes: &[u8]) -> Self {
        let (header, packet) = wire::parse(bytes).expect("a well-formed packet");
        let mut raw = bytes[..packet.packet_type().header_bytes()].to_vec();
        raw[16..18].fill(0);
        let (mut kind, mut data_bytes) = (Kind::First, 0);
        match &packet {
            Packet::Data(data, bytes) => {
                if data.retransmit {
                    kind = Kind::Again;
                }
                data_bytes = bytes.len();
                raw[4..8].copy_from_slice(&data.offset.to_be_bytes());
                raw[52..56].copy_from_slice(&data.offset.to_be_bytes());
                raw[12] = 0;
            }
            Packet::Grant(_) => kind = Kind::Grant,
            Packet::Resend(_) => kind = Kind::Resend,
            Packet::RpcUnknown(_) => kind = Kind::Unknown,
            Packet::Busy(_) => kind = Kind::Busy,
            Packet::Cutoffs(_) => kind = Kind::Cutoffs,
            Packet::NeedAck => kind = Kind::NeedAck,
            Packet::Ack(_) => {
                kind = Kind::Ack;
                raw[28..80].fill(0);
            }
            Packet::Freeze | Packet::StartMsg(_) => panic!("nobody sends it: {packet:?}"),
        }
        let to = SocketAddr::from(([0; 4], header.destination_port));
        let record = Record::of(
            Instant::ZERO,
            true,
            to,
            header.sender_id,
            &packet,
            data_bytes,
        );
        let text = match kind {
            Kind::Ack => "ACK".to_owned(),
            _ => record.to_string(),
        };
        Self {
            kind,
            text: format!("{:?} {text}", header.sender_id),
            tos,
            data_bytes,
            header: raw,
        }
    }

    /// The piggybacked ack's bytes.
    pub(crate) fn ack_mut(&mut self) -> Option<&mut [u8]> {
        self.header.get_mut(36..46).filter(|_| self.data_bytes > 0)
    }
}
