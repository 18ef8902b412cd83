//! At which level packets go.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::net::SocketAddr;

use homa_protocol::units::{Instant, Priority};
use homa_protocol::wire::{Cutoffs, Header, Packet, Tokens, emit};
use homa_protocol::{Config, Endpoint, Message, Wire};

const PACKET_BYTES: usize = 1_060;

/// Levels of the packets of a message of 5,000 bytes to a peer that wants 1,000 bytes at level 7, 3,000
/// at level 6 and all others at level 5.
fn levels(wire: Wire) -> Vec<u8> {
    let peer: SocketAddr = "10.0.0.2:4000".parse().unwrap();
    let local = "10.0.0.1".parse().unwrap();
    let now = Instant::from_nanos(1_000_000);
    let mut endpoint = Endpoint::new(Config::default(), wire, 5_000, 0).unwrap();
    let call = |endpoint: &mut Endpoint| {
        let message = Message::from(vec![0; 5_000]);
        endpoint
            .send_request(now, peer, PACKET_BYTES, message, 0)
            .unwrap();
        let (mut levels, mut told) = (Vec::new(), 0);
        while let Some(transmit) = endpoint.poll_transmit(now) {
            levels.push(transmit.priority.level());
            told = Tokens::of(transmit.header.as_slice()).own;
        }
        (levels, told)
    };
    let (levels, told) = call(&mut endpoint);
    assert_eq!(levels, [6; 5], "before its cutoffs are known");
    let header = Header {
        source_port: 4_000,
        destination_port: 5_000,
        sender_id: endpoint_id(),
    };
    let cutoffs = Cutoffs {
        unsched: [0, 0, 0, 0, 0, u32::MAX, 3_000, 1_000],
        version: 2,
    };
    let mut bytes = emit(&header, &Packet::Cutoffs(cutoffs));
    if wire == Wire::Encapsulated {
        bytes = bytes.with_tokens(Tokens {
            own: 5,
            shown: told,
        });
    }
    endpoint.handle_packet(now, peer, local, bytes.as_slice());
    assert_eq!(Priority::LEVELS, 8);
    call(&mut endpoint).0
}

/// Some RPC: cutoffs are not about one.
fn endpoint_id() -> homa_protocol::units::RpcId {
    homa_protocol::units::RpcId::new(99)
}

#[test]
fn the_length_of_a_message_decides_about_all_its_unscheduled_packets() {
    assert_eq!(levels(Wire::Encapsulated), [5; 5]);
    assert_eq!(levels(Wire::Native), [5; 5]);
}
