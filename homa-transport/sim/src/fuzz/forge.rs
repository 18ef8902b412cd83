//! Packets that nobody in particular has sent: well-formed, with any contents.

use std::time::Duration;

use super::source::Source;
use homa_protocol::units::{Priority, RpcId};
use homa_protocol::wire::{
    AckEntry, Acks, Busy, Cutoffs, Data, Grant, Header, Packet, PacketType, Refusal, Resend,
    StartMsg, Unknown, emit,
};

/// Types of packets.
const TYPES: [PacketType; 10] = [
    PacketType::Data,
    PacketType::Grant,
    PacketType::Resend,
    PacketType::RpcUnknown,
    PacketType::Busy,
    PacketType::Cutoffs,
    PacketType::Freeze,
    PacketType::NeedAck,
    PacketType::Ack,
    PacketType::StartMsg,
];

/// The bytes of a packet, header and data.
pub(crate) fn whole(header: &Header, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = emit(header, packet).as_slice().to_vec();
    if let Packet::Data(_, data) = packet {
        bytes.extend_from_slice(data);
    }
    bytes
}

/// A packet that [`homa_protocol::wire::parse`] accepts. `id` yields the ids of its RPCs, in any form.
pub(crate) fn packet(
    source: &mut Source<'_>,
    ports: (u16, u16),
    mut id: impl FnMut(&mut Source<'_>) -> RpcId,
) -> (Header, Vec<u8>) {
    let packet_type = source.pick(TYPES);
    let sender_id = match (id(source), packet_type) {
        (id, PacketType::Freeze) => id,
        (id, _) if id.value() < 2 => RpcId::new(2),
        (id, PacketType::Ack) => id.client_form(),
        (id, _) => id,
    };
    let header = Header {
        source_port: ports.0,
        destination_port: ports.1,
        sender_id,
    };
    let ack = |source: &mut Source<'_>| AckEntry {
        id: RpcId::new(id(source).client_form().value().max(2)),
        server_port: if source.chance(64) {
            source.short()
        } else {
            ports.1
        },
    };
    if packet_type == PacketType::Data {
        let (data, bytes) = data(source, ack);
        return (header, whole(&header, &Packet::Data(data, &bytes)));
    }
    (header, whole(&header, &control(packet_type, source, ack)))
}

/// Data for any place in a message.
fn data(
    source: &mut Source<'_>,
    mut ack: impl FnMut(&mut Source<'_>) -> AckEntry,
) -> (Data, Vec<u8>) {
    let message_length = source.long().max(1);
    let data = Data {
        message_length,
        incoming: source.long(),
        ack: source.chance(64).then(|| ack(source)),
        cutoff_version: source.short(),
        retransmit: source.chance(64),
        few_unscheduled: source.chance(64),
        following: source.short(),
        offset: source.long() % message_length,
    };
    let bytes = source.pick([1, 7, 100, 1_416, 1_424, 4_000, 65_000]);
    (data, vec![source.byte(); bytes])
}

/// A packet without data of that type.
fn control(
    packet_type: PacketType,
    source: &mut Source<'_>,
    mut ack: impl FnMut(&mut Source<'_>) -> AckEntry,
) -> Packet<'static> {
    match packet_type {
        PacketType::Grant => Packet::Grant(Grant {
            offset: source.long(),
            priority: priority(source),
        }),
        PacketType::Resend => Packet::Resend(Resend {
            offset: source.long(),
            length: Some(source.long()).filter(|length| *length < u32::MAX),
            priority: priority(source),
        }),
        PacketType::Cutoffs => Packet::Cutoffs(Cutoffs {
            unsched: [(); Priority::LEVELS].map(|()| source.long()),
            version: source.short(),
        }),
        PacketType::Ack => {
            let mut acks = Acks::new();
            for _ in 0..source.below(Acks::MAX + 1) {
                let _room = acks.push(ack(source));
            }
            Packet::Ack(acks)
        }
        PacketType::RpcUnknown => {
            let since_start = source.chance(128);
            Packet::RpcUnknown(source.pick([
                Unknown::Unexplained,
                Unknown::NotReceived {
                    reach: Duration::from_secs(5),
                    since_start,
                },
            ]))
        }
        PacketType::Busy => Packet::Busy(source.pick([
            Busy::Unexplained,
            Busy::Working,
            Busy::Waiting,
            Busy::Refused(Refusal::Rpcs),
        ])),
        PacketType::Freeze => Packet::Freeze,
        PacketType::StartMsg => Packet::StartMsg(StartMsg {
            message_length: source.long().max(1),
        }),
        PacketType::NeedAck | PacketType::Data => Packet::NeedAck,
    }
}

fn priority(source: &mut Source<'_>) -> Priority {
    Priority::saturating(source.byte() % 8)
}

/// Changes some bytes, or the length.
pub(super) fn damage(source: &mut Source<'_>, packet: &mut Vec<u8>) {
    for _ in 0..=source.below(4) {
        let at = source.below(packet.len().min(HEAD));
        let kind = source.byte() % 8;
        match (packet.get_mut(at), kind) {
            (_, 0) => packet.truncate(source.below(packet.len() + 1)),
            (_, 1) => packet.extend_from_slice(source.bytes(9)),
            (Some(byte), 2) => *byte = source.byte(),
            (Some(byte), 3) => *byte = source.pick([0, 1, 0x7f, 0x80, 0xff]),
            (Some(_), 4) => {
                let value = source.long().to_be_bytes();
                for (byte, new) in packet.iter_mut().skip(at).zip(value) {
                    *byte = new;
                }
            }
            (Some(byte), _) => *byte ^= 1 << (source.byte() % 8),
            (None, _) => {}
        }
    }
}

/// Damage is done within these first bytes, in which all headers are.
const HEAD: usize = 96;
