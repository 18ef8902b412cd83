//! The command line of `homa-bench simulate`.

use std::path::PathBuf;

use homa_transport::sim::Workload;

use super::settings::Mode;

/// What is printed for `--help`.
pub(crate) const USAGE: &str = "\
usage: homa-bench simulate [--workload W] [--load L] [--mode M] [--seconds S]
                           [--hosts N] [--seed N] [--json FILE] [--csv FILE]

Runs the experiment of the SIGCOMM 2018 paper: one-way messages between hosts of a
leaf-spine network. Prints the slowdown by message size beside the published one.

  --workload W   w1 to w5, several with commas (default w3)
  --load L       share of the host links' bandwidth, several with commas (default 0.8)
  --mode M       overlay: the paper's rules, comparable with its figures (default)
                 ours: our headers, default settings
  --seconds S    simulated time in which messages begin; the first third is not
                 measured (default 0.3)
  --hosts N      16 per rack, or fewer than 16 on one switch (default 144)
  --seed N       seed of all chance (default 1)
  --json FILE    writes the results as a list of objects
  --csv FILE     writes the results as one row per size bin";

/// What to run.
#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) loads: Vec<f64>,
    pub(crate) mode: Mode,
    pub(crate) seconds: f64,
    pub(crate) hosts: usize,
    pub(crate) seed: u64,
    pub(crate) json: Option<PathBuf>,
    pub(crate) csv: Option<PathBuf>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            workloads: vec![Workload::W3],
            loads: vec![0.8],
            mode: Mode::Overlay,
            seconds: 0.3,
            hosts: 144,
            seed: 1,
            json: None,
            csv: None,
        }
    }
}

impl Arguments {
    /// Reads the arguments after `simulate`; `None` asks for help.
    ///
    /// # Errors
    /// Says which argument is wrong, and what was expected.
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Option<Self>, String> {
        let mut parsed = Self::default();
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                return Ok(None);
            }
            if !NAMES.contains(&name.as_str()) {
                return Err(format!(
                    "no argument `{name}`, there are {}",
                    NAMES.join(", ")
                ));
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value"))?;
            parsed.set(&name, &value)?;
        }
        Ok(Some(parsed))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |expected: &str| format!("{name} is {expected}, not `{value}`");
        match name {
            "--workload" => {
                let all = value.split(',').map(workload).collect::<Option<Vec<_>>>();
                self.workloads = all.ok_or_else(|| wrong("w1 to w5, or several with commas"))?;
            }
            "--load" => {
                let all = value
                    .split(',')
                    .map(|load| number(load, 0.01, 1.0))
                    .collect::<Option<Vec<_>>>();
                self.loads = all.ok_or_else(|| wrong("0.01 to 1, or several with commas"))?;
            }
            "--mode" => {
                self.mode = match value {
                    "overlay" => Mode::Overlay,
                    "ours" => Mode::Ours,
                    _ => return Err(wrong("overlay or ours")),
                };
            }
            "--seconds" => {
                let seconds = number(value, 1e-5, 100.0);
                self.seconds = seconds.ok_or_else(|| wrong("0.00001 to 100"))?;
            }
            "--hosts" => {
                let hosts = value.parse().ok();
                let valid = |hosts: &usize| {
                    (2..16).contains(hosts)
                        || (hosts.is_multiple_of(16) && (16..=1024).contains(hosts))
                };
                self.hosts = hosts
                    .filter(valid)
                    .ok_or_else(|| wrong("2 to 16, or a multiple of 16 up to 1,024"))?;
            }
            "--seed" => self.seed = value.parse().map_err(|_| wrong("a whole number"))?,
            "--json" => self.json = Some(value.into()),
            _ => self.csv = Some(value.into()),
        }
        Ok(())
    }
}

const NAMES: [&str; 8] = [
    "--workload",
    "--load",
    "--mode",
    "--seconds",
    "--hosts",
    "--seed",
    "--json",
    "--csv",
];

fn workload(name: &str) -> Option<Workload> {
    Workload::ALL
        .into_iter()
        .find(|workload| super::settings::name(*workload).eq_ignore_ascii_case(name))
}

fn number(text: &str, low: f64, high: f64) -> Option<f64> {
    text.parse()
        .ok()
        .filter(|value| (low..=high).contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn all_arguments_are_read() {
        let line = "--workload w1,W5 --load 0.8,0.5 --mode ours --seconds 0.01 --hosts 32 \
                    --seed 7 --json a.json --csv b.csv";
        let expected = Arguments {
            workloads: vec![Workload::W1, Workload::W5],
            loads: vec![0.8, 0.5],
            mode: Mode::Ours,
            seconds: 0.01,
            hosts: 32,
            seed: 7,
            json: Some("a.json".into()),
            csv: Some("b.csv".into()),
        };
        assert_eq!(parse(line), Ok(Some(expected)));
        assert_eq!(parse(""), Ok(Some(Arguments::default())));
        assert_eq!(parse("--load 0.5 --help"), Ok(None));
    }

    #[test]
    fn an_error_names_the_argument_and_what_is_allowed() {
        for (line, part) in [
            ("--workload w6", "--workload is w1 to w5"),
            ("--load 80", "--load is 0.01 to 1"),
            ("--load NaN", "--load is 0.01 to 1"),
            ("--mode theirs", "--mode is overlay or ours"),
            ("--hosts 17", "a multiple of 16"),
            ("--hosts 1", "2 to 16"),
            ("--seconds 0", "--seconds is 0.00001 to 100"),
            ("--seed -1", "a whole number, not `-1`"),
            ("--json", "--json needs a value"),
            ("--jason x", "no argument `--jason`"),
            ("w3", "no argument `w3`"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
