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
    /// Tasks that send `bulk_bytes` and get a few.
    pub(crate) bulk: usize,
    pub(crate) bulk_bytes: usize,
    /// One stream instead of calls.
    pub(crate) stream: Option<Stream>,
    /// What stacks are compared by.
    pub(crate) metric: Metric,
}

/// What is done with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The server sends items of so many bytes in one call, as many as it can.
    Items { bytes: usize },
    /// Calls, one after the other, each with one item of 100 bytes; their time is that to the item.
    FirstItem,
    /// In one call, 100 bytes there and back, one after the other.
    PingPong,
}

/// What stacks are compared by. The calls that count are the small ones if there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// The median time of a call.
    Latency,
    /// Calls per second, or items per second.
    Rate,
}

const SMALL: Scenario = Scenario {
    name: "latency_100B",
    help: "One call at a time, 100 bytes there and back",
    small: 1,
    bulk: 0,
    bulk_bytes: BULK_BYTES,
    stream: None,
    metric: Metric::Latency,
};
const BULK: Scenario = Scenario {
    name: "upload_1MB_c1",
    help: "960,000 bytes there, a few back",
    small: 0,
    bulk: 1,
    metric: Metric::Rate,
    ..SMALL
};
const STREAM: Scenario = Scenario { small: 0, ..SMALL };

impl Scenario {
    pub(crate) const ALL: [Self; 11] = [
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
        Self {
            name: "unary_4MB",
            help: "4,000,000 bytes there, a few back, one call at a time",
            bulk_bytes: 4_000_000,
            ..BULK
        },
        Self {
            name: "stream_100B",
            help: "Items of 100 bytes from the server, as many as possible in one call; calls/s are items/s, \
                   times those of an item, each the mean of 100",
            stream: Some(Stream::Items { bytes: SMALL_BYTES }),
            metric: Metric::Rate,
            ..STREAM
        },
        Self {
            name: "stream_1MB",
            help: "The same with items of 960,000 bytes, each with a time of its own",
            stream: Some(Stream::Items { bytes: BULK_BYTES }),
            metric: Metric::Rate,
            ..STREAM
        },
        Self {
            name: "stream_first_item",
            help: "From the beginning of a call to its first item of 100 bytes, one call at a time",
            stream: Some(Stream::FirstItem),
            ..STREAM
        },
        Self {
            name: "stream_pingpong",
            help: "100 bytes there and back in one call, one item at a time",
            stream: Some(Stream::PingPong),
            ..STREAM
        },
    ];

    /// Whether bare sockets do the same.
    pub(crate) const fn has_floor(&self) -> bool {
        self.stream.is_none() && self.bulk_bytes == BULK_BYTES
    }
}

impl ValueEnum for Scenario {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.help))
    }
}
