//! How long messages are and when they come: the five workloads of the Homa papers.

use std::time::Duration;

use super::random::Random;

/// A workload of the Homa papers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Values of Facebook's memcached pool "ETC". Most messages have less than 100 bytes.
    W1,
    /// RPCs of Google's web search.
    W2,
    /// All RPCs of a Google datacenter.
    W3,
    /// A Facebook Hadoop cluster.
    W4,
    /// Web search of the DCTCP paper. Half of the messages have more than 70 kB.
    W5,
}

impl Workload {
    /// All five.
    pub const ALL: [Self; 5] = [Self::W1, Self::W2, Self::W3, Self::W4, Self::W5];

    /// Its message sizes as the benchmarks of the Linux module have them.
    #[must_use]
    pub fn sizes(self) -> Sizes {
        Sizes::parse(match self {
            Self::W1 => include_str!("workloads/w1.csv"),
            Self::W2 => include_str!("workloads/w2.csv"),
            Self::W3 => include_str!("workloads/w3.csv"),
            Self::W4 => include_str!("workloads/w4.csv"),
            Self::W5 => include_str!("workloads/w5.csv"),
        })
    }

    /// Its message sizes as the simulations of the SIGCOMM 2018 paper had them.
    #[must_use]
    pub fn sizes_sigcomm18(self) -> Sizes {
        let mut sizes = Sizes::parse(match self {
            Self::W1 => include_str!("workloads/sigcomm18/w1.csv"),
            Self::W2 => include_str!("workloads/sigcomm18/w2.csv"),
            Self::W3 => include_str!("workloads/sigcomm18/w3.csv"),
            Self::W4 => include_str!("workloads/sigcomm18/w4.csv"),
            Self::W5 => include_str!("workloads/sigcomm18/w5.csv"),
        });
        if self == Self::W1 {
            sizes.tail = Some(Pareto::W1);
        }
        sizes
    }
}

/// A distribution of message sizes.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Sizes, and the share of messages that are not longer; both ascending.
    steps: Vec<(u32, f64)>,
    /// What lies above the last step, if that is not 1.
    tail: Option<Pareto>,
    longest: u32,
}

/// The tail of a generalised Pareto distribution.
#[derive(Clone, Copy, Debug)]
struct Pareto {
    location: f64,
    scale: f64,
    shape: f64,
    /// Share of the messages in the tail.
    share: f64,
}

impl Pareto {
    /// Source: the workload generator of PlatformLab/HomaSimulation, after Atikoglu et al.,
    /// SIGMETRICS 2012, table 5.
    const W1: Self = Self {
        location: 15.0,
        scale: 214.476,
        shape: 0.348_238,
        share: 0.53,
    };

    fn size(&self, share_below: f64) -> f64 {
        let growth = (self.share / (1.0 - share_below)).powf(self.shape) - 1.0;
        self.location + growth * self.scale / self.shape
    }
}

impl Sizes {
    /// Every message has `size` bytes.
    #[must_use]
    pub fn constant(size: u32) -> Self {
        Self {
            steps: vec![(size, 1.0)],
            tail: None,
            longest: u32::MAX,
        }
    }

    /// Eleven sizes from `shortest` to `longest`, each the same number of times as long as the one before
    /// and as frequent.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes are positive, and the cast saturates"
    )]
    pub fn between(shortest: u32, longest: u32) -> Self {
        let ratio = f64::from(longest) / f64::from(shortest.max(1));
        let step = |number: u32| {
            let size = f64::from(shortest) * ratio.powf(f64::from(number) / 10.0);
            (size.round() as u32, f64::from(number + 1) / 11.0)
        };
        Self {
            steps: (0..11).map(step).collect(),
            tail: None,
            longest,
        }
    }

    /// Longer messages are cut to `longest` bytes.
    #[must_use]
    pub const fn at_most(mut self, longest: u32) -> Self {
        self.longest = longest;
        self
    }

    fn parse(table: &str) -> Self {
        let step = |line: &str| {
            let (size, share) = line.split_once(',')?;
            Some((size.parse().ok()?, share.parse().ok()?))
        };
        Self {
            steps: table.lines().filter_map(step).collect(),
            tail: None,
            longest: u32::MAX,
        }
    }

    /// A size drawn by chance.
    pub fn sample(&self, random: &mut Random) -> u32 {
        self.quantile(random.unit()).min(self.longest)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes are positive, and the cast saturates"
    )]
    fn quantile(&self, share_below: f64) -> u32 {
        let at = self
            .steps
            .partition_point(|(_, share)| *share < share_below);
        match (self.steps.get(at), &self.tail) {
            (Some((size, _)), _) => *size,
            (None, Some(tail)) => tail.size(share_below).round() as u32,
            (None, None) => self.steps.last().map_or(1, |(size, _)| *size),
        }
    }

    /// The steps: sizes, and the share of messages that are not longer.
    pub fn steps(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        self.steps.iter().copied()
    }

    /// Mean of what [`Sizes::sample`] yields, by its definition.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let mut below = 0.0;
        let mut mean = 0.0;
        for (size, share) in &self.steps {
            mean += f64::from((*size).min(self.longest)) * (share - below);
            below = *share;
        }
        if let Some(tail) = &self.tail {
            mean += tail.share * (tail.location + tail.scale / (1.0 - tail.shape));
        }
        mean
    }
}

/// When a host begins calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At random times, whatever became of earlier ones: a Poisson process with this mean interval.
    Poisson(Duration),
    /// So many at a time; each one that ends is followed by the next after a pause.
    Closed {
        /// Calls at a time.
        outstanding: usize,
        /// Mean of the pauses.
        pause: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_means_are_those_of_the_literature() {
        let means = [189.2, 441.6, 2_927.7, 127_796.6, 2_564_689.7];
        let sigcomm = [185.0, 440.8, 2_927.4, 127_796.6, 2_515_863.0];
        for (workload, (mean, sigcomm)) in Workload::ALL
            .into_iter()
            .zip(means.into_iter().zip(sigcomm))
        {
            let computed = workload.sizes().mean();
            assert!(
                (computed / mean - 1.0).abs() < 1e-3,
                "{workload:?}: {computed}"
            );
            let computed = workload.sizes_sigcomm18().mean();
            assert!(
                (computed / sigcomm - 1.0).abs() < 5e-3,
                "{workload:?}: {computed}"
            );
        }
        // Messages cut at a million bytes, as in table 3 of the ATC 2021 paper.
        for (workload, mean) in [(Workload::W4, 60_175.0), (Workload::W5, 385_315.0)] {
            let computed = workload.sizes().at_most(1_000_000).mean();
            assert!(
                (computed / mean - 1.0).abs() < 1e-3,
                "{workload:?}: {computed}"
            );
        }
    }

    #[test]
    fn samples_follow_the_table() {
        for workload in Workload::ALL {
            for sizes in [workload.sizes(), workload.sizes_sigcomm18()] {
                let sizes = sizes.at_most(1_000_000);
                let mut random = Random::new(1);
                let total: f64 = (0..200_000)
                    .map(|_| f64::from(sizes.sample(&mut random)))
                    .sum();
                let mean = total / 200_000.0;
                assert!(
                    (mean / sizes.mean() - 1.0).abs() < 0.05,
                    "{workload:?}: {mean}"
                );
            }
        }
    }

    #[test]
    fn the_table_is_a_step_function_with_the_smallest_and_the_largest_size() {
        let sizes = Workload::W1.sizes();
        assert_eq!(sizes.quantile(0.0), 8);
        assert_eq!(sizes.quantile(0.31095), 9);
        assert_eq!(sizes.quantile(0.999_999_999), 100_000);
        let sizes = Workload::W1.sizes_sigcomm18();
        assert_eq!((sizes.quantile(0.0), sizes.quantile(0.47)), (1, 15));
        assert_eq!(sizes.quantile(0.735), 183);
    }
}
