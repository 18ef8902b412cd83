//! Packets made by hand.

use homa_transport::units::{Priority, RpcId};
use homa_transport::wire::{
    AckEntry, Acks, Busy, Cutoffs, Data, Grant, Header, Packet, PacketType, Resend, StartMsg,
    Unknown, emit,
};

use super::random::Random;

/// Every type of packet, to be forged.
pub(super) const TYPES: [PacketType; 10] = [
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

/// Where forged packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Homa port of the server.
    pub(super) port: u16,
}

/// The packet's bytes. Links that forge ports write the source port themselves.
fn bytes(target: Target, id: RpcId, packet: &Packet<'_>) -> Vec<u8> {
    let header = Header {
        source_port: 0,
        destination_port: target.port,
        sender_id: id,
    };
    let mut bytes = emit(&header, packet).as_slice().to_vec();
    if let Packet::Data(_, data) = packet {
        bytes.extend_from_slice(data);
    }
    bytes
}

/// The first packet of a request of `length` bytes, with `data` as its beginning.
pub(super) fn first_packet(target: Target, id: RpcId, length: u32, data: &[u8]) -> Vec<u8> {
    let description = Data {
        message_length: length,
        incoming: length,
        ack: None,
        cutoff_version: 0,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset: 0,
    };
    bytes(target, id, &Packet::Data(description, data))
}

/// A whole request in one packet.
pub(super) fn request(target: Target, id: RpcId, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    first_packet(target, id, length, message)
}

/// A packet of that type about the RPC `id`, with fields that are possible in themselves.
pub(super) fn about(
    target: Target,
    id: RpcId,
    packet_type: PacketType,
    random: &mut Random,
) -> Vec<u8> {
    let offset = u32::try_from(random.below(1_000_001)).unwrap_or_default();
    let level = u8::try_from(random.below(Priority::LEVELS)).unwrap_or_default();
    let priority = Priority::new(level).unwrap_or(Priority::HIGHEST);
    let entry = AckEntry {
        id: id.client_form(),
        server_port: target.port,
    };
    let data = random.bytes(200);
    let packet = match packet_type {
        PacketType::Data => Packet::Data(
            Data {
                message_length: offset + 1 + u32::try_from(random.below(1_000)).unwrap_or_default(),
                incoming: random.u32(),
                ack: Some(entry),
                cutoff_version: random.u16(),
                retransmit: random.below(2) == 0,
                few_unscheduled: random.below(2) == 0,
                following: random.u16(),
                offset,
            },
            &data,
        ),
        PacketType::Grant => Packet::Grant(Grant { offset, priority }),
        PacketType::Resend => Packet::Resend(Resend {
            offset,
            length: (random.below(4) != 0).then_some(offset / 2),
            priority,
        }),
        PacketType::RpcUnknown => Packet::RpcUnknown(Unknown::Unexplained),
        PacketType::Busy => Packet::Busy(Busy::Unexplained),
        PacketType::Cutoffs => Packet::Cutoffs(Cutoffs {
            unsched: [0; Priority::LEVELS].map(|_| random.u32()),
            version: random.u16(),
        }),
        PacketType::Freeze => Packet::Freeze,
        PacketType::NeedAck => Packet::NeedAck,
        PacketType::StartMsg => Packet::StartMsg(StartMsg {
            message_length: offset.max(1),
        }),
        PacketType::Ack => {
            let mut acks = Acks::new();
            while acks.push(entry) {}
            Packet::Ack(acks)
        }
    };
    bytes(target, id, &packet)
}

#[cfg(test)]
mod tests {
    use homa_transport::wire::parse;

    use super::*;

    #[test]
    fn what_is_forged_is_what_it_says_and_well_formed() {
        let target = Target { port: 7 };
        let mut random = Random::new(1);
        for packet_type in TYPES {
            for id in [RpcId::new(42), RpcId::new(43)] {
                let bytes = about(target, id, packet_type, &mut random);
                if packet_type == PacketType::Ack && !id.is_client() {
                    parse(&bytes).unwrap_err();
                    continue;
                }
                let (header, packet) = parse(&bytes).unwrap();
                assert_eq!(packet.packet_type(), packet_type);
                assert_eq!((header.sender_id, header.destination_port), (id, 7));
            }
        }
        let bytes = first_packet(target, RpcId::new(2), 1_000_000, b"x");
        assert!(matches!(
            parse(&bytes).unwrap().1,
            Packet::Data(data, b"x") if data.message_length == 1_000_000 && data.offset == 0
        ));
    }
}
