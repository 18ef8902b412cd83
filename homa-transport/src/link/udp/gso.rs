//! GSO and GRO: several packets to one peer as one datagram to the system. The kernel or the network card cuts
//! it (UDP_SEGMENT), and the kernel puts packets together again on the way in (UDP_GRO).

use crate::endpoint::Transmit;
use crate::link::datagram::{PADDING_MAX, SLICES_MAX, Segments};

/// Packets of a datagram at most. Source: linux/udp.h, `UDP_MAX_SEGMENTS`, in older kernels;
/// net/ipv4/udp_offload.c, `UDP_GRO_CNT_MAX`.
pub(super) const PACKETS_MAX: usize = 64;
/// Bytes of it at most: those of an IPv4 datagram without its headers.
const BYTES_MAX: usize = 65_507;

impl Segments {
    /// The most packets at the head of `batch` that go as one datagram, at least one: to one peer, from one
    /// address, at one priority, all of one length but the last, which may be shorter. Packets that end a
    /// message count as of one length if a little padding makes them so (`WIRE-UDP.md`).
    pub(super) fn of(batch: &[Transmit]) -> Self {
        let Some(first) = batch.first() else {
            return Self {
                packets: 0,
                packet_bytes: 0,
            };
        };
        let mut longest = first.len();
        let mut shortest = longest;
        let mut all_can_be_padded = true;
        let mut slices = 0;
        for (index, packet) in batch.iter().take(PACKETS_MAX).enumerate() {
            let len = packet.len();
            // Header, padding, and the parts of the data.
            slices += 2 + packet.payload.parts().count();
            let packet_bytes = longest.max(len);
            let grows = len > longest;
            let fits = packet.to == first.to
                && packet.from == first.from
                && packet.priority == first.priority
                && packet_bytes * (index + 1) <= BYTES_MAX
                && slices <= SLICES_MAX
                && (!grows || (all_can_be_padded && len - shortest <= PADDING_MAX));
            if !fits {
                return Self {
                    packets: index.max(1),
                    packet_bytes: longest,
                };
            }
            longest = packet_bytes;
            shortest = shortest.min(len);
            if len == longest && !grows && !all_can_be_padded {
                // As most packets of a long message: nothing to find out.
                continue;
            }
            let can_be_padded = packet.header.ends_message(packet.payload.len());
            all_can_be_padded &= can_be_padded;
            if len < longest && (!can_be_padded || longest - len > PADDING_MAX) {
                return Self {
                    packets: index + 1,
                    packet_bytes: longest,
                };
            }
        }
        Self {
            packets: batch.len().min(PACKETS_MAX),
            packet_bytes: longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::net::SocketAddr;

    use bytes::Bytes;

    use super::*;
    use crate::link::datagram::gather;
    use crate::message::Message;
    use crate::units::{Priority, RpcId};
    use crate::wire::{Data, Header, Packet, emit};

    const HEADER: usize = crate::wire::DATA_HEADER_BYTES;

    /// A packet of a message that is longer by `more` bytes than what it carries.
    fn packet_of(port: u16, level: u8, parts: &[usize], more: usize) -> Transmit {
        let header = Header {
            source_port: 1,
            destination_port: port,
            sender_id: RpcId::new(2),
        };
        let payload: Message = parts.iter().map(|len| Bytes::from(vec![7; *len])).collect();
        let data = Data {
            message_length: u32::try_from(payload.len() + more).unwrap(),
            incoming: 0,
            ack: None,
            cutoff_version: 0,
            retransmit: false,
            few_unscheduled: false,
            following: 0,
            offset: 0,
        };
        Transmit {
            to: SocketAddr::from(([127, 0, 0, 1], port)),
            from: None,
            priority: Priority::saturating(level),
            header: emit(&header, &Packet::Data(data, &[])),
            payload,
        }
    }

    /// A packet with whose end its message does not end, so that it cannot be padded.
    fn packet(port: u16, level: u8, parts: &[usize]) -> Transmit {
        packet_of(port, level, parts, 1)
    }

    fn whole(len: usize) -> Transmit {
        packet_of(5, 6, &[len], 0)
    }

    fn packets(batch: &[Transmit]) -> usize {
        Segments::of(batch).packets
    }

    fn gathered(packets: &[Transmit], packet_bytes: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = gather(packets, packet_bytes, &mut slices).unwrap();
        slices[..count]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    #[test]
    fn equal_packets_make_a_datagram_that_a_shorter_one_ends() {
        let batch = [1000, 1000, 1000, 400, 1000].map(|len| packet(5, 6, &[len]));
        assert_eq!(packets(&batch), 4);
        assert_eq!(packets(&batch[3..]), 1, "a longer one cannot follow");
        assert_eq!(packets(&batch[..1]), 1);
        assert_eq!(packets(&[]), 0);
    }

    #[test]
    fn another_peer_or_priority_ends_a_datagram() {
        let batch = [whole(100), whole(100), packet_of(6, 6, &[100], 0)];
        assert_eq!(packets(&batch), 2);
        let batch = [whole(100), packet_of(5, 5, &[100], 0)];
        assert_eq!(packets(&batch), 1);
    }

    #[test]
    fn a_datagram_stays_within_packets_bytes_and_slices() {
        let small: Vec<_> = (0..100).map(|_| packet(5, 6, &[100])).collect();
        assert_eq!(packets(&small), 64);
        let large: Vec<_> = (0..100).map(|_| packet(5, 6, &[8_900])).collect();
        assert_eq!(packets(&large), 7);
        let sliced: Vec<_> = (0..100).map(|_| packet(5, 6, &[1; 20])).collect();
        assert_eq!(packets(&sliced), 11);
        let too_many: Vec<_> = (0..2).map(|_| packet(5, 6, &[1; 500])).collect();
        assert_eq!(packets(&too_many), 1);
    }

    #[test]
    fn ends_of_messages_are_padded_to_the_longest() {
        let batch = [100, 40, 300, 10, 300, 20].map(whole);
        let segments = Segments::of(&batch);
        assert_eq!((segments.packets, segments.packet_bytes), (6, HEADER + 300));
        let bytes = gathered(&batch, segments.packet_bytes).len();
        assert_eq!(bytes, 5 * (HEADER + 300) + HEADER + 20, "the last is not");
    }

    #[test]
    fn what_follows_in_its_message_is_not_padded_and_much_is_not_either() {
        let middle = packet(5, 6, &[100]);
        assert_eq!(packets(&[middle.clone(), whole(200)]), 1);
        assert_eq!(packets(&[whole(200), middle.clone(), whole(200)]), 2);
        assert_eq!(packets(&[whole(200), whole(100), middle]), 3);
        assert_eq!(packets(&[whole(0), whole(512), whole(512)]), 3);
        assert_eq!(packets(&[whole(0), whole(513), whole(513)]), 1);
        assert_eq!(packets(&[whole(513), whole(0), whole(513)]), 2);
        let mut segments = vec![whole(300); 200];
        segments[0] = whole(1);
        assert_eq!(packets(&segments), 64);
    }

    #[test]
    fn gathering_keeps_the_bytes_in_order() {
        let segments = [packet(5, 6, &[3, 4]), packet(5, 6, &[7])];
        let joined: Vec<u8> = segments.iter().flat_map(Transmit::to_vec).collect();
        assert_eq!(gathered(&segments, HEADER + 7), joined);
    }
}
