//! What is measured.

/// Bytes of a small message's body, each way.
pub(crate) const SMALL_BYTES: usize = 100;
/// Bytes of an upload's body: what fits into one Homa message with its frame.
pub(crate) const BULK_BYTES: usize = 960_000;

/// A mix of calls, each kind repeated by a number of tasks, each of which makes one call at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Tasks that send 100 bytes and get them back.
    pub(crate) small: usize,
    /// Tasks that send 960,000 bytes and get a few.
    pub(crate) bulk: usize,
    /// What stacks are compared by.
    pub(crate) metric: Metric,
}

/// What stacks are compared by. The calls that count are the small ones if there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// The median time of a call.
    Latency,
    /// Calls per second.
    Rate,
}

pub(crate) const ALL: [Scenario; 6] = [
    Scenario::new("latency_100B", 1, 0, Metric::Latency),
    Scenario::new("throughput_100B_c64", 64, 0, Metric::Rate),
    Scenario::new("throughput_100B_c256", 256, 0, Metric::Rate),
    Scenario::new("upload_1MB_c1", 0, 1, Metric::Rate),
    Scenario::new("upload_1MB_c8", 0, 8, Metric::Rate),
    Scenario::new("hol_100B_behind_1MB", 1, 8, Metric::Latency),
];

impl Scenario {
    const fn new(name: &'static str, small: usize, bulk: usize, metric: Metric) -> Self {
        Self {
            name,
            small,
            bulk,
            metric,
        }
    }

    pub(crate) fn find(name: &str) -> Option<Self> {
        ALL.into_iter().find(|scenario| scenario.name == name)
    }
}
