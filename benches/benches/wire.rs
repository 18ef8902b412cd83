//! Time to parse and to emit the packets that a busy endpoint sees most.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use homa_transport::units::{Priority, RpcId};
use homa_transport::wire::{self, AckEntry, Acks, Data, Grant, Header, Packet};

const HEADER: Header = Header {
    source_port: 32768,
    destination_port: 4000,
    sender_id: RpcId::new(0x1234),
};

/// A full packet of 1,424 data bytes, the one that a link with an MTU of 1,500 bytes carries.
const DATA: Packet<'_> = Packet::Data(
    Data {
        message_length: 200_000,
        incoming: 40_000,
        ack: Some(ack_entry(0x1200)),
        cutoff_version: 1,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset: 1424,
    },
    &[0xa5; 1424],
);

const GRANT: Packet<'_> = Packet::Grant(Grant {
    offset: 200_000,
    priority: Priority::LOWEST,
});

const fn ack_entry(id: u64) -> AckEntry {
    AckEntry {
        id: RpcId::new(id),
        server_port: 4000,
    }
}

/// An ACK with all five entries.
fn ack() -> Packet<'static> {
    let mut acks = Acks::new();
    for id in [0x1200, 0x1202, 0x1204, 0x1206, 0x1208] {
        assert!(acks.push(ack_entry(id)), "an ACK has room for 5 entries");
    }
    Packet::Ack(acks)
}

fn packet_bytes(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = wire::emit(&HEADER, packet).as_slice().to_vec();
    if let Packet::Data(_, data) = packet {
        bytes.extend_from_slice(data);
    }
    bytes
}

fn wire_benchmarks(criterion: &mut Criterion) {
    let packets = [DATA, GRANT, ack()];

    let mut group = criterion.benchmark_group("parse");
    for packet in &packets {
        let bytes = packet_bytes(packet);
        assert_eq!(wire::parse(&bytes), Ok((HEADER, *packet)));
        group.bench_function(packet.packet_type().to_string(), |bencher| {
            bencher.iter(|| wire::parse(black_box(&bytes)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("emit");
    for packet in &packets {
        group.bench_function(packet.packet_type().to_string(), |bencher| {
            bencher.iter(|| wire::emit(black_box(&HEADER), black_box(packet)));
        });
    }
    group.finish();
}

criterion_group!(benches, wire_benchmarks);
criterion_main!(benches);
