//! Classic BPF: the instructions of the small programs by which the system chooses packets.

use socket2::SockFilter;

/// Accepts a packet as it is.
pub(super) const WHOLE: u32 = u32::MAX;
/// Drops it.
pub(super) const NOTHING: u32 = 0;
/// Where a program finds the IP header. Source: linux/filter.h, `SKF_NET_OFF`.
pub(super) const IP_HEADER: u32 = 0_u32.wrapping_sub(0x10_0000);

/// Loads two bytes.
pub(super) fn load_u16(at: u32) -> SockFilter {
    statement(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, at)
}

/// Loads four bytes.
pub(super) fn load_u32(at: u32) -> SockFilter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
}

/// Takes what was loaded modulo `divisor`.
pub(super) fn modulo(divisor: u32) -> SockFilter {
    statement(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, divisor.max(1))
}

/// Skips `then` instructions if `value` was loaded, else `otherwise`.
pub(super) fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> SockFilter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    SockFilter::new(opcode(code), then, otherwise, value)
}

/// The same, if more than `value` was loaded.
#[cfg(test)]
pub(super) fn jump_if_greater(value: u32, then: u8, otherwise: u8) -> SockFilter {
    let code = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    SockFilter::new(opcode(code), then, otherwise, value)
}

/// Ends with so many bytes of the packet.
pub(super) fn accept(bytes: u32) -> SockFilter {
    statement(libc::BPF_RET | libc::BPF_K, bytes)
}

/// Ends with what was loaded.
pub(super) fn return_loaded() -> SockFilter {
    statement(libc::BPF_RET | libc::BPF_A, 0)
}

/// Any other instruction without a jump.
pub(super) fn statement(code: u32, value: u32) -> SockFilter {
    SockFilter::new(opcode(code), 0, 0, value)
}

fn opcode(code: u32) -> u16 {
    u16::try_from(code).unwrap_or(u16::MAX)
}
