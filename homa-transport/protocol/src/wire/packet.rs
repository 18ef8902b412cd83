//! The packets, typed.

use std::fmt;

use super::{Busy, Unknown};
use crate::units::{Priority, RpcId};

/// Types of packets and their codes. Source: homa_wire.h, enum homa_packet_type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Part of a message.
    Data = 0x10,
    /// The receiver of a message permits sending more of it.
    Grant = 0x11,
    /// The receiver of a message misses part of it.
    Resend = 0x12,
    /// Reply to a RESEND for an RPC that the sender of this packet does not have.
    RpcUnknown = 0x13,
    /// Reply to a RESEND that will be served later.
    Busy = 0x14,
    /// The priority levels that a receiver wants for unscheduled DATA.
    Cutoffs = 0x15,
    /// Debugging aid of the module.
    Freeze = 0x16,
    /// The server asks whether it may forget an RPC.
    NeedAck = 0x17,
    /// The client lets the server forget RPCs.
    Ack = 0x18,
    /// A message begins of which nothing is sent without a GRANT. On protocol 146 only, of modules since
    /// September 2026.
    StartMsg = 0x19,
}

impl PacketType {
    /// The type with this code.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x10 => Self::Data,
            0x11 => Self::Grant,
            0x12 => Self::Resend,
            0x13 => Self::RpcUnknown,
            0x14 => Self::Busy,
            0x15 => Self::Cutoffs,
            0x16 => Self::Freeze,
            0x17 => Self::NeedAck,
            0x18 => Self::Ack,
            0x19 => Self::StartMsg,
            _ => return None,
        })
    }
}

impl fmt::Display for PacketType {
    /// The protocol's name of the type, such as `RPC_UNKNOWN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Data => "DATA",
            Self::Grant => "GRANT",
            Self::Resend => "RESEND",
            Self::RpcUnknown => "RPC_UNKNOWN",
            Self::Busy => "BUSY",
            Self::Cutoffs => "CUTOFFS",
            Self::Freeze => "FREEZE",
            Self::NeedAck => "NEED_ACK",
            Self::Ack => "ACK",
            Self::StartMsg => "START_MSG",
        })
    }
}

/// What all packets have in common, the type aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Homa port of the sending socket.
    pub source_port: u16,
    /// Homa port of the receiving socket.
    pub destination_port: u16,
    /// The RPC, in the form of the packet's sender: even from the client, odd from the server.
    pub sender_id: RpcId,
}

/// A packet without its [`Header`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Part of a message: its description and its bytes, of which there is at least one. They may
    /// reach beyond the end of the message.
    Data(Data, &'a [u8]),
    /// More of a message may be sent.
    Grant(Grant),
    /// Part of a message is missing.
    Resend(Resend),
    /// The RPC of a RESEND is not known.
    RpcUnknown(Unknown),
    /// The RPC of a RESEND is known, its DATA comes later.
    Busy(Busy),
    /// Priority levels for unscheduled DATA.
    Cutoffs(Cutoffs),
    /// To be ignored.
    Freeze,
    /// May the server forget the RPC?
    NeedAck,
    /// The server may forget the RPC of the header, and these.
    Ack(Acks),
    /// A message begins, and waits for a GRANT.
    StartMsg(StartMsg),
}

impl Packet<'_> {
    /// Type of the packet.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Data(..) => PacketType::Data,
            Self::Grant(_) => PacketType::Grant,
            Self::Resend(_) => PacketType::Resend,
            Self::RpcUnknown(_) => PacketType::RpcUnknown,
            Self::Busy(_) => PacketType::Busy,
            Self::Cutoffs(_) => PacketType::Cutoffs,
            Self::Freeze => PacketType::Freeze,
            Self::NeedAck => PacketType::NeedAck,
            Self::Ack(_) => PacketType::Ack,
            Self::StartMsg(_) => PacketType::StartMsg,
        }
    }
}

/// Which part of which message a DATA packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// Length of the whole message, in bytes. At least 1; [`parse`](super::parse()) lets lengths above
    /// [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX) pass, so that the RPC can be failed.
    pub message_length: u32,
    /// Promise of the sender: the bytes below this offset come without a GRANT. 0 from a peer that
    /// knows no grants: everything may come.
    pub incoming: u32,
    /// Some other RPC that the receiver of the packet, being its server, may forget.
    pub ack: Option<AckEntry>,
    /// Version of the receiver's [`Cutoffs`] that the sender uses; 0: it knows none.
    pub cutoff_version: u16,
    /// Sent again, because of a RESEND or an RPC_UNKNOWN.
    pub retransmit: bool,
    /// Request to send few unscheduled bytes of the response: the client expects many responses at
    /// once (incast).
    ///
    /// Differs: the bit is ours, the lowest of byte 49. The module writes 0 there and ignores it.
    pub few_unscheduled: bool,
    /// What is still to come, besides this message, of a whole that it is a part of: in units of
    /// [`Data::FOLLOWING_UNIT`], rounded up; the greatest number also means more. The message is ranked by the
    /// sum, so that the number can only worsen its own rank.
    ///
    /// Differs: the field is ours, bytes 50 and 51. The module writes 0 there and ignores it.
    pub following: u16,
    /// Offset of the first data byte in the message, below `message_length`.
    pub offset: u32,
}

impl Data {
    /// Unit of [`Data::following`], in bytes.
    pub const FOLLOWING_UNIT: u32 = 1 << 16;

    /// So many bytes as [`Data::following`] has them.
    #[must_use]
    pub fn following_of(bytes: u32) -> u16 {
        u16::try_from(bytes.div_ceil(Self::FOLLOWING_UNIT)).unwrap_or(u16::MAX)
    }

    /// [`Data::following`] in bytes.
    #[must_use]
    pub fn following_bytes(&self) -> u32 {
        u32::from(self.following) * Self::FOLLOWING_UNIT
    }
}

/// An RPC that its server may forget, since the client has the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckEntry {
    /// The RPC, in the client's form.
    pub id: RpcId,
    /// Homa port of the RPC's server.
    pub server_port: u16,
}

/// Permission to send more of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// All bytes below this offset may be sent; it may lie beyond the end of the message.
    pub offset: u32,
    /// Priority for the DATA of the message from now on.
    pub priority: Priority,
}

/// Request to send part of a message again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resend {
    /// First missing byte of the message.
    pub offset: u32,
    /// Number of missing bytes; `None`: nothing has arrived, repeat all that was sent. (On the wire
    /// `None` is the greatest number, which therefore is no length.)
    pub length: Option<u32>,
    /// Priority for the repeated DATA.
    pub priority: Priority,
}

/// How a receiver wants unscheduled DATA to be spread over the priority levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoffs {
    /// For each level, from 0, the length in bytes of the longest message that uses it. A message
    /// goes by the highest level that admits it.
    pub unsched: [u32; Priority::LEVELS],
    /// To be echoed in the DATA sent to this receiver.
    pub version: u16,
}

/// The beginning of a message that is sent by grants alone.
///
/// Modules since September 2026 send a message either wholly without grants or wholly by them. The second
/// kind begins with this packet, which holds no data. Source: homa_timer.c, "Homa Retransmission
/// Strategy", and the lengths of headers in test/integration/verify_udp_pcap.py.
///
/// Inferred: the module's struct has not been seen. It has 4 bytes more than the common header, and a
/// receiver cannot grant without the length of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartMsg {
    /// Length of the whole message, in bytes. At least 1; as in [`Data`] it may be above
    /// [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX).
    pub message_length: u32,
}

/// The RPCs that an ACK packet acknowledges besides the one in its header: up to five, held inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acks {
    // Unused entries always are `UNUSED`, so that comparing all of them is right.
    entries: [AckEntry; Self::MAX],
    len: usize,
}

impl Acks {
    /// Number of entries an ACK packet has room for. Source: homa_wire.h,
    /// `HOMA_MAX_ACKS_PER_PKT`.
    pub const MAX: usize = 5;

    const UNUSED: AckEntry = AckEntry {
        id: RpcId::new(0),
        server_port: 0,
    };

    /// No entries.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: [Self::UNUSED; Self::MAX],
            len: 0,
        }
    }

    /// Appends an entry; false, and nothing happens, if there is no room.
    pub fn push(&mut self, entry: AckEntry) -> bool {
        let Some(slot) = self.entries.get_mut(self.len) else {
            return false;
        };
        *slot = entry;
        self.len += 1;
        true
    }

    /// The entries, in the order of the packet.
    pub fn iter(&self) -> std::slice::Iter<'_, AckEntry> {
        self.entries.get(..self.len).unwrap_or_default().iter()
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True if there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for Acks {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> IntoIterator for &'a Acks {
    type Item = &'a AckEntry;
    type IntoIter = std::slice::Iter<'a, AckEntry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
