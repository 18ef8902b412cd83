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
    /// 99th percentile of the slowdown at 80 % load.
    pub(crate) p99_at_80: f64,
    /// The same at 50 % load.
    pub(crate) p99_at_50: f64,
}

impl Published {
    /// The 99th percentile at `load`, if that was published.
    pub(crate) fn p99(&self, load: f64) -> Option<f64> {
        let at = |percent: f64| (load * 100.0 - percent).abs() < 1e-9;
        if at(80.0) {
            Some(self.p99_at_80)
        } else if at(50.0) {
            Some(self.p99_at_50)
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
            p99_at_80: fields.next()?.parse().ok()?,
            p99_at_50: fields.next()?.parse().ok()?,
        })
    };
    TABLE.lines().filter_map(bin).collect()
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
                    .map(|bin| (bin.percent_of_messages, bin.p99(load).unwrap()));
                let mean = short_half(pairs);
                assert!((mean - published).abs() < 0.0055, "{workload:?}: {mean}");
            }
            assert_eq!(bins[0].p99(0.7), None);
        }
    }
}
