//! Typed packets to the bytes of their headers.

use std::fmt;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::header::{
    AckField, AckHeader, CommonHeader, CutoffsHeader, DATA_OFFSET_CONTROL, DATA_OFFSET_DATA,
    DataHeader, FEW_UNSCHEDULED, FLAGS, GrantHeader, RESEND_ALL, ResendHeader, ShortResendHeader,
    StartMsgHeader, URGENT,
};
use super::{
    AckEntry, Acks, Cutoffs, Data, Grant, HEADER_BYTES_MAX, Header, Packet, PacketType, Resend,
    StartMsg, Tokens,
};

/// The bytes of one header, held inline.
#[derive(Clone, Copy)]
pub struct HeaderBytes {
    pub(super) bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
}

impl HeaderBytes {
    /// The header.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// This header of DATA for the data that lies `bytes` behind that of this one; `None` if it is not
    /// DATA's.
    pub(crate) fn for_data_behind(&self, bytes: u32) -> Option<Self> {
        let (mut header, _) = DataHeader::read_from_prefix(self.as_slice()).ok()?;
        if header.common.packet_type != PacketType::Data as u8 {
            return None;
        }
        let offset = U32::new(header.segment_offset.get().checked_add(bytes)?);
        // Over UDP a token is in that place.
        if header.common.sequence == header.segment_offset {
            header.common.sequence = offset;
        }
        header.segment_offset = offset;
        Some(Self::new(&header))
    }

    /// Whether this is the header of a DATA packet with whose `data_len` bytes the message ends.
    pub fn ends_message(&self, data_len: usize) -> bool {
        let Ok((data, _)) = DataHeader::ref_from_prefix(self.as_slice()) else {
            return false;
        };
        let end = data.segment_offset.get() as usize + data_len;
        data.common.packet_type == PacketType::Data as u8
            && end == data.message_length.get() as usize
    }

    fn new<H: IntoBytes + Immutable>(header: &H) -> Self {
        const { assert!(size_of::<H>() <= HEADER_BYTES_MAX) };
        let mut bytes = [0; HEADER_BYTES_MAX];
        let written = header.write_to_prefix(&mut bytes);
        debug_assert!(written.is_ok(), "the length was checked at compile time");
        Self {
            bytes,
            len: size_of::<H>(),
        }
    }
}

impl PartialEq for HeaderBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for HeaderBytes {}

impl fmt::Debug for HeaderBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}

/// Writes the header of a packet. The data of a [`Packet::Data`] has to follow it in the packet; it
/// is not looked at here.
///
/// The offset of DATA is written in both places that can have it: the module reads one or the other,
/// depending on how the packet reaches it. The checksum is 0, nobody reads it.
#[must_use]
pub fn emit(header: &Header, packet: &Packet<'_>) -> HeaderBytes {
    let common = common_header(header, packet.packet_type());
    match packet {
        Packet::Data(data, _) => HeaderBytes::new(&data_header(common, data)),
        Packet::Grant(grant) => HeaderBytes::new(&grant_header(common, *grant)),
        Packet::Resend(resend) => HeaderBytes::new(&resend_header(common, *resend)),
        Packet::Cutoffs(cutoffs) => HeaderBytes::new(&cutoffs_header(common, cutoffs)),
        Packet::Ack(acks) => HeaderBytes::new(&ack_header(common, acks)),
        Packet::StartMsg(start) => HeaderBytes::new(&start_msg_header(common, *start)),
        Packet::RpcUnknown(unknown) => HeaderBytes::new(&CommonHeader {
            reason: unknown.bytes(),
            ..common
        }),
        Packet::Busy(busy) => HeaderBytes::new(&CommonHeader {
            reason: busy.bytes(),
            ..common
        }),
        Packet::Freeze | Packet::NeedAck => HeaderBytes::new(&common),
    }
}

fn common_header(header: &Header, packet_type: PacketType) -> CommonHeader {
    CommonHeader {
        source_port: U16::new(header.source_port),
        destination_port: U16::new(header.destination_port),
        packet_type: packet_type as u8,
        data_offset: match packet_type {
            PacketType::Data => DATA_OFFSET_DATA,
            _ => DATA_OFFSET_CONTROL,
        },
        flags: FLAGS,
        urgent: U16::new(URGENT),
        sender_id: U64::new(header.sender_id.value()),
        ..CommonHeader::new_zeroed()
    }
}

fn data_header(common: CommonHeader, data: &Data) -> DataHeader {
    let offset = U32::new(data.offset);
    DataHeader {
        common: CommonHeader {
            sequence: offset,
            ..common
        },
        message_length: U32::new(data.message_length),
        incoming: U32::new(data.incoming),
        ack: data.ack.map_or_else(AckField::new_zeroed, ack_field),
        cutoff_version: U16::new(data.cutoff_version),
        retransmit: u8::from(data.retransmit),
        extension: if data.few_unscheduled {
            FEW_UNSCHEDULED
        } else {
            0
        },
        following: U16::new(data.following),
        segment_offset: offset,
    }
}

fn grant_header(common: CommonHeader, grant: Grant) -> GrantHeader {
    GrantHeader {
        common,
        offset: U32::new(grant.offset),
        priority: grant.priority.level(),
    }
}

fn resend_header(common: CommonHeader, resend: Resend) -> ResendHeader {
    ResendHeader {
        short: ShortResendHeader {
            common,
            offset: U32::new(resend.offset),
            length: U32::new(resend.length.unwrap_or(RESEND_ALL)),
        },
        priority: resend.priority.level(),
    }
}

fn cutoffs_header(common: CommonHeader, cutoffs: &Cutoffs) -> CutoffsHeader {
    CutoffsHeader {
        common,
        unsched: cutoffs.unsched.map(U32::new),
        version: U16::new(cutoffs.version),
    }
}

fn ack_header(common: CommonHeader, acks: &Acks) -> AckHeader {
    let mut fields = [AckField::new_zeroed(); Acks::MAX];
    let mut count = 0_u16;
    for (field, entry) in fields.iter_mut().zip(acks) {
        *field = ack_field(*entry);
        count += 1;
    }
    AckHeader {
        common,
        count: U16::new(count),
        acks: fields,
    }
}

fn start_msg_header(common: CommonHeader, start: StartMsg) -> StartMsgHeader {
    StartMsgHeader {
        common,
        message_length: U32::new(start.message_length),
    }
}

/// Whatever form the entry's id has: it names the same RPC, and the wire wants the client's.
fn ack_field(entry: AckEntry) -> AckField {
    AckField {
        client_id: U64::new(entry.id.client_form().value()),
        server_port: U16::new(entry.server_port),
    }
}

impl HeaderBytes {
    /// The header as it is sent over UDP: with tokens in place of ports and of TCP's fields.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Tokens) -> Self {
        tokens.write(&mut self.bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::{Priority, RpcId};
    use crate::wire::{Busy, Unknown, parse};

    fn priority() -> impl Strategy<Value = Priority> {
        (0..8_u8).prop_map(Priority::saturating)
    }

    fn ack_entry() -> impl Strategy<Value = AckEntry> {
        (1..=u64::MAX / 2, any::<u16>()).prop_map(|(half, server_port)| AckEntry {
            id: RpcId::new(half * 2),
            server_port,
        })
    }

    fn data() -> impl Strategy<Value = Data> {
        let length_and_offset = (1..=u32::MAX).prop_flat_map(|length| (Just(length), 0..length));
        let ack = prop::option::of(ack_entry());
        let rest = any::<(u32, u16, bool, bool, u16)>();
        (length_and_offset, ack, rest).prop_map(|((message_length, offset), ack, rest)| Data {
            message_length,
            incoming: rest.0,
            ack,
            cutoff_version: rest.1,
            retransmit: rest.2,
            few_unscheduled: rest.3,
            following: rest.4,
            offset,
        })
    }

    fn acks() -> impl Strategy<Value = Acks> {
        prop::collection::vec(ack_entry(), 0..=Acks::MAX).prop_map(|entries| {
            let mut acks = Acks::new();
            for entry in entries {
                assert!(acks.push(entry));
            }
            acks
        })
    }

    fn packet() -> impl Strategy<Value = Packet<'static>> {
        let resend_length = prop::option::of(0..RESEND_ALL);
        prop_oneof![
            data().prop_map(|data| Packet::Data(data, b"some data")),
            (any::<u32>(), priority())
                .prop_map(|(offset, priority)| Packet::Grant(Grant { offset, priority })),
            (any::<u32>(), resend_length, priority()).prop_map(|(offset, length, priority)| {
                Packet::Resend(Resend {
                    offset,
                    length,
                    priority,
                })
            }),
            Just(Packet::RpcUnknown(Unknown::Unexplained)),
            Just(Packet::Busy(Busy::Working)),
            any::<([u32; 8], u16)>()
                .prop_map(|(unsched, version)| Packet::Cutoffs(Cutoffs { unsched, version })),
            Just(Packet::Freeze),
            Just(Packet::NeedAck),
            acks().prop_map(Packet::Ack),
            (1..=u32::MAX).prop_map(|message_length| Packet::StartMsg(StartMsg { message_length })),
        ]
    }

    fn whole(header: &Header, packet: &Packet<'_>) -> Vec<u8> {
        let mut bytes = emit(header, packet).as_slice().to_vec();
        if let Packet::Data(_, data) = packet {
            bytes.extend_from_slice(data);
        }
        bytes
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_to_the_same(
            packet in packet(),
            source_port: u16,
            destination_port: u16,
            id in 2..=u64::MAX,
        ) {
            let sender_id = match packet {
                Packet::Ack(_) => RpcId::new(id).client_form(),
                _ => RpcId::new(id),
            };
            let header = Header { source_port, destination_port, sender_id };
            let bytes = whole(&header, &packet);
            prop_assert_eq!(
                emit(&header, &packet).as_slice().len(),
                packet.packet_type().header_bytes()
            );
            prop_assert_eq!(parse(&bytes), Ok((header, packet)));
        }

        #[test]
        fn random_bytes_are_an_error_or_a_packet_that_can_be_emitted(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            code in 0x0f..=0x1a_u8,
            short_fields: bool,
        ) {
            // Without this hardly any packet would pass the type and the range checks.
            if let Some(byte) = bytes.get_mut(11) {
                *byte = code;
            }
            if short_fields {
                for at in [32, 36, 52, 53] {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte &= 7;
                    }
                }
            }
            match parse(&bytes) {
                Ok((header, packet)) => {
                    prop_assert_eq!(packet.packet_type() as u8, code);
                    let again = whole(&header, &packet);
                    prop_assert_eq!(parse(&again), Ok((header, packet)));
                }
                Err(error) => {
                    let unknown = bytes.len() >= 28 && matches!(code, 0x0f | 0x1a);
                    prop_assert_eq!(error.is_unknown_type(), unknown);
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }

    #[test]
    fn acknowledged_ids_are_written_in_the_clients_form() {
        let mut acks = Acks::new();
        assert!(acks.push(AckEntry {
            id: RpcId::new(0x1201),
            server_port: 1,
        }));
        let header = Header {
            source_port: 1,
            destination_port: 2,
            sender_id: RpcId::new(4),
        };
        let bytes = emit(&header, &Packet::Ack(acks));
        assert_eq!(bytes.as_slice()[30..38], 0x1200_u64.to_be_bytes());
    }
}
