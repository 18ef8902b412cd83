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
mod packet;
mod parse;
mod udp;

use self::header::CommonHeader;

pub use self::emit::{HeaderBytes, emit};
pub use self::error::Malformed;
pub use self::packet::{
    AckEntry, Acks, Cutoffs, Data, Grant, Header, Packet, PacketType, Resend, StartMsg,
};
pub use self::parse::{parse, quoted_id};
pub use self::udp::{Busy, Refusal, Tokens, Unknown};

/// Length of the longest message, in bytes. Source: homa.h, `HOMA_MAX_MESSAGE_LENGTH`.
pub const MESSAGE_BYTES_MAX: usize = 1_000_000;

/// Length of the header of a DATA packet, in bytes. The data follows it at once.
pub const DATA_HEADER_BYTES: usize = 56;

/// Length of what all headers begin with, in bytes.
pub const COMMON_HEADER_BYTES: usize = size_of::<CommonHeader>();

/// Length of the longest header (ACK), in bytes.
pub const HEADER_BYTES_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Priority, RpcId};

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
        following: 0,
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
    fn what_follows_is_in_bytes_50_and_51_in_units_rounded_up() {
        let units = [0, 1, 65_536, 65_537, 1 << 31, u32::MAX].map(Data::following_of);
        assert_eq!(units, [0, 1, 1, 2, 32_768, 65_535]);
        let data = Data {
            following: 0x0102,
            ..DATA
        };
        assert_eq!(data.following_bytes(), 0x0102_0000);
        let packet = Packet::Data(data, b"data");
        assert_eq!(bytes(&packet), data_with(50, &[1, 2]));
        assert_eq!(parse(&bytes(&packet)), Ok((HEADER, packet)));
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
