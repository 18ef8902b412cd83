//! The results of the SIGCOMM 2018 paper for Homa, by size bin.
//!
//! Source: the authors' table of results (figure 12), kept as
//! `inputs/homa-paper-reproduction/original-raw-data-from-paper.txt` in
//! serhatarslan-hub/HomaL4Protocol-ns-3 (3cac711).

use homa_transport::sim::Workload;

use super::settings::name;

const TABLE: &str = include_str!("published.csv");

/// Results of one size bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Published {
    /// Longest message of the bin, in bytes; it begins above that of the bin before.
    pub(crate) size_max: u32,
    /// Its share of all messages.
    pub(crate) percent_of_messages: f64,
    at_80: Slowdown,
    at_50: Slowdown,
}

/// Slowdown of the messages of a bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slowdown {
    pub(crate) mean: f64,
    /// 99th percentile.
    pub(crate) p99: f64,
}

impl Published {
    /// The slowdown at `load`, if that was published.
    pub(crate) fn at(&self, load: f64) -> Option<Slowdown> {
        let at = |percent: f64| (load * 100.0 - percent).abs() < 1e-9;
        if at(80.0) {
            Some(self.at_80)
        } else if at(50.0) {
            Some(self.at_50)
        } else {
            None
        }
    }
}

/// The size bins of a workload, ascending.
pub(crate) fn bins(workload: Workload) -> Vec<Published> {
    let bin = |line: &str| {
        let mut fields = line.split(',');
        if fields.next()? != name(workload) {
            return None;
        }
        Some(Published {
            size_max: fields.next()?.parse().ok()?,
            percent_of_messages: fields.next()?.parse().ok()?,
            at_80: slowdown(fields.next()?, fields.next()?)?,
            at_50: slowdown(fields.next()?, fields.next()?)?,
        })
    };
    TABLE.lines().filter_map(bin).collect()
}

fn slowdown(mean: &str, p99: &str) -> Option<Slowdown> {
    Some(Slowdown {
        mean: mean.parse().ok()?,
        p99: p99.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::slowdown::short_half;

    #[test]
    fn the_table_yields_the_published_means() {
        let counts = [83, 99, 102, 91, 87];
        let at_80 = [1.88, 1.97, 2.15, 1.97, 1.44];
        let at_50 = [1.74, 1.83, 1.97, 1.82, 1.30];
        for (index, workload) in Workload::ALL.into_iter().enumerate() {
            let bins = bins(workload);
            assert_eq!(bins.len(), counts[index]);
            let all: f64 = bins.iter().map(|bin| bin.percent_of_messages).sum();
            assert!((all - 100.0).abs() < 0.01);
            assert!(bins.is_sorted_by(|a, b| a.size_max < b.size_max));
            for (load, published) in [(0.8, at_80[index]), (0.5, at_50[index])] {
                let pairs = bins
                    .iter()
                    .map(|bin| (bin.percent_of_messages, bin.at(load).unwrap().p99));
                let mean = short_half(pairs);
                assert!((mean - published).abs() < 0.0055, "{workload:?}: {mean}");
            }
            assert_eq!(bins[0].at(0.7), None);
        }
    }
}
