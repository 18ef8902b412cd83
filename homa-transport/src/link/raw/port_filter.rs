//! Programs that run in the kernel (classic BPF) and choose which packets of protocol 146 a socket gets.

use socket2::SockFilter;

use crate::link::bpf::{
    IP_HEADER, NOTHING, WHOLE, accept, jump_if_equal, load_u16, load_u32, modulo, statement,
};
use crate::link::steering::ShardSlot;

/// What a program sees first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartsWith {
    /// The IPv4 header, as with raw IPv4 sockets.
    Ipv4Header,
    /// The Homa header, as with raw IPv6 sockets.
    HomaHeader,
}

/// Only packets to `port` from the addresses of `part`
/// ([`Steering::ByAddress`](super::super::steering::Steering)). Packets too short to have a port are not accepted.
pub(super) fn only(port: u16, part: ShardSlot, start: StartsWith) -> Vec<SockFilter> {
    let mut program = load_destination_port(start);
    if part == ShardSlot::WHOLE {
        program.push(jump_if_equal(u32::from(port), 0, 1));
    } else {
        // The source address, or the last four bytes of it.
        let source = match start {
            StartsWith::Ipv4Header => 12,
            StartsWith::HomaHeader => IP_HEADER + 20,
        };
        program.extend([
            jump_if_equal(u32::from(port), 0, 4),
            load_u32(source),
            modulo(part.of),
            jump_if_equal(part.number, 0, 1),
        ]);
    }
    program.push(accept(WHOLE));
    program.push(accept(NOTHING));
    program
}

/// Ports that a program can name: a jump over all of them has to fit 8 bits.
pub(super) const PORTS_MAX: usize = 250;

/// The first `bytes` of packets to none of `ports`, of which those beyond [`PORTS_MAX`] do not count.
pub(super) fn none_of(ports: &[u16], bytes: u32, start: StartsWith) -> Vec<SockFilter> {
    let mut program = load_destination_port(start);
    let ports = ports.get(..ports.len().min(PORTS_MAX)).unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        // Over the ports that follow and the acceptance.
        let rest = u8::try_from(ports.len() - index).unwrap_or(u8::MAX);
        program.push(jump_if_equal(u32::from(*port), rest, 0));
    }
    program.push(accept(bytes));
    program.push(accept(NOTHING));
    program
}

/// As [`only`], but each packet is lost with a probability of `percent`.
#[cfg(test)]
pub(super) fn only_with_loss(port: u16, percent: u32, start: StartsWith) -> Vec<SockFilter> {
    // Source: linux/filter.h, SKF_AD_OFF and SKF_AD_RANDOM.
    let random = 0_u32.wrapping_sub(0x1000) + 56;
    let mut program = vec![
        load_u32(random),
        crate::link::bpf::jump_if_greater(u32::MAX / 100 * percent, 1, 0),
        accept(NOTHING),
    ];
    program.extend(only(port, ShardSlot::WHOLE, start));
    program
}

/// Nothing at all: for sockets that only send.
pub(super) fn nothing() -> Vec<SockFilter> {
    vec![accept(NOTHING)]
}

/// Bytes 2 and 3 of the Homa header. Source: homa_wire.h, `struct homa_common_hdr`.
fn load_destination_port(start: StartsWith) -> Vec<SockFilter> {
    match start {
        StartsWith::Ipv4Header => vec![
            // X = length of the IPv4 header
            statement(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0),
            statement(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 2),
        ],
        StartsWith::HomaHeader => {
            vec![load_u16(2)]
        }
    }
}
