//! Packets: bytes to typed views and back. No state.
//!
//! [`parse`] takes the bytes of a packet from anyone and yields the fields they stand for, or says
//! what is wrong with them. [`emit`] does the reverse for the header; the data that follows it in
//! DATA is not copied. The format is that of the Linux kernel module of Homa (main branch, 2026),
//! all ten types of packets, in its full and its reduced (upstream) build. One of them, START_MSG, is known
//! by its code, its length and its use only; see [`StartMsg`].
//!
//! ```
//! use homa_protocol::units::{Priority, RpcId};
//! use homa_protocol::wire::{self, Grant, Header, Packet, PacketType};
//!
//! let header = Header {
//!     source_port: 4000,
//!     destination_port: 32768,
//!     sender_id: RpcId::new(0x1235),
//! };
//! let grant = Packet::Grant(Grant {
//!     offset: 200_000,
//!     priority: Priority::LOWEST,
//! });
//! let bytes = wire::emit(&header, &grant);
//! assert_eq!(bytes.as_slice().len(), PacketType::Grant.header_bytes());
//! assert_eq!(wire::parse(bytes.as_slice()), Ok((header, grant)));
//! ```

mod emit;
mod error;
mod header;
mod udp;

use std::fmt;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use self::header::{
    AckField, AckHeader, CommonHeader, CutoffsHeader, DataHeader, FEW_UNSCHEDULED, GrantHeader,
    OFFSET_IN_SEQUENCE, RESEND_ALL, ResendHeader, ShortResendHeader, StartMsgHeader,
};
use crate::units::{Priority, RpcId};

pub use self::emit::{HeaderBytes, emit};
pub use self::error::Malformed;
pub use self::udp::{Busy, Refusal, Tokens, Unknown};

/// Length of the longest message, in bytes. Source: homa.h, `HOMA_MAX_MESSAGE_LENGTH`.
pub const MESSAGE_BYTES_MAX: usize = 1_000_000;

/// Length of the header of a DATA packet, in bytes. The data follows it at once.
pub const DATA_HEADER_BYTES: usize = 56;

/// Length of what all headers begin with, in bytes.
pub const COMMON_HEADER_BYTES: usize = size_of::<CommonHeader>();

/// Length of the longest header (ACK), in bytes.
pub const HEADER_BYTES_MAX: usize = 80;

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

    /// Length of the header that [`emit`] writes, in bytes.
    #[must_use]
    pub const fn header_bytes(self) -> usize {
        match self {
            Self::Data => size_of::<DataHeader>(),
            Self::Grant => size_of::<GrantHeader>(),
            Self::Resend => size_of::<ResendHeader>(),
            Self::Cutoffs => size_of::<CutoffsHeader>(),
            Self::Ack => size_of::<AckHeader>(),
            Self::StartMsg => size_of::<StartMsgHeader>(),
            Self::RpcUnknown | Self::Busy | Self::Freeze | Self::NeedAck => {
                size_of::<CommonHeader>()
            }
        }
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
    /// Length of the whole message, in bytes. At least 1; [`parse`] lets lengths above
    /// [`MESSAGE_BYTES_MAX`] pass, so that the RPC can be failed.
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
    /// Offset of the first data byte in the message, below `message_length`.
    pub offset: u32,
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
    /// [`MESSAGE_BYTES_MAX`].
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

/// Reads a packet. `packet` starts with the Homa header; anyone may have sent it.
///
/// What passes here is sound in itself, but may be wrong for its RPC. Three things are left to the
/// caller on purpose: a `message_length` above [`MESSAGE_BYTES_MAX`] (the RPC has to be failed),
/// data beyond the end of the message (padding on some links), and whether client or server may
/// send such a packet (ACK aside). Bytes behind the header of a control packet are ignored, and so
/// are the fields that exist for TCP hardware.
///
/// # Errors
/// The first thing found wrong with the packet; lengths are looked at before fields.
pub fn parse(packet: &[u8]) -> Result<(Header, Packet<'_>), Malformed> {
    let (common, _) = CommonHeader::ref_from_prefix(packet)
        .map_err(|_| Malformed::NoCommonHeader { len: packet.len() })?;
    let code = common.packet_type;
    let packet_type = PacketType::from_code(code).ok_or(Malformed::UnknownType { code })?;
    let body = match packet_type {
        PacketType::Data => parse_data(packet)?,
        PacketType::Grant => parse_grant(packet)?,
        PacketType::Resend => parse_resend(packet)?,
        PacketType::RpcUnknown => Packet::RpcUnknown(Unknown::from_bytes(common.reason)),
        PacketType::Busy => Packet::Busy(Busy::from_bytes(common.reason)),
        PacketType::Cutoffs => parse_cutoffs(packet)?,
        PacketType::Freeze => Packet::Freeze,
        PacketType::NeedAck => Packet::NeedAck,
        PacketType::Ack => parse_ack(packet)?,
        PacketType::StartMsg => parse_start_msg(packet)?,
    };
    let header = Header {
        source_port: common.source_port.get(),
        destination_port: common.destination_port.get(),
        sender_id: parse_sender_id(common.sender_id.get(), packet_type)?,
    };
    Ok((header, body))
}

/// The RPC of a packet of which perhaps only the beginning is there.
#[must_use]
pub fn quoted_id(packet: &[u8]) -> Option<RpcId> {
    let (common, _) = CommonHeader::ref_from_prefix(packet).ok()?;
    Some(RpcId::new(common.sender_id.get()))
}

/// FREEZE belongs to no RPC; its id means nothing.
fn parse_sender_id(sender_id: u64, packet_type: PacketType) -> Result<RpcId, Malformed> {
    let id = RpcId::new(sender_id);
    if packet_type == PacketType::Freeze {
        return Ok(id);
    }
    if sender_id < 2 {
        return Err(Malformed::InvalidSenderId {
            packet_type,
            sender_id,
        });
    }
    // The module would end its own client RPC of that number.
    // Source: homa_incoming.c, homa_ack_pkt.
    if packet_type == PacketType::Ack && !id.is_client() {
        return Err(Malformed::AckFromServer { sender_id });
    }
    Ok(id)
}

fn parse_data(packet: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (fields, data) = view::<DataHeader>(packet, PacketType::Data)?;
    let message_length = fields.message_length.get();
    if message_length == 0 {
        return Err(Malformed::EmptyMessage);
    }
    // Source: homa_wire.h, homa_get_offset.
    let offset = match fields.segment_offset.get() {
        OFFSET_IN_SEQUENCE => fields.common.sequence.get(),
        offset => offset,
    };
    if offset >= message_length {
        return Err(Malformed::OffsetBeyondMessage {
            offset,
            message_length,
        });
    }
    if data.is_empty() {
        return Err(Malformed::NoData { offset });
    }
    let ack = match fields.ack.client_id.get() {
        0 => None,
        _ => Some(parse_ack_entry(&fields.ack, PacketType::Data, 0)?),
    };
    let description = Data {
        message_length,
        incoming: fields.incoming.get(),
        ack,
        cutoff_version: fields.cutoff_version.get(),
        retransmit: fields.retransmit != 0,
        few_unscheduled: fields.extension & FEW_UNSCHEDULED != 0,
        offset,
    };
    Ok(Packet::Data(description, data))
}

fn parse_grant(packet: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (fields, _) = view::<GrantHeader>(packet, PacketType::Grant)?;
    Ok(Packet::Grant(Grant {
        offset: fields.offset.get(),
        priority: parse_priority(fields.priority, PacketType::Grant)?,
    }))
}

fn parse_resend(packet: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (fields, rest) = view::<ShortResendHeader>(packet, PacketType::Resend)?;
    Ok(Packet::Resend(Resend {
        offset: fields.offset.get(),
        length: match fields.length.get() {
            RESEND_ALL => None,
            length => Some(length),
        },
        // The module's reduced build sends no priority.
        priority: match rest.first() {
            Some(&level) => parse_priority(level, PacketType::Resend)?,
            None => Priority::HIGHEST,
        },
    }))
}

fn parse_cutoffs(packet: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (fields, _) = view::<CutoffsHeader>(packet, PacketType::Cutoffs)?;
    Ok(Packet::Cutoffs(Cutoffs {
        unsched: fields.unsched.map(|bytes| bytes.get()),
        version: fields.version.get(),
    }))
}

fn parse_ack(packet: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (fields, _) = view::<AckHeader>(packet, PacketType::Ack)?;
    let mut acks = Acks::new();
    // A count above the room for entries is cut. Source: homa_incoming.c, homa_ack_pkt.
    let count = usize::from(fields.count.get()).min(Acks::MAX);
    for (index, field) in fields.acks.iter().take(count).enumerate() {
        let pushed = acks.push(parse_ack_entry(field, PacketType::Ack, index)?);
        debug_assert!(pushed, "an ACK has no more entries than there is room for");
    }
    Ok(Packet::Ack(acks))
}

fn parse_start_msg(packet: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (fields, _) = view::<StartMsgHeader>(packet, PacketType::StartMsg)?;
    match fields.message_length.get() {
        0 => Err(Malformed::EmptyMessage),
        message_length => Ok(Packet::StartMsg(StartMsg { message_length })),
    }
}

fn parse_ack_entry(
    field: &AckField,
    packet_type: PacketType,
    index: usize,
) -> Result<AckEntry, Malformed> {
    let client_id = field.client_id.get();
    let id = RpcId::new(client_id);
    if client_id == 0 || !id.is_client() {
        return Err(Malformed::InvalidAckId {
            packet_type,
            index,
            client_id,
        });
    }
    Ok(AckEntry {
        id,
        server_port: field.server_port.get(),
    })
}

/// The module takes the level as an index without looking at it; we don't.
fn parse_priority(level: u8, packet_type: PacketType) -> Result<Priority, Malformed> {
    Priority::new(level).ok_or(Malformed::InvalidPriority { packet_type, level })
}

/// The header of a packet of this type, and what follows it.
fn view<H: FromBytes + KnownLayout + Immutable + Unaligned>(
    packet: &[u8],
    packet_type: PacketType,
) -> Result<(&H, &[u8]), Malformed> {
    H::ref_from_prefix(packet).map_err(|_| Malformed::Truncated {
        packet_type,
        len: packet.len(),
        min: size_of::<H>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        source_port: 32768,
        destination_port: 99,
        sender_id: RpcId::new(0x1234),
    };

    const DATA: Data = Data {
        message_length: 3000,
        incoming: 3000,
        ack: Some(ACK_ENTRY),
        cutoff_version: 7,
        retransmit: false,
        few_unscheduled: false,
        offset: 1424,
    };

    const ACK_ENTRY: AckEntry = AckEntry {
        id: RpcId::new(0x1200),
        server_port: 99,
    };

    fn bytes(packet: &Packet<'_>) -> Vec<u8> {
        let mut bytes = emit(&HEADER, packet).as_slice().to_vec();
        if let Packet::Data(_, data) = packet {
            bytes.extend_from_slice(data);
        }
        bytes
    }

    /// One packet of each type.
    fn samples() -> [Packet<'static>; 10] {
        let mut acks = Acks::new();
        acks.push(ACK_ENTRY);
        acks.push(ACK_ENTRY);
        [
            Packet::Data(DATA, b"data"),
            Packet::Grant(Grant {
                offset: 2848,
                priority: Priority::LOWEST,
            }),
            Packet::Resend(Resend {
                offset: 1424,
                length: Some(100),
                priority: Priority::LOWEST,
            }),
            Packet::RpcUnknown(Unknown::Unexplained),
            Packet::Busy(Busy::Unexplained),
            Packet::Cutoffs(Cutoffs {
                unsched: [0, 0, 0, 0, 1_000_000, 15_000, 2800, 200],
                version: 1,
            }),
            Packet::Freeze,
            Packet::NeedAck,
            Packet::StartMsg(StartMsg {
                message_length: 70_000,
            }),
            Packet::Ack(acks),
        ]
    }

    /// `packet` with `new` in place of what stands at `at`.
    fn patched(packet: &Packet<'_>, at: usize, new: &[u8]) -> Vec<u8> {
        let mut bytes = bytes(packet);
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    }

    fn data_with(at: usize, new: &[u8]) -> Vec<u8> {
        patched(&Packet::Data(DATA, b"data"), at, new)
    }

    fn error(packet: &[u8]) -> Malformed {
        parse(packet).expect_err("this packet is malformed")
    }

    #[test]
    fn packet_types_are_those_of_the_module() {
        for code in 0..=u8::MAX {
            match PacketType::from_code(code) {
                Some(packet_type) => assert_eq!(packet_type as u8, code),
                None => assert!(!(0x10..=0x19).contains(&code), "{code:#x}"),
            }
        }
    }

    #[test]
    fn every_type_parses_to_what_was_emitted() {
        for packet in samples() {
            let bytes = bytes(&packet);
            assert_eq!(bytes[11], packet.packet_type() as u8);
            assert_eq!(parse(&bytes), Ok((HEADER, packet)));
        }
    }

    #[test]
    fn less_than_28_bytes_is_no_packet() {
        assert_eq!(error(&[]), Malformed::NoCommonHeader { len: 0 });
        let len = 27;
        let error = error(&bytes(&Packet::Busy(Busy::Unexplained))[..len]);
        assert_eq!(error, Malformed::NoCommonHeader { len });
        assert!(error.is_truncated() && !error.is_unknown_type());
        assert_eq!(
            error.to_string(),
            "a Homa packet has at least 28 bytes, this one has 27"
        );
    }

    #[test]
    fn types_below_0x10_and_above_0x19_are_unknown() {
        for code in [0, 0x0f, 0x1a, 0xff] {
            let error = error(&patched(&Packet::Busy(Busy::Unexplained), 11, &[code]));
            assert_eq!(error, Malformed::UnknownType { code });
            assert!(error.is_unknown_type() && !error.is_truncated());
        }
        assert_eq!(
            Malformed::UnknownType { code: 9 }.to_string(),
            "packet types are 0x10 to 0x19, this one is 0x09"
        );
    }

    #[test]
    fn every_type_has_its_shortest_length() {
        for packet in samples() {
            let packet_type = packet.packet_type();
            // RESEND may lack its priority, DATA needs a byte of data.
            let (header, shortest) = match packet_type {
                PacketType::Data => (56, 57),
                PacketType::Resend => (36, 36),
                other => (other.header_bytes(), other.header_bytes()),
            };
            let bytes = bytes(&packet);
            assert!(parse(&bytes[..shortest]).is_ok(), "{packet_type}");
            if header == 28 {
                continue;
            }
            let error = error(&bytes[..header - 1]);
            assert_eq!(
                error,
                Malformed::Truncated {
                    packet_type,
                    len: header - 1,
                    min: header,
                }
            );
            assert!(error.is_truncated() && !error.is_unknown_type());
        }
    }

    #[test]
    fn ids_0_and_1_are_for_freeze_alone() {
        for packet in samples() {
            let packet_type = packet.packet_type();
            for sender_id in [0, 1_u64] {
                let bytes = patched(&packet, 20, &sender_id.to_be_bytes());
                if packet_type == PacketType::Freeze {
                    assert_eq!(parse(&bytes).unwrap().1, Packet::Freeze);
                } else {
                    let expected = Malformed::InvalidSenderId {
                        packet_type,
                        sender_id,
                    };
                    assert_eq!(error(&bytes), expected);
                    assert!(!expected.is_truncated() && !expected.is_unknown_type());
                }
            }
        }
    }

    #[test]
    fn only_clients_acknowledge() {
        let bytes = patched(&Packet::Ack(Acks::new()), 20, &0x1235_u64.to_be_bytes());
        assert_eq!(
            error(&bytes),
            Malformed::AckFromServer { sender_id: 0x1235 }
        );
    }

    #[test]
    fn acknowledged_ids_are_a_clients() {
        let packet_type = PacketType::Ack;
        let [.., ack] = samples();
        for client_id in [0, 1, 0x1201_u64] {
            let second_entry = patched(&ack, 40, &client_id.to_be_bytes());
            let expected = Malformed::InvalidAckId {
                packet_type,
                index: 1,
                client_id,
            };
            assert_eq!(error(&second_entry), expected);
            // Entries beyond the count are not looked at.
            let unused_entry = patched(&ack, 50, &client_id.to_be_bytes());
            assert_eq!(parse(&unused_entry), Ok((HEADER, ack)));
        }
        let bytes = data_with(36, &0x1201_u64.to_be_bytes());
        let expected = Malformed::InvalidAckId {
            packet_type: PacketType::Data,
            index: 0,
            client_id: 0x1201,
        };
        assert_eq!(error(&bytes), expected);
    }

    #[test]
    fn id_0_in_data_acknowledges_nothing() {
        let bytes = data_with(36, &[0; 8]);
        let data = Data { ack: None, ..DATA };
        assert_eq!(parse(&bytes), Ok((HEADER, Packet::Data(data, b"data"))));
    }

    #[test]
    fn an_ack_count_above_five_is_cut() {
        let mut acks = Acks::new();
        while acks.push(ACK_ENTRY) {}
        assert_eq!(acks.len(), 5);
        assert_eq!(acks.iter().count(), 5);
        for count in [6, 256, u16::MAX] {
            let bytes = patched(&Packet::Ack(acks), 28, &count.to_be_bytes());
            assert_eq!(parse(&bytes), Ok((HEADER, Packet::Ack(acks))));
        }
    }

    #[test]
    fn messages_have_bytes() {
        assert_eq!(error(&data_with(28, &[0; 4])), Malformed::EmptyMessage);
        let [.., start, _] = samples();
        assert_eq!(
            error(&patched(&start, 28, &[0; 4])),
            Malformed::EmptyMessage
        );
    }

    #[test]
    fn data_starts_within_its_message() {
        for offset in [3000, 3001, u32::MAX - 1] {
            let expected = Malformed::OffsetBeyondMessage {
                offset,
                message_length: 3000,
            };
            assert_eq!(error(&data_with(52, &offset.to_be_bytes())), expected);
        }
        // Neither place has an offset.
        let mut bytes = data_with(4, &[0xff; 4]);
        bytes[52..56].fill(0xff);
        assert!(matches!(
            error(&bytes),
            Malformed::OffsetBeyondMessage { offset, .. } if offset == u32::MAX
        ));
    }

    #[test]
    fn data_packets_have_data() {
        let error = error(&bytes(&Packet::Data(DATA, b"")));
        assert_eq!(error, Malformed::NoData { offset: 1424 });
        assert!(!error.is_truncated());
    }

    #[test]
    fn priorities_above_7_do_not_exist() {
        let [_, grant, resend, ..] = samples();
        for (packet, at) in [(grant, 32), (resend, 36)] {
            let packet_type = packet.packet_type();
            for level in [8, 255] {
                let expected = Malformed::InvalidPriority { packet_type, level };
                assert_eq!(error(&patched(&packet, at, &[level])), expected);
            }
        }
    }

    #[test]
    fn a_resend_without_priority_asks_for_the_highest() {
        let [_, _, resend, ..] = samples();
        let expected = Packet::Resend(Resend {
            offset: 1424,
            length: Some(100),
            priority: Priority::HIGHEST,
        });
        assert_eq!(parse(&bytes(&resend)[..36]), Ok((HEADER, expected)));
    }

    #[test]
    fn bytes_behind_a_control_header_are_ignored() {
        for packet in samples() {
            let mut bytes = bytes(&packet);
            bytes.extend_from_slice(&[0xff; 100]);
            match parse(&bytes).unwrap() {
                (_, Packet::Data(_, data)) => assert_eq!(data.len(), 104),
                parsed => assert_eq!(parsed, (HEADER, packet)),
            }
        }
    }

    #[test]
    fn the_segment_offset_counts_unless_it_refers_to_the_sequence() {
        let parsed_offset = |bytes: &[u8]| match parse(bytes).unwrap().1 {
            Packet::Data(data, _) => data.offset,
            other => panic!("{other:?} is not DATA"),
        };
        assert_eq!(parsed_offset(&data_with(4, &[0xff; 4])), 1424);
        assert_eq!(parsed_offset(&data_with(52, &[0xff; 4])), 1424);
        assert_eq!(parsed_offset(&data_with(52, &[0; 4])), 0);
    }

    #[test]
    fn messages_too_long_and_data_beyond_the_end_are_left_to_the_endpoint() {
        let bytes = data_with(28, &1_000_001_u32.to_be_bytes());
        assert!(matches!(
            parse(&bytes),
            Ok((_, Packet::Data(data, _))) if data.message_length == 1_000_001
        ));
        let [.., start, _] = samples();
        let bytes = patched(&start, 28, &u32::MAX.to_be_bytes());
        assert!(matches!(
            parse(&bytes),
            Ok((_, Packet::StartMsg(start))) if start.message_length == u32::MAX
        ));
        let bytes = data_with(28, &1425_u32.to_be_bytes());
        assert!(matches!(
            parse(&bytes),
            Ok((_, Packet::Data(_, data))) if data == b"data"
        ));
    }

    #[test]
    fn the_incast_bit_stands_alone_in_its_byte() {
        for (byte, expected) in [(0, false), (1, true), (0xfe, false), (0xff, true)] {
            let bytes = data_with(49, &[byte]);
            assert!(matches!(
                parse(&bytes),
                Ok((_, Packet::Data(data, _))) if data.few_unscheduled == expected
            ));
        }
    }
}
