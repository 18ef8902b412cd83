//! What a switch port has sent and dropped, as `tc -s` shows it.

use super::{LEVELS, queues};

/// Counters of a switch port, since the network was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Packets sent at each priority level, lowest first. Of a port without priorities, all are in the
    /// lowest.
    pub packets: [u64; LEVELS],
    /// Bytes sent at each level.
    pub bytes: [u64; LEVELS],
    /// Packets dropped at each level because its queue was full.
    pub overflowed: [u64; LEVELS],
    /// Packets lost at random.
    pub lost: u64,
}

impl PortCounters {
    /// Reads the output of `tc -s class show` and `tc -s qdisc show`. Both print a line with the name of
    /// each object and one with its numbers below.
    pub(super) fn parse(classes: &str, disciplines: &str) -> Self {
        let mut counters = Self::default();
        for (name, numbers) in objects(classes, "class htb ") {
            let Some(level) = queues::level(name) else {
                continue;
            };
            set(&mut counters.bytes, level, numbers.bytes);
            set(&mut counters.packets, level, numbers.packets);
            set(&mut counters.overflowed, level, numbers.dropped);
        }
        if let Some((_, numbers)) = objects(disciplines, "qdisc clsact ").next() {
            counters.lost = numbers.dropped;
        }
        counters
    }

    /// What has been added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let minus = |now: &[u64; LEVELS], then: &[u64; LEVELS]| {
            let mut difference = [0; LEVELS];
            for (slot, (now, then)) in difference.iter_mut().zip(now.iter().zip(then)) {
                *slot = now.saturating_sub(*then);
            }
            difference
        };
        Self {
            packets: minus(&self.packets, &earlier.packets),
            bytes: minus(&self.bytes, &earlier.bytes),
            overflowed: minus(&self.overflowed, &earlier.overflowed),
            lost: self.lost.saturating_sub(earlier.lost),
        }
    }
}

fn set(slots: &mut [u64; LEVELS], level: usize, value: u64) {
    if let Some(slot) = slots.get_mut(level) {
        *slot = value;
    }
}

struct Numbers {
    bytes: u64,
    packets: u64,
    dropped: u64,
}

/// The objects of one kind, each with its name and its numbers.
fn objects<'a>(text: &'a str, kind: &'a str) -> impl Iterator<Item = (&'a str, Numbers)> {
    let lines = text.lines();
    lines
        .clone()
        .zip(lines.skip(1))
        .filter_map(move |(head, line)| {
            let name = head.strip_prefix(kind)?.split(' ').next()?;
            Some((name, numbers(line)?))
        })
}

/// Reads ` Sent 130 bytes 1 pkt (dropped 0, overlimits 0 requeues 0)`.
fn numbers(line: &str) -> Option<Numbers> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let number = |at: usize| words.get(at)?.trim_end_matches(',').parse().ok();
    (words.first() == Some(&"Sent")).then_some(())?;
    Some(Numbers {
        bytes: number(1)?,
        packets: number(3)?,
        dropped: number(6)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: &str = "\
class htb 1:11 parent 1:1 leaf 8002: prio 6 rate 8Kbit ceil 200Mbit burst 1600b cburst 15325b 
 Sent 4560 bytes 3 pkt (dropped 2, overlimits 1 requeues 0) 
 backlog 0b 0p requeues 0

class htb 1:1 root rate 200Mbit ceil 200Mbit burst 15325b cburst 15325b 
 Sent 9000 bytes 9 pkt (dropped 9, overlimits 9 requeues 9) 
";
    const DISCIPLINES: &str = "\
qdisc htb 1: root refcnt 3 r2q 10 default 0x10 direct_packets_stat 0 direct_qlen 1000
 Sent 9000 bytes 9 pkt (dropped 9, overlimits 9 requeues 9) 
qdisc clsact ffff: parent ffff:fff1 
 Sent 241930 bytes 5241 pkt (dropped 268, overlimits 0 requeues 0) 
";

    #[test]
    fn the_numbers_of_tc_are_read_by_level() {
        let counters = PortCounters::parse(CLASSES, DISCIPLINES);
        assert_eq!(counters.packets, [0, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(counters.bytes[1], 4560);
        assert_eq!(counters.overflowed[1], 2);
        assert_eq!(counters.lost, 268);
        let none = counters.since(&counters);
        assert_eq!(none, PortCounters::default());
    }

    #[test]
    fn other_text_counts_nothing() {
        let counters = PortCounters::parse("class htb 1:10\n Sent x\n", "");
        assert_eq!(counters, PortCounters::default());
    }
}
