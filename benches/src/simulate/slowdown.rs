//! How much longer messages take than they would alone, by size.

use homa_transport::sim::Workload;

use super::published::{self, Published};

/// Nanoseconds per byte on a host's link, and on a link between switches.
const HOST_LINK: f64 = 0.8;
const FABRIC_LINK: f64 = 0.2;
/// Software and network card of both hosts, in nanoseconds.
const HOSTS: f64 = 1_500.0;
/// One switch, in nanoseconds.
const SWITCH: f64 = 250.0;

/// Time a message of `size` bytes takes at best, in nanoseconds, without any transport header.
///
/// Within a rack it lacks the delay of the switch, so that the slowdown of short messages there is
/// at least 1.15: the published curves were computed so.
/// Source: PlatformLab/HomaSimulation, `HomaTransport`.
pub(crate) fn ideal_nanos(size: u32, same_rack: bool) -> f64 {
    const PIECE: u32 = 1_472;
    let wire = |bytes: u32| f64::from((bytes + 28 + 38).max(84));
    let (full, rest) = (size / PIECE, size % PIECE);
    let rest_wire = if rest > 0 { wire(rest) } else { 0.0 };
    let all = f64::from(full) * wire(PIECE) + rest_wire;
    let first = wire(size.min(PIECE));
    let path = if same_rack {
        first * HOST_LINK
    } else {
        3.0 * SWITCH + first * HOST_LINK + 2.0 * first * FABRIC_LINK
    };
    all * HOST_LINK + HOSTS + path
}

/// Slowdowns of messages, by the size bins of the published curves.
#[derive(Debug)]
pub(crate) struct Slowdowns {
    bins: Vec<Bin>,
}

/// Slowdowns of messages of similar size.
#[derive(Debug)]
pub(crate) struct Bin {
    pub(crate) published: Published,
    pub(crate) messages: u64,
    sum: f64,
    least: f64,
    counts: Vec<u32>,
}

/// Classes of slowdowns per factor of e: quantiles are exact to 0.1 %.
const CLASSES_PER_E: f64 = 500.0;
/// From e^-0.5 to e^9.5 (13,000); what lies outside falls into the first or the last class.
const CLASSES: usize = 5_000;
const FIRST_CLASS: f64 = -0.5;

impl Slowdowns {
    pub(crate) fn new(workload: Workload) -> Self {
        let bins = published::bins(workload);
        Self {
            bins: bins
                .into_iter()
                .map(|published| Bin {
                    published,
                    messages: 0,
                    sum: 0.0,
                    least: f64::INFINITY,
                    counts: vec![0; CLASSES],
                })
                .collect(),
        }
    }

    /// Counts a message.
    pub(crate) fn add(&mut self, size: u32, slowdown: f64) {
        let at = self
            .bins
            .partition_point(|bin| bin.published.size_max < size)
            .min(self.bins.len().saturating_sub(1));
        if let Some(bin) = self.bins.get_mut(at) {
            bin.messages += 1;
            bin.sum += slowdown;
            bin.least = bin.least.min(slowdown);
            if let Some(count) = bin.counts.get_mut(class_of(slowdown)) {
                *count += 1;
            }
        }
    }

    pub(crate) fn bins(&self) -> &[Bin] {
        &self.bins
    }

    pub(crate) fn messages(&self) -> u64 {
        self.bins.iter().map(|bin| bin.messages).sum()
    }

    /// Mean of the bins' 99th percentiles over the shortest half of the messages, each bin by its
    /// share of them. The bin in which the half ends belongs to it.
    pub(crate) fn p99_short_half(&self) -> f64 {
        let bins = self.bins.iter();
        short_half(bins.map(|bin| (bin.messages as f64, bin.quantile(0.99))))
    }

    /// Mean of the slowdowns of the same messages.
    pub(crate) fn mean_short_half(&self) -> f64 {
        let bins = self.bins.iter();
        short_half(bins.map(|bin| (bin.messages as f64, bin.mean())))
    }
}

/// Mean of `(share, value)` pairs over the first half of the shares.
pub(crate) fn short_half(bins: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let all: f64 = bins.clone().map(|(share, _)| share).sum();
    let (mut seen, mut sum) = (0.0, 0.0);
    for (share, value) in bins.filter(|(share, _)| *share > 0.0) {
        if seen >= all / 2.0 {
            break;
        }
        seen += share;
        sum += share * value;
    }
    sum / seen
}

impl Bin {
    /// The least slowdown that at least `share` of the messages do not exceed, to 0.1 %.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.messages as f64 * share;
        let mut seen = 0_u64;
        for (class, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if *count > 0 && seen as f64 >= wanted {
                return ((class as f64 + 0.5) / CLASSES_PER_E + FIRST_CLASS).exp();
            }
        }
        f64::NAN
    }

    pub(crate) fn mean(&self) -> f64 {
        self.sum / self.messages as f64
    }

    /// The least slowdown of all.
    #[cfg(test)]
    pub(crate) const fn least(&self) -> f64 {
        self.least
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is wanted"
)]
fn class_of(slowdown: f64) -> usize {
    (((slowdown.ln() - FIRST_CLASS) * CLASSES_PER_E) as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ideal_times_are_the_published_ones() {
        for (size, far, near) in [
            (1, 2.418, 1.634),
            (100, 2.582, 1.766),
            (1_000, 4.382, 3.206),
            (1_472, 5.326, 3.961),
            (10_000, 12.465, 11.100),
            (100_000, 87.69, 86.32),
            (1_000_000, 840.0, 838.6),
            (10_000_000, 8_362.8, 8_361.5),
        ] {
            for (published, same_rack) in [(far, false), (near, true)] {
                let computed = ideal_nanos(size, same_rack) / 1_000.0;
                let error = (computed / published - 1.0_f64).abs();
                assert!(
                    error < 3e-4,
                    "{size} bytes: {computed} instead of {published}"
                );
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_the_messages_counted() {
        let mut slowdowns = Slowdowns::new(Workload::W3);
        for i in 0..1_000 {
            slowdowns.add(3, 1.0 + f64::from(i) / 1_000.0);
            slowdowns.add(20_000_000, 500.0);
        }
        let bins = slowdowns.bins();
        let first = bins.first().unwrap();
        assert!((first.quantile(0.99) / 1.989 - 1.0).abs() < 0.002);
        assert!((first.quantile(0.5) / 1.499 - 1.0).abs() < 0.002);
        assert!((first.mean() / 1.4995 - 1.0).abs() < 1e-9);
        assert!((bins.last().unwrap().quantile(0.99) / 500.0 - 1.0).abs() < 0.002);
        assert!((slowdowns.p99_short_half() / 1.989 - 1.0).abs() < 0.002);
        assert_eq!(slowdowns.messages(), 2_000);
    }
}
