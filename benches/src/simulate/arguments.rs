//! The command line of `homa-bench simulate`.

use std::path::PathBuf;

use clap::Args;
use homa_transport::sim::Workload;

use super::settings::{self, Mode};
use crate::arguments::within;

/// Runs the experiment of the SIGCOMM 2018 paper.
///
/// One-way messages between hosts of a leaf-spine network. Prints the slowdown by message size beside the
/// published one.
#[derive(Args, Clone, Debug, PartialEq)]
pub(crate) struct Arguments {
    /// w1 to w5, several with commas
    #[arg(
        long = "workload",
        value_name = "W",
        value_delimiter = ',',
        default_value = "w3"
    )]
    #[arg(value_parser = workload)]
    pub(crate) workloads: Vec<Workload>,
    /// Share of the host links' bandwidth, 0.01 to 1, several with commas
    #[arg(
        long = "load",
        value_name = "L",
        value_delimiter = ',',
        default_value = "0.8"
    )]
    #[arg(value_parser = within(0.01..=1.0))]
    pub(crate) loads: Vec<f64>,
    /// Whose rules
    #[arg(long, value_name = "M", value_enum, default_value = "overlay")]
    pub(crate) mode: Mode,
    /// Simulated time in which messages begin, 0.00001 to 100 seconds; its first third is not measured
    #[arg(long, value_name = "S", default_value = "0.3", value_parser = within(1e-5..=100.0))]
    pub(crate) seconds: f64,
    /// 2 to 16 on one switch, or a multiple of 16 up to 1,024, with 16 per rack
    #[arg(long, value_name = "N", default_value = "144", value_parser = hosts)]
    pub(crate) hosts: usize,
    /// Seed of all chance, a whole number of 64 bits
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        allow_negative_numbers = true, value_parser = within(0..=u64::MAX))]
    pub(crate) seed: u64,
    /// Writes the results there as a list of objects
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes the results there as one row per size bin
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
}

fn workload(text: &str) -> Result<Workload, &'static str> {
    let named = |workload: &Workload| settings::name(*workload).eq_ignore_ascii_case(text);
    let found = Workload::ALL.into_iter().find(named);
    found.ok_or("expected w1 to w5")
}

fn hosts(text: &str) -> Result<usize, &'static str> {
    let valid = |hosts: &usize| match hosts {
        2..=16 => true,
        _ => hosts.is_multiple_of(16) && (16..=1024).contains(hosts),
    };
    let hosts = text.parse().ok().filter(valid);
    hosts.ok_or("expected 2 to 16, or a multiple of 16 up to 1,024")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::parse;

    #[test]
    fn all_arguments_are_read() {
        let defaults = Arguments {
            workloads: vec![Workload::W3],
            loads: vec![0.8],
            mode: Mode::Overlay,
            seconds: 0.3,
            hosts: 144,
            seed: 1,
            json: None,
            csv: None,
        };
        assert_eq!(parse(""), Ok(defaults));
        let line = "--workload w1,W5 --load 0.8,0.5 --mode ours --seconds 0.01 --hosts 32 \
                    --seed 7 --json a.json --csv b.csv";
        let given = Arguments {
            workloads: vec![Workload::W1, Workload::W5],
            loads: vec![0.8, 0.5],
            mode: Mode::Ours,
            seconds: 0.01,
            hosts: 32,
            seed: 7,
            json: Some("a.json".into()),
            csv: Some("b.csv".into()),
        };
        assert_eq!(parse(line), Ok(given));
    }

    #[test]
    fn an_error_names_the_argument_and_what_is_allowed() {
        for (line, parts) in [
            ("--workload w6", ["--workload", "expected w1 to w5"]),
            ("--load 80", ["--load", "expected 0.01 to 1"]),
            ("--load NaN", ["--load", "expected 0.01 to 1"]),
            ("--mode theirs", ["--mode", "overlay, ours"]),
            ("--hosts 17", ["--hosts", "a multiple of 16"]),
            ("--hosts 1", ["--hosts", "2 to 16"]),
            ("--seconds 0", ["--seconds", "expected 0.00001 to 100"]),
            (
                "--seed -1",
                ["'-1' for '--seed", "expected 0 to 18446744073709551615"],
            ),
            ("--json", ["--json", "value is required"]),
            ("--jason x", ["--jason", "unexpected argument"]),
            ("w3", ["'w3'", "unexpected argument"]),
        ] {
            let error = parse::<Arguments>(line).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
