//! At which level packets go.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::net::SocketAddr;

use homa_transport::units::{Instant, Priority};
use homa_transport::wire::{Cutoffs, Header, Packet, emit};
use homa_transport::{Config, Endpoint, Message, Wire};

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
        let mut levels = Vec::new();
        while let Some(transmit) = endpoint.poll_transmit(now) {
            levels.push(transmit.priority.level());
        }
        levels
    };
    assert_eq!(call(&mut endpoint), [6; 5], "before its cutoffs are known");
    let header = Header {
        source_port: 4_000,
        destination_port: 5_000,
        sender_id: endpoint_id(),
    };
    let cutoffs = Cutoffs {
        unsched: [0, 0, 0, 0, 0, u32::MAX, 3_000, 1_000],
        version: 2,
    };
    let bytes = emit(&header, &Packet::Cutoffs(cutoffs));
    endpoint.handle_packet(now, peer, local, bytes.as_slice());
    assert_eq!(Priority::LEVELS, 8);
    call(&mut endpoint)
}

/// Some RPC: cutoffs are not about one.
fn endpoint_id() -> homa_transport::units::RpcId {
    homa_transport::units::RpcId::new(99)
}

#[test]
fn the_length_of_a_message_decides_about_all_its_unscheduled_packets() {
    assert_eq!(levels(Wire::Encapsulated), [5; 5]);
    assert_eq!(levels(Wire::Native), [5; 5]);
}
