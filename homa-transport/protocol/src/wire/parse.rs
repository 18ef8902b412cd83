//! From bytes to packets.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::header::{
    AckField, AckHeader, CommonHeader, CutoffsHeader, DataHeader, FEW_UNSCHEDULED, GrantHeader,
    OFFSET_IN_SEQUENCE, RESEND_ALL, ShortResendHeader, StartMsgHeader,
};
use super::packet::{
    AckEntry, Acks, Cutoffs, Data, Grant, Header, Packet, PacketType, Resend, StartMsg,
};
use super::{Busy, Malformed, Unknown};
use crate::units::{Priority, RpcId};

/// Reads a packet. `packet` starts with the Homa header; anyone may have sent it.
///
/// What passes here is sound in itself, but may be wrong for its RPC. Three things are left to the
/// caller on purpose: a `message_length` above [`MESSAGE_BYTES_MAX`](super::MESSAGE_BYTES_MAX) (the RPC has to be failed),
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
        following: fields.following.get(),
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
