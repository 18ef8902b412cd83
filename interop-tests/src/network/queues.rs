//! A switch port: loss and copies, eight queues, the speed of the link.
//!
//! HTB gives strict priorities when classes have next to no rate of their own and borrow the rest, at
//! different `prio`. Classic BPF programs choose the class, and what to lose: they can draw random
//! numbers, and every kernel with `tc` has them.

use super::command::tc_batch;
use super::{Disturbance, LEVELS, Layout, NetworkError, Queues};

/// Class of level 0 within the qdisc `1:`; the others follow.
const FIRST_CLASS: u32 = 0x10;
/// Class of packets that come late.
const LATE_CLASS: u32 = 0x20;
/// Speed of the lane of late packets, in 10³ bit/s, and the bytes it holds: 200 ms worth.
const LATE_KBIT: u32 = 2_000;
const LATE_BYTES: u32 = 50_000;
/// Bytes that each queue holds. Switches with buffers for more than a few milliseconds are slow ones
/// only; this is 80 ms at 200 Mbit/s.
const QUEUE_BYTES: u32 = 2_000_000;
/// Time for which a class may send at once after it was idle, in µs: timers are not more exact.
const BURST_US: u32 = 100;
/// Burst at least, in bytes.
const BURST_BYTES_MIN: u32 = 15_000;

/// Gives `port` its queues and disturbances.
pub(super) fn build(
    switch: &str,
    port: &str,
    layout: &Layout,
    disturbance: Disturbance,
) -> Result<(), NetworkError> {
    let mut commands = classes(port, layout);
    commands.extend(disturb(port, layout.mtu, disturbance));
    if layout.queues == Queues::Priority {
        let program = bytecode(&by_priority());
        commands.push(format!(
            "filter add dev {port} parent 1: protocol all prio 2 bpf bytecode \"{program}\""
        ));
    }
    tc_batch(switch, &commands)
}

fn classes(port: &str, layout: &Layout) -> Vec<String> {
    let mbit = layout.mbit;
    let burst = (mbit / 8).saturating_mul(BURST_US).max(BURST_BYTES_MIN);
    // Ethernet headers count.
    let quantum = layout.mtu + 14;
    let top = LEVELS - 1;
    // `default` takes what no filter has a class for.
    let default = FIRST_CLASS;
    let mut commands = vec![
        format!("qdisc add dev {port} root handle 1: htb default {default:x}"),
        format!(
            "class add dev {port} parent 1: classid 1:1 \
             htb rate {mbit}mbit ceil {mbit}mbit burst {burst} cburst {burst} quantum {quantum}"
        ),
    ];
    for (level, class) in (0..LEVELS).zip(FIRST_CLASS..) {
        commands.push(format!(
            "class add dev {port} parent 1:1 classid 1:{class:x} htb rate 8kbit ceil {mbit}mbit \
             prio {} burst {quantum} cburst {burst} quantum {quantum}",
            top - level
        ));
        commands.push(format!(
            "qdisc add dev {port} parent 1:{class:x} bfifo limit {QUEUE_BYTES}"
        ));
    }
    commands
}

fn disturb(port: &str, mtu: u32, disturbance: Disturbance) -> Vec<String> {
    let Disturbance {
        lost_permille,
        doubled_permille,
        late_permille,
    } = disturbance;
    let mut commands = Vec::new();
    if lost_permille + doubled_permille > 0 {
        commands.push(format!("qdisc add dev {port} clsact"));
    }
    if lost_permille > 0 {
        // The program's result is the verdict.
        let program = chance(lost_permille, VERDICT_DROP, VERDICT_GO_ON);
        commands.push(format!(
            "filter add dev {port} egress protocol all prio 1 bpf da bytecode \"{program}\""
        ));
    }
    if doubled_permille > 0 {
        let program = chance(doubled_permille, MATCH, NO_MATCH);
        commands.push(format!(
            "filter add dev {port} egress protocol all prio 2 bpf bytecode \"{program}\" \
             action mirred egress mirror dev {port}"
        ));
    }
    if late_permille > 0 {
        let quantum = mtu + 14;
        let program = chance(late_permille, 0x1_0000 | LATE_CLASS, NO_MATCH);
        commands.extend([
            format!(
                "class add dev {port} parent 1: classid 1:{LATE_CLASS:x} htb \
                 rate {LATE_KBIT}kbit ceil {LATE_KBIT}kbit burst {quantum} quantum {quantum}"
            ),
            format!("qdisc add dev {port} parent 1:{LATE_CLASS:x} bfifo limit {LATE_BYTES}"),
            format!(
                "filter add dev {port} parent 1: protocol all prio 1 bpf bytecode \"{program}\""
            ),
        ]);
    }
    commands
}

/// Source: linux/pkt_cls.h, `TC_ACT_SHOT`, `TC_ACT_UNSPEC`.
const VERDICT_DROP: u32 = 2;
const VERDICT_GO_ON: u32 = u32::MAX;
/// Results of a program that does not give a verdict: yes with the filter's own class, and no; any
/// other is a class. Source: net/sched/cls_bpf.c, `cls_bpf_classify`.
const MATCH: u32 = u32::MAX;
const NO_MATCH: u32 = 0;

/// One instruction of classic BPF: code, jump if true, jump if false, constant.
type Instruction = (u16, u8, u8, u32);

// Source: linux/bpf_common.h, linux/filter.h.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const ADD: u16 = 0x04;
const AND: u16 = 0x54;
const SHIFT_RIGHT: u16 = 0x74;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;
/// Offsets from here on are no bytes of the packet but what the kernel knows of it.
const ANCILLARY: u32 = 0xffff_f000;
const PROTOCOL: u32 = ANCILLARY;
const RANDOM: u32 = ANCILLARY + 56;
/// Offsets from here on count from the IP header.
const NETWORK: u32 = 0xfff0_0000;

/// A program that returns `yes` for so many thousandths of the packets, else `no`.
fn chance(permille: u32, yes: u32, no: u32) -> String {
    let share = u64::from(permille.min(1000)) * (u64::from(u32::MAX) + 1) / 1000;
    let program = match u32::try_from(share) {
        Ok(share) => vec![
            (LOAD_WORD, 0, 0, RANDOM),
            (JUMP_NOT_LESS, 0, 1, share),
            (RETURN, 0, 0, no),
            (RETURN, 0, 0, yes),
        ],
        Err(_) => vec![(RETURN, 0, 0, yes)],
    };
    bytecode(&program)
}

/// A program that returns the class of a packet's priority: the upper three bits of its TOS or traffic
/// class. What is no IP packet goes with the highest.
fn by_priority() -> Vec<Instruction> {
    let first = 0x1_0000 | FIRST_CLASS;
    vec![
        (LOAD_HALF, 0, 0, PROTOCOL),
        (JUMP_EQUAL, 0, 3, 0x0800),
        (LOAD_BYTE, 0, 0, NETWORK + 1),
        (SHIFT_RIGHT, 0, 0, 5),
        (JUMP, 0, 0, 4),
        (JUMP_EQUAL, 0, 5, 0x86dd),
        // Version (4 bits), traffic class (8), flow label.
        (LOAD_HALF, 0, 0, NETWORK),
        (SHIFT_RIGHT, 0, 0, 9),
        (AND, 0, 0, 7),
        (ADD, 0, 0, first),
        (RETURN_A, 0, 0, 0),
        (RETURN, 0, 0, first + 7),
    ]
}

/// A program as `tc` takes it. Source: tc-bpf(8).
fn bytecode(program: &[Instruction]) -> String {
    let mut text = program.len().to_string();
    for (code, if_true, if_false, constant) in program {
        text.push_str(&format!(",{code} {if_true} {if_false} {constant}"));
    }
    text
}

/// The level of a class, if it is one of [`build`]'s.
pub(super) fn level(class: &str) -> Option<usize> {
    let minor = u32::from_str_radix(class.strip_prefix("1:")?, 16).ok()?;
    let level = usize::try_from(minor.checked_sub(FIRST_CLASS)?).ok()?;
    (level < LEVELS).then_some(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_levels_and_other_numbers_have_none() {
        assert_eq!(level("1:10"), Some(0));
        assert_eq!(level("1:17"), Some(7));
        for other in ["1:1", "1:18", "1:20", "2:10", "x", ""] {
            assert_eq!(level(other), None, "{other}");
        }
    }

    #[test]
    fn jumps_stay_within_the_program_and_it_ends_with_a_return() {
        let program = by_priority();
        for (at, (code, if_true, if_false, constant)) in program.iter().enumerate() {
            let furthest = match *code {
                JUMP => *constant as usize,
                _ => usize::from(*if_true.max(if_false)),
            };
            assert!(at + 1 + furthest <= program.len(), "{at}");
        }
        assert_eq!(program.last().unwrap().0, RETURN);
    }
}
