//! The wire format against bytes that were not made by this code: packets recorded between two hosts
//! with the Linux Homa module, and packets worked out by hand from its sources.

use std::fmt::Write;
use std::ops::Range;

use homa_protocol::units::Priority;
use homa_protocol::wire::{self, AckEntry, Header, Malformed, Packet, PacketType};

use self::vectors::Vector;

mod vectors;

/// Nobody reads the checksum, and we write 0.
const CHECKSUM: Range<usize> = 16..18;

fn all() -> Vec<Vector> {
    let mut vectors = vectors::worked();
    vectors.append(&mut vectors::captured());
    vectors
}

fn parsed(vector: &Vector) -> (Header, Packet<'_>) {
    wire::parse(&vector.bytes).unwrap_or_else(|error| panic!("{}: {error}", vector.name))
}

fn packet_bytes(header: &Header, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = wire::emit(header, packet).as_slice().to_vec();
    if let Packet::Data(_, data) = packet {
        bytes.extend_from_slice(data);
    }
    bytes
}

/// Text of the fields, as it stands in the vectors.
fn describe(header: &Header, packet: &Packet<'_>) -> String {
    let mut text = format!(
        "{} from {} to {} sender_id {:#x}",
        packet.packet_type(),
        header.source_port,
        header.destination_port,
        header.sender_id.value()
    );
    let written = match packet {
        Packet::Data(data, bytes) => write!(
            text,
            " message_length {} incoming {} ack {} cutoff_version {} retransmit {} few_unscheduled {} \
             offset {} data_bytes {}",
            data.message_length,
            data.incoming,
            data.ack.as_ref().map_or("none".to_owned(), describe_ack),
            data.cutoff_version,
            data.retransmit,
            data.few_unscheduled,
            data.offset,
            bytes.len()
        ),
        Packet::Grant(grant) => {
            let priority = grant.priority.level();
            write!(text, " offset {} priority {priority}", grant.offset)
        }
        Packet::Resend(resend) => write!(
            text,
            " offset {} length {} priority {}",
            resend.offset,
            resend
                .length
                .map_or("all".to_owned(), |length| length.to_string()),
            resend.priority.level()
        ),
        Packet::Cutoffs(cutoffs) => {
            let unsched = cutoffs.unsched.map(|bytes| bytes.to_string()).join(" ");
            write!(text, " unsched {unsched} version {}", cutoffs.version)
        }
        Packet::Ack(acks) => {
            let entries: String = acks
                .iter()
                .map(|ack| " ".to_owned() + &describe_ack(ack))
                .collect();
            write!(text, " acks {}{entries}", acks.len())
        }
        Packet::StartMsg(start) => write!(text, " message_length {}", start.message_length),
        Packet::RpcUnknown(_) | Packet::Busy(_) | Packet::Freeze | Packet::NeedAck => Ok(()),
    };
    written.expect("a string takes everything");
    text
}

fn describe_ack(ack: &AckEntry) -> String {
    format!("{:#x}@{}", ack.id.value(), ack.server_port)
}

#[test]
fn packets_parse_to_the_fields_they_hold() {
    for vector in all() {
        let (header, packet) = parsed(&vector);
        assert_eq!(describe(&header, &packet), vector.fields, "{}", vector.name);
        if let Packet::Data(_, data) = packet {
            assert_eq!(data, &vector.bytes[56..], "{}", vector.name);
        }
    }
}

#[test]
fn packets_are_emitted_byte_for_byte_except_where_we_differ_on_purpose() {
    for vector in all() {
        let (header, packet) = parsed(&vector);
        let mut expected = vector.bytes.clone();
        expected[CHECKSUM].fill(0);
        for (index, bytes) in &vector.ours {
            // Only the two offsets of DATA and the hint to segmentation hardware may differ.
            assert!([4, 12, 52].contains(index), "{}", vector.name);
            assert_eq!(packet.packet_type(), PacketType::Data, "{}", vector.name);
            expected[*index..index + bytes.len()].copy_from_slice(bytes);
        }
        assert_eq!(packet_bytes(&header, &packet), expected, "{}", vector.name);
    }
}

#[test]
fn packets_survive_parsing_emitting_and_parsing() {
    for vector in all() {
        let (header, packet) = parsed(&vector);
        let emitted = packet_bytes(&header, &packet);
        assert_eq!(
            wire::parse(&emitted),
            Ok((header, packet)),
            "{}",
            vector.name
        );
    }
}

#[test]
fn every_type_has_a_worked_out_packet_and_all_but_two_a_recorded_one() {
    let codes = |vectors: Vec<Vector>| {
        let mut codes: Vec<u8> = vectors.iter().map(|vector| vector.bytes[11]).collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    };
    assert_eq!(codes(vectors::worked()), Vec::from_iter(0x10..=0x19));
    // No module that sends START_MSG could be recorded.
    let unseen = [PacketType::Freeze, PacketType::StartMsg].map(|unseen| unseen as u8);
    let mut recorded = Vec::from_iter(0x10..=0x19);
    recorded.retain(|code| !unseen.contains(code));
    assert_eq!(codes(vectors::captured()), recorded);
}

#[test]
fn the_module_puts_the_priority_where_we_do_and_control_packets_at_the_highest() {
    for vector in vectors::captured() {
        let tos = vector
            .tos
            .expect("recorded packets come with their TOS byte");
        let priority = Priority::new(tos >> 5).expect("three bits are a level");
        assert_eq!(priority.traffic_class(), tos, "{}", vector.name);
        if parsed(&vector).1.packet_type() != PacketType::Data {
            assert_eq!(priority, Priority::HIGHEST, "{}", vector.name);
        }
    }
}

#[test]
fn packets_cut_at_any_length_are_rejected_or_hold_what_is_left() {
    for vector in all() {
        let (header, packet) = parsed(&vector);
        for len in 0..vector.bytes.len() {
            let context = format!("{} cut to {len} bytes", vector.name);
            let result = wire::parse(&vector.bytes[..len]);
            match packet {
                Packet::Data(data, bytes) if len > 56 => {
                    let rest = Packet::Data(data, &bytes[..len - 56]);
                    assert_eq!(result, Ok((header, rest)), "{context}");
                }
                Packet::Data(data, _) if len == 56 => {
                    let offset = data.offset;
                    assert_eq!(result, Err(Malformed::NoData { offset }), "{context}");
                }
                Packet::Resend(mut resend) if len == 36 => {
                    resend.priority = Priority::HIGHEST;
                    assert_eq!(result, Ok((header, Packet::Resend(resend))), "{context}");
                }
                _ => {
                    let error = result.expect_err(&context);
                    assert!(error.is_truncated(), "{context}: {error}");
                    let told = error.to_string();
                    assert!(
                        told.ends_with(&format!("this one has {len}")),
                        "{context}: {told}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_gives_an_error_or_a_sound_packet() {
    for vector in all() {
        let (header, packet) = parsed(&vector);
        let mut bytes = vector.bytes.clone();
        for bit in 0..bytes.len() * 8 {
            let context = format!("{} with bit {bit} flipped", vector.name);
            let (index, mask) = (bit / 8, 1 << (bit % 8));
            bytes[index] ^= mask;
            let result = wire::parse(&bytes);
            match index {
                // What is there for the look of TCP only.
                // RPC_UNKNOWN and BUSY may have a reason here.
                8..=10 if matches!(packet, Packet::RpcUnknown(_) | Packet::Busy(_)) => {
                    let (same, _) = result.expect(&context);
                    assert_eq!(same, header, "{context}");
                }
                8..=10 | 12..=19 => assert_eq!(result, Ok((header, packet)), "{context}"),
                0..=3 => {
                    let (other, same) = result.expect(&context);
                    assert_ne!(other, header, "{context}");
                    assert_eq!(same, packet, "{context}");
                }
                56.. if matches!(packet, Packet::Data(..)) => {
                    let (_, other) = result.expect(&context);
                    assert_ne!(other, packet, "{context}");
                }
                _ => {}
            }
            match result {
                Ok((header, packet)) => {
                    assert_sound(&header, &packet, &context);
                    let emitted = packet_bytes(&header, &packet);
                    assert_eq!(wire::parse(&emitted), Ok((header, packet)), "{context}");
                }
                Err(error) => assert!(error.to_string().contains("this one"), "{context}: {error}"),
            }
            bytes[index] ^= mask;
        }
    }
}

/// What the rest of the protocol may rely on.
fn assert_sound(header: &Header, packet: &Packet<'_>, context: &str) {
    let id = header.sender_id.value();
    match packet {
        Packet::Freeze => {}
        Packet::Ack(acks) => {
            assert!(id >= 2 && header.sender_id.is_client(), "{context}");
            assert!(acks.iter().all(is_client_id), "{context}");
        }
        Packet::Data(data, bytes) => {
            assert!(id >= 2 && !bytes.is_empty(), "{context}");
            assert!(data.offset < data.message_length, "{context}");
            assert!(data.ack.as_ref().is_none_or(is_client_id), "{context}");
        }
        _ => assert!(id >= 2, "{context}"),
    }
}

fn is_client_id(ack: &AckEntry) -> bool {
    ack.id.is_client() && ack.id.value() != 0
}
