//! Trains: several packets to one peer in one system call, cut apart by the kernel or the network
//! card (UDP_SEGMENT), and put together again on the way in (UDP_GRO).

use std::io::IoSlice;

use crate::endpoint::Transmit;

/// Packets of a train at most. Source: linux/udp.h, `UDP_MAX_SEGMENTS`, in older kernels;
/// net/ipv4/udp_offload.c, `UDP_GRO_CNT_MAX`.
pub(super) const PACKETS_MAX: usize = 64;
/// Bytes of a train at most: those of an IPv4 datagram without its headers.
const BYTES_MAX: usize = 65_507;
/// Slices of a train at most.
const SLICES_MAX: usize = 160;

/// Number of packets at the head of `batch` that can go as one train, at least one: to one peer, from
/// one address, at one priority, all of one length but the last, which may be shorter.
pub(super) fn len(batch: &[Transmit]) -> usize {
    let Some(first) = batch.first() else { return 0 };
    let packet_bytes = first.len();
    let (mut bytes, mut slices) = (0, 0);
    for (index, packet) in batch.iter().take(PACKETS_MAX).enumerate() {
        let len = packet.len();
        bytes += len;
        slices += 1 + packet.payload.parts().count();
        let fits = packet.to == first.to
            && packet.from == first.from
            && packet.priority == first.priority
            && len <= packet_bytes
            && bytes <= BYTES_MAX
            && slices <= SLICES_MAX;
        if !fits {
            return index.max(1);
        }
        if len < packet_bytes {
            return index + 1;
        }
    }
    batch.len().min(PACKETS_MAX)
}

/// Collects the slices of a train and hands them to `send`.
pub(super) fn gather<T>(train: &[Transmit], send: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let parts = train.iter().flat_map(|packet| {
        let header = std::iter::once(packet.header.as_slice());
        header.chain(packet.payload.parts().map(|part| &part[..]))
    });
    let mut count = 0;
    for (slot, part) in slices.iter_mut().zip(parts) {
        *slot = IoSlice::new(part);
        count += 1;
    }
    send(slices.get(..count).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::Bytes;

    use super::*;
    use crate::message::Message;
    use crate::units::{Priority, RpcId};
    use crate::wire::{Header, Packet, emit};

    fn packet(port: u16, level: u8, parts: &[usize]) -> Transmit {
        let header = Header {
            source_port: 1,
            destination_port: port,
            sender_id: RpcId::new(2),
        };
        Transmit {
            to: SocketAddr::from(([127, 0, 0, 1], port)),
            from: None,
            priority: Priority::saturating(level),
            header: emit(&header, &Packet::Busy),
            payload: parts
                .iter()
                .map(|len| Bytes::from(vec![7; *len]))
                .collect::<Message>(),
        }
    }

    #[test]
    fn equal_packets_make_a_train_that_a_shorter_one_ends() {
        let batch = [1000, 1000, 1000, 400, 1000].map(|len| packet(5, 6, &[len]));
        assert_eq!(len(&batch), 4);
        assert_eq!(len(&batch[3..]), 1, "a longer one cannot follow");
        assert_eq!(len(&batch[..1]), 1);
        assert_eq!(len(&[]), 0);
    }

    #[test]
    fn another_peer_or_priority_ends_a_train() {
        let batch = [
            packet(5, 6, &[100]),
            packet(5, 6, &[100]),
            packet(6, 6, &[100]),
        ];
        assert_eq!(len(&batch), 2);
        let batch = [packet(5, 6, &[100]), packet(5, 5, &[100])];
        assert_eq!(len(&batch), 1);
    }

    #[test]
    fn a_train_stays_within_packets_bytes_and_slices() {
        let small: Vec<_> = (0..100).map(|_| packet(5, 6, &[100])).collect();
        assert_eq!(len(&small), 64);
        let large: Vec<_> = (0..100).map(|_| packet(5, 6, &[8_900])).collect();
        assert_eq!(len(&large), 7);
        let sliced: Vec<_> = (0..100).map(|_| packet(5, 6, &[1; 20])).collect();
        assert_eq!(len(&sliced), 7);
        let too_many: Vec<_> = (0..2).map(|_| packet(5, 6, &[1; 500])).collect();
        assert_eq!(len(&too_many), 1);
    }

    #[test]
    fn gathering_keeps_the_bytes_in_order() {
        let train = [packet(5, 6, &[3, 4]), packet(5, 6, &[7])];
        let joined: Vec<u8> = train.iter().flat_map(Transmit::to_vec).collect();
        let gathered = gather(&train, |slices| {
            slices
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect::<Vec<u8>>()
        });
        assert_eq!(gathered, joined);
    }
}
