//! The figures of a run, and what is wrong with them.

use std::fmt;

use serde::Serialize;

use super::attacker::Sent;
use super::meter::Calls;
use super::server::Counters;

/// Calls may take this many times as long after an attack as before.
const SLOWER_MAX: u64 = 2;
/// Times below this are as good as any: on a small machine they are the scheduler's.
const P99_FLOOR_US: u64 = 10_000;
/// Memory may grow by a fifth, and by what a process that has hardly begun needs anyway.
const MEMORY_FLOOR_KB: u64 = 4_096;

/// What happened in one attack.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Name of the attack.
    pub attack: String,
    /// `homa` or `homa+udp`, with the address.
    pub uri: String,
    /// Ports or addresses that it came from.
    pub sources: usize,
    /// Packets per second that it was paced at.
    pub rate: usize,
    /// What was sent.
    pub sent: Sent,
    /// Packets that the kernel dropped since a receive buffer of the server's process was full: never seen by it.
    pub kernel_drops: u64,
    /// The good client's calls before the attack.
    pub before: Calls,
    /// During it.
    pub during: Calls,
    /// Right after it.
    pub after: Calls,
    /// Resident memory of the server before, in kB.
    pub memory_before_kb: u64,
    /// At the end of the attack.
    pub memory_end_kb: u64,
    /// At the end of all waiting.
    pub memory_settled_kb: u64,
    /// How long it was waited for memory and RPCs to go, in seconds.
    pub settled_after_s: f64,
    /// What the server's counters grew by.
    pub server: Counters,
    /// RPCs that the server still held at the end.
    pub rpcs_live: u64,
    /// The server, or a handler in it, panicked.
    pub panicked: bool,
    /// What is wrong.
    pub faults: Vec<String>,
}

/// What counts as wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judge {
    /// Calls of the client that is listened to may fail.
    pub excused: bool,
    /// Whether times and memory count, which depend on the machine and what else it does.
    pub timed: bool,
}

impl Figures {
    /// Whether memory is back within a fifth of what it was.
    pub(super) const fn memory_is_back(before_kb: u64, now_kb: u64) -> bool {
        now_kb <= before_kb + before_kb / 5 + MEMORY_FLOOR_KB
    }

    /// Finds what is wrong.
    pub(super) fn judge(&self, judge: Judge) -> Vec<String> {
        let mut faults = Vec::new();
        for (phase, calls) in [
            ("before", &self.before),
            ("during", &self.during),
            ("after", &self.after),
        ] {
            let all = calls.good + calls.failed;
            if all == 0 {
                faults.push(format!("no good call was made {phase} the attack"));
            }
            if let Some(failure) = &calls.first_failure {
                let failed = calls.failed;
                faults.push(format!(
                    "{failed} of {all} good calls failed {phase}: {failure}"
                ));
            }
        }
        if let Some(failure) = &self.sent.observed_failure
            && !judge.excused
        {
            let failed = self.sent.observed_failed;
            faults.push(format!(
                "{failed} calls that were listened to failed: {failure}"
            ));
        }
        if self.sent.packets == 0 {
            faults.push("no packet was sent".to_owned());
        }
        if self.panicked {
            faults.push("the server panicked".to_owned());
        }
        if self.rpcs_live != 0 {
            faults.push(format!("{} RPCs are left", self.rpcs_live));
        }
        if judge.timed {
            faults.extend(self.judge_times_and_memory());
        }
        faults
    }

    fn judge_times_and_memory(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let most = (self.before.p99_us * SLOWER_MAX).max(P99_FLOOR_US);
        if self.after.p99_us > most {
            let (after, before) = (ms(self.after.p99_us), ms(self.before.p99_us));
            faults.push(format!(
                "P99 after: {after} ms, expected at most {} (before: {before})",
                ms(most)
            ));
        }
        let (before, settled) = (self.memory_before_kb, self.memory_settled_kb);
        if !Self::memory_is_back(before, settled) {
            faults.push(format!(
                "memory stayed at {} MB ({} before)",
                mb(settled),
                mb(before)
            ));
        }
        faults
    }
}

fn ms(micros: u64) -> String {
    format!("{:.2}", micros as f64 / 1e3)
}

fn mb(kb: u64) -> String {
    format!("{:.1}", kb as f64 / 1024.0)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = &self.sent;
        writeln!(
            f,
            "{:18} {} from {} sources at {}/s: {} packets, {:.1} MB in {:.1} s; {} not taken, {} dropped by the kernel",
            self.attack,
            self.uri,
            self.sources,
            self.rate,
            sent.packets,
            sent.bytes as f64 / 1e6,
            sent.millis as f64 / 1e3,
            sent.refused,
            self.kernel_drops,
        )?;
        for (phase, calls) in [
            ("before", &self.before),
            ("during", &self.during),
            ("after", &self.after),
        ] {
            writeln!(
                f,
                "  calls {phase:7} {} good, {} failed, P50 {} ms, P99 {} ms, longest {} ms",
                calls.good,
                calls.failed,
                ms(calls.p50_us),
                ms(calls.p99_us),
                ms(calls.max_us),
            )?;
        }
        writeln!(
            f,
            "  listened to   {} good, {} failed",
            sent.observed_good, sent.observed_failed
        )?;
        writeln!(
            f,
            "  memory        {} MB before, {} at the end, {} after {:.1} s; {} RPCs left",
            mb(self.memory_before_kb),
            mb(self.memory_end_kb),
            mb(self.memory_settled_kb),
            self.settled_after_s,
            self.rpcs_live,
        )?;
        let counters: Vec<_> = self
            .server
            .iter()
            .filter(|(_, value)| **value != 0)
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        writeln!(f, "  server        {}", counters.join(", "))?;
        if self.faults.is_empty() {
            return write!(f, "  ok");
        }
        write!(f, "  FAULT         {}", self.faults.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMED: Judge = Judge {
        excused: false,
        timed: true,
    };

    fn good() -> Figures {
        let calls = Calls {
            good: 100,
            p99_us: 6_000,
            ..Calls::default()
        };
        Figures {
            before: calls.clone(),
            during: calls.clone(),
            after: calls,
            sent: Sent {
                packets: 1,
                ..Sent::default()
            },
            memory_before_kb: 10_000,
            memory_settled_kb: 16_096,
            ..Figures::default()
        }
    }

    #[test]
    fn each_thing_that_is_wrong_is_a_fault_and_nothing_else() {
        assert_eq!(good().judge(TIMED), Vec::<String>::new());
        type Spoil = fn(&mut Figures);
        let spoilt: [(Spoil, &str); 9] = [
            (
                |f| f.during.first_failure = Some("x".into()),
                "failed during",
            ),
            (|f| f.after.first_failure = Some("x".into()), "failed after"),
            (
                |f| f.before = Calls::default(),
                "no good call was made before",
            ),
            (
                |f| f.sent.observed_failure = Some("x".into()),
                "listened to",
            ),
            (|f| f.sent.packets = 0, "no packet"),
            (|f| f.panicked = true, "panicked"),
            (|f| f.rpcs_live = 3, "3 RPCs are left"),
            (|f| f.after.p99_us = 12_001, "P99 after"),
            (|f| f.memory_settled_kb = 16_097, "memory stayed"),
        ];
        for (spoil, expected) in spoilt {
            let mut figures = good();
            spoil(&mut figures);
            let faults = figures.judge(TIMED);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(expected), "{faults:?}");
        }
    }

    #[test]
    fn times_and_memory_do_not_count_where_they_prove_nothing() {
        let mut figures = good();
        figures.after.p99_us = u64::MAX;
        figures.memory_settled_kb = u64::MAX;
        let judge = Judge {
            timed: false,
            ..TIMED
        };
        assert!(figures.judge(judge).is_empty());
        assert_eq!(figures.judge(TIMED).len(), 2);
    }

    #[test]
    fn tiny_times_may_be_more_than_twice_as_long() {
        let mut figures = good();
        figures.before.p99_us = 100;
        figures.after.p99_us = P99_FLOOR_US;
        assert!(figures.judge(TIMED).is_empty());
    }

    #[test]
    fn a_client_attacked_from_its_own_address_may_lose_calls() {
        let mut figures = good();
        figures.sent.observed_failure = Some("x".into());
        let judge = Judge {
            excused: true,
            ..TIMED
        };
        assert!(figures.judge(judge).is_empty());
    }
}
