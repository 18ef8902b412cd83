//! What is measured.

use clap::ValueEnum;
use clap::builder::PossibleValue;

/// Bytes of a small message's body, each way.
pub(crate) const SMALL_BYTES: usize = 100;
/// Bytes of an upload's body: what fits into one Homa message with its frame.
pub(crate) const BULK_BYTES: usize = 960_000;

/// A mix of calls, each kind repeated by a number of tasks, each of which makes one call at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    help: &'static str,
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

const SMALL: Scenario = Scenario {
    name: "latency_100B",
    help: "One call at a time, 100 bytes there and back",
    small: 1,
    bulk: 0,
    metric: Metric::Latency,
};
const BULK: Scenario = Scenario {
    name: "upload_1MB_c1",
    help: "960,000 bytes there, a few back",
    small: 0,
    bulk: 1,
    metric: Metric::Rate,
};

impl Scenario {
    pub(crate) const ALL: [Self; 6] = [
        SMALL,
        Self {
            name: "throughput_100B_c64",
            help: "64 such calls at a time",
            small: 64,
            metric: Metric::Rate,
            ..SMALL
        },
        Self {
            name: "throughput_100B_c256",
            help: "256 such calls at a time",
            small: 256,
            metric: Metric::Rate,
            ..SMALL
        },
        BULK,
        Self {
            name: "upload_1MB_c8",
            help: "8 such calls at a time",
            bulk: 8,
            ..BULK
        },
        Self {
            name: "hol_100B_behind_1MB",
            help: "Calls of 100 bytes, one at a time, while 8 uploads run on the same channel; its times \
                   are those of the small calls, its MB/s those of the uploads",
            bulk: 8,
            ..SMALL
        },
    ];
}

impl ValueEnum for Scenario {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.help))
    }
}
