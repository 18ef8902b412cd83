//! What is wrong with a packet.

use super::header::CommonHeader;
use super::{MESSAGE_BYTES_MAX, PacketType};
use crate::units::Priority;

/// Why the bytes of a packet make no sense.
///
/// There are three classes, see [`Malformed::is_truncated`] and [`Malformed::is_unknown_type`];
/// everything else is a field with an impossible value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Shorter than what all packets have in common.
    #[error(
        "a Homa packet has at least {} bytes, this one has {len}",
        size_of::<CommonHeader>()
    )]
    NoCommonHeader {
        /// Length of the packet, in bytes.
        len: usize,
    },
    /// The type byte has no meaning.
    #[error(
        "packet types are {:#04x} to {:#04x}, this one is {code:#04x}",
        PacketType::Data as u8,
        PacketType::StartMsg as u8
    )]
    UnknownType {
        /// The type byte.
        code: u8,
    },
    /// Shorter than the header of its type.
    #[error("{packet_type} has at least {min} bytes, this one has {len}")]
    Truncated {
        /// Type of the packet.
        packet_type: PacketType,
        /// Length of the packet, in bytes.
        len: usize,
        /// Shortest length accepted for the type, in bytes.
        min: usize,
    },
    /// An RPC id that no RPC can have: 0, or 1, which is 0 in the server's form.
    #[error("sender_id of {packet_type} is at least 2, this one is {sender_id}")]
    InvalidSenderId {
        /// Type of the packet.
        packet_type: PacketType,
        /// The id.
        sender_id: u64,
    },
    /// An ACK from the server of the RPC; only clients acknowledge.
    #[error("sender_id of ACK is even (a client's), this one is {sender_id:#x}")]
    AckFromServer {
        /// The id.
        sender_id: u64,
    },
    /// An acknowledged RPC is named by an id that is not a client's.
    #[error(
        "acknowledged ids are even (a client's) and not 0, this one (entry {index} of {packet_type}) is {client_id:#x}"
    )]
    InvalidAckId {
        /// Type of the packet, ACK or DATA.
        packet_type: PacketType,
        /// Which entry, counted from 0; always 0 in DATA, and below 5 in ACK.
        index: usize,
        /// The id.
        client_id: u64,
    },
    /// DATA of a message without bytes.
    #[error("message_length of DATA is 1 to {MESSAGE_BYTES_MAX}, this one is 0")]
    EmptyMessage,
    /// DATA that starts at or behind the end of its message.
    #[error("offset of DATA is below message_length ({message_length}), this one is {offset}")]
    OffsetBeyondMessage {
        /// Offset of the first data byte in the message.
        offset: u32,
        /// Length of the message, in bytes.
        message_length: u32,
    },
    /// DATA that ends with its header.
    #[error("DATA has at least 1 byte behind its header, this one (offset {offset}) has none")]
    NoData {
        /// Offset at which the data would be, in bytes.
        offset: u32,
    },
    /// A priority level that does not exist.
    #[error(
        "priority of {packet_type} is 0 to {}, this one is {level}",
        Priority::HIGHEST.level()
    )]
    InvalidPriority {
        /// Type of the packet, GRANT or RESEND.
        packet_type: PacketType,
        /// The level.
        level: u8,
    },
}

impl Malformed {
    /// True if the packet is too short to hold the header of its type.
    #[must_use]
    pub const fn is_truncated(&self) -> bool {
        matches!(self, Self::NoCommonHeader { .. } | Self::Truncated { .. })
    }

    /// True if the type of the packet is not known.
    #[must_use]
    pub const fn is_unknown_type(&self) -> bool {
        matches!(self, Self::UnknownType { .. })
    }
}
