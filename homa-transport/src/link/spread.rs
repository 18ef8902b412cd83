//! How the packets to one port are spread over the shards of a server.
//!
//! The packets of an RPC must all come to one shard, or two would execute it. So the choice depends
//! on nothing but the sender, never on who else has joined a group, as the system's own choice does.

use std::net::{IpAddr, SocketAddr};

use libc::sock_filter;

/// Where a program finds the IP header. Source: linux/filter.h, `SKF_NET_OFF`.
pub(super) const IP_HEADER: u32 = 0_u32.wrapping_sub(0x10_0000);
/// Length of an IPv6 header, which the UDP header follows.
const IPV6_HEADER_BYTES: u32 = 40;
/// The IP protocol number of UDP.
const UDP: u32 = 17;

/// What tells the senders apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Their port, where a peer is an address and a port (UDP).
    ByPort,
    /// Their address, where a peer's RPCs are known by that alone (protocol 146): the ack for an RPC may
    /// come from any of its ports.
    ByAddress,
}

impl Spread {
    /// The shard, of so many, that gets what `peer` sends.
    pub(crate) fn shard_of(self, peer: SocketAddr, shards: u32) -> u32 {
        let number = match (self, peer.ip().to_canonical()) {
            (Self::ByPort, _) => u32::from(peer.port()),
            (Self::ByAddress, IpAddr::V4(ip)) => u32::from(ip),
            (Self::ByAddress, IpAddr::V6(ip)) => {
                let [.., a, b, c, d] = ip.octets();
                u32::from_be_bytes([a, b, c, d])
            }
        };
        number % shards.max(1)
    }
}

/// One shard of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// From 0 on.
    pub(super) number: u32,
    /// How many there are.
    pub(super) of: u32,
}

impl Part {
    /// All of it.
    pub(super) const WHOLE: Self = Self { number: 0, of: 1 };
}

/// A program for a group of UDP sockets on one port (`SO_ATTACH_REUSEPORT_CBPF`): [`Spread::ByPort`].
///
/// It sees the payload of the datagram. Behind IPv6 extension headers it takes the source port that
/// the Homa header names, at the start of the payload.
pub(super) fn by_source_port(shards: u32) -> Vec<sock_filter> {
    use libc::{BPF_ABS, BPF_ALU, BPF_B, BPF_H, BPF_IND, BPF_K, BPF_LD, BPF_LDX, BPF_MOD, BPF_MSH};
    vec![
        // The version, in the upper half of the first byte of either header.
        statement(BPF_LD | BPF_B | BPF_ABS, IP_HEADER),
        statement(BPF_ALU | libc::BPF_RSH | BPF_K, 4),
        jump_unless_equal(4, 3),
        // IPv4: X = length of the header; the two bytes behind it.
        statement(BPF_LDX | BPF_B | BPF_MSH, IP_HEADER),
        statement(BPF_LD | BPF_H | BPF_IND, IP_HEADER),
        statement(libc::BPF_JMP | libc::BPF_JA, 5),
        // IPv6: the next header, at byte 6.
        statement(BPF_LD | BPF_B | BPF_ABS, IP_HEADER + 6),
        jump_unless_equal(UDP, 2),
        statement(BPF_LD | BPF_H | BPF_ABS, IP_HEADER + IPV6_HEADER_BYTES),
        statement(libc::BPF_JMP | libc::BPF_JA, 1),
        statement(BPF_LD | BPF_H | BPF_ABS, 0),
        statement(BPF_ALU | BPF_MOD | BPF_K, shards.max(1)),
        statement(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

/// Skips the next `skip` statements unless the register has this value.
fn jump_unless_equal(value: u32, skip: u8) -> sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    sock_filter {
        jf: skip,
        ..statement(code, value)
    }
}

fn statement(code: u32, k: u32) -> sock_filter {
    let code = u16::try_from(code).unwrap_or(u16::MAX);
    let (jt, jf) = (0, 0);
    sock_filter { code, jt, jf, k }
}
