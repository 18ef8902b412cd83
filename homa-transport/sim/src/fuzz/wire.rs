//! Bytes into the parser.

use super::forge;
use super::source::Source;
use homa_protocol::units::RpcId;
use homa_protocol::wire::{Packet, parse};

/// Reads the bytes as a packet; then makes a well-formed packet of any type from them, reads that,
/// damages it and reads it again. What can be read must be the same after it was written.
///
/// # Panics
/// If it is not.
pub fn wire(data: &[u8]) {
    read(data);
    let mut source = Source::new(data);
    let ports = (source.short(), source.short());
    let (header, mut packet) = forge::packet(&mut source, ports, |source| {
        if source.chance(128) {
            RpcId::new(source.word())
        } else {
            RpcId::new(u64::from(source.byte()))
        }
    });
    let parsed = parse(&packet);
    assert_eq!(
        parsed.map(|(header, _)| header),
        Ok(header),
        "a well-formed packet is refused or changed: {packet:02x?}"
    );
    read(&packet);
    forge::damage(&mut source, &mut packet);
    read(&packet);
}

fn read(bytes: &[u8]) {
    match parse(bytes) {
        Ok((header, packet)) => {
            if let Packet::Data(data, payload) = &packet {
                assert!(data.offset < data.message_length && !payload.is_empty());
            }
            let again = forge::whole(&header, &packet);
            assert_eq!(parse(&again), Ok((header, packet)), "{bytes:02x?}");
            assert!(again.len() >= packet.packet_type().header_bytes());
        }
        Err(malformed) => {
            assert!(!malformed.to_string().is_empty());
            assert!(!(malformed.is_truncated() && malformed.is_unknown_type()));
        }
    }
}
