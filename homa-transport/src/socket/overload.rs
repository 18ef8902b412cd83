//! What a socket had to refuse or drop goes to the log, once a second at most.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::stats::Stats;
use crate::units::Instant;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counters to be told of, each with the number in one interval from which on that is unusual: some of
/// what counts here happens to healthy peers too.
const REASONS: &[(&str, u64)] = &[
    ("receive_drops", 1),
    ("requests_refused", 1),
    ("malformed_truncated", 1),
    ("malformed_type", 1),
    ("malformed_field", 1),
    ("wrong_port", 100),
    ("data_contradictory", 1),
    ("data_ungranted", 100),
    ("rpc_not_found", 1_000),
    ("duplicate_requests", 1_000),
    ("requests_unserved", 100),
    ("requests_incomplete", 100),
    ("messages_deferred", 100),
    ("responses_held", 1_000),
    ("peers_given_up", 10),
    ("delivered_ids_evicted", 1),
];

/// The counters at the last look.
#[derive(Debug)]
pub(super) struct OverloadLog {
    last: Stats,
    next: Instant,
}

impl OverloadLog {
    pub(super) fn new() -> Self {
        Self {
            last: Stats::default(),
            next: Instant::ZERO,
        }
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Looks at the counters of the socket at `local`.
    pub(super) fn look(&mut self, now: Instant, local: SocketAddr, stats: Stats) {
        self.next = now + INTERVAL;
        let counts = counts(&self.last, &stats);
        self.last = stats;
        if !counts.is_empty() {
            tracing::warn!(%local, "overload or attack: {counts} since the last second");
        }
    }
}

/// What has grown unusually, by name.
fn counts(before: &Stats, now: &Stats) -> String {
    let mut text = String::new();
    for ((name, _, now), (_, _, before)) in now.iter().zip(before.iter()) {
        let grown = now.saturating_sub(before);
        let unusual = REASONS
            .iter()
            .any(|(reason, from)| *reason == name && grown >= *from);
        if unusual {
            let separator = if text.is_empty() { "" } else { ", " };
            let _infallible = write!(text, "{separator}{name} {grown}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_a_counter() {
        let stats = Stats::default();
        for (reason, _) in REASONS {
            assert!(stats.iter().any(|(name, _, _)| name == *reason), "{reason}");
        }
    }

    #[test]
    fn only_what_has_grown_unusually_is_told() {
        let mut before = Stats::default();
        before.requests_refused = 5;
        let mut now = before;
        now.requests_refused = 12;
        now.rpc_not_found = 3;
        now.malformed_type = 2;
        now.packets_received = 1_000_000;
        assert_eq!(
            counts(&before, &now),
            "malformed_type 2, requests_refused 7"
        );
        assert_eq!(counts(&now, &now), "");
    }
}
