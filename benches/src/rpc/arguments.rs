//! The command line of `homa-bench rpc`.

use std::path::PathBuf;

use clap::builder::ArgPredicate;
use clap::{ArgAction, Args};

use super::scenario::Scenario;
use super::stack::Stack;
use crate::arguments::within;

/// Compares homa-rpc with tonic (gRPC over TCP) and with bare sockets.
///
/// Client and server are two processes, pinned to one core each; the same messages, the same allocator
/// (mimalloc); rounds of the stacks take turns, so that noise of the machine hits all.
///
/// The ratio is that to tonic, above 1 where better: tonic's P50 / the stack's in latency_100B,
/// hol_100B_behind_1MB, stream_first_item and stream_pingpong, the stack's calls or items per second / tonic's
/// otherwise. It is the median of the rounds' ratios, with the least and the greatest. Bare sockets do not
/// stream. Stacks that cannot run here are named with the reason, and are not in the file.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(rename_all = "kebab-case")]
pub(crate) struct Arguments {
    /// 3 rounds of 0.2 s instead of 7 of 0.5 s
    #[arg(long)]
    quick: bool,
    /// One or several with commas; all by default
    #[arg(long, value_name = "S", value_enum, value_delimiter = ',', default_values_t = Scenario::ALL, hide_default_value = true)]
    pub(crate) scenarios: Vec<Scenario>,
    /// One or several with commas; all by default
    #[arg(long, value_name = "S", value_enum, value_delimiter = ',', default_values_t = Stack::ALL, hide_default_value = true)]
    pub(crate) stacks: Vec<Stack>,
    /// Rounds of each stack and scenario, 1 to 1,000
    #[arg(
        long,
        value_name = "N",
        default_value = "7",
        default_value_if("quick", ArgPredicate::Equals("true".into()), "3")
    )]
    #[arg(value_parser = within::<usize>(1..=1_000))]
    pub(crate) rounds: usize,
    /// Length of a round in seconds, 0.01 to 600
    #[arg(
        long,
        value_name = "S",
        default_value = "0.5",
        default_value_if("quick", ArgPredicate::Equals("true".into()), "0.2")
    )]
    #[arg(value_parser = within(0.01..=600.0))]
    pub(crate) seconds: f64,
    /// Cores for client and server; by default the first two that are allowed
    #[arg(long, value_name = "CLIENT,SERVER", value_parser = cores)]
    pub(crate) cores: Option<(usize, usize)>,
    /// Without busy polling: sockets sleep as soon as nothing is there
    #[arg(long = "sleeping", action = ArgAction::SetFalse)]
    pub(crate) polling: bool,
    /// Writes the results there: a list with an object per scenario and stack
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

fn cores(text: &str) -> Result<(usize, usize), &'static str> {
    let cores = text.split_once(',');
    let cores = cores.and_then(|(client, server)| client.parse().ok().zip(server.parse().ok()));
    cores.ok_or("expected two numbers with a comma")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::parse;

    #[test]
    fn all_arguments_are_read() {
        let defaults = Arguments {
            quick: false,
            scenarios: Scenario::ALL.to_vec(),
            stacks: Stack::ALL.to_vec(),
            rounds: 7,
            seconds: 0.5,
            cores: None,
            polling: true,
            json: None,
        };
        assert_eq!(parse(""), Ok(defaults));
        let line = "--quick --scenarios latency_100B,upload_1MB_c8 --stacks homa+udp,tonic \
                    --rounds 5 --cores 1,0 --sleeping --json a.json";
        let given = Arguments {
            quick: true,
            scenarios: vec![Scenario::ALL[0], Scenario::ALL[4]],
            stacks: vec![Stack::HomaUdp, Stack::Tonic],
            rounds: 5,
            seconds: 0.2,
            cores: Some((1, 0)),
            polling: false,
            json: Some("a.json".into()),
        };
        assert_eq!(parse(line), Ok(given));
        let rounds = parse("--quick").map(|quick: Arguments| quick.rounds);
        assert_eq!(rounds, Ok(3));
    }

    #[test]
    fn an_error_names_the_argument_and_what_is_allowed() {
        for (line, parts) in [
            ("--scenarios latency", ["--scenarios", "latency_100B, "]),
            ("--stacks grpc", ["--stacks", "tonic, homa+udp"]),
            ("--rounds 0", ["'0' for '--rounds", "expected 1 to 1000"]),
            ("--seconds NaN", ["--seconds", "expected 0.01 to 600"]),
            ("--cores 1", ["--cores", "two numbers with a comma"]),
            ("--json", ["--json", "value is required"]),
            ("--fast", ["--fast", "unexpected argument"]),
        ] {
            let error = parse::<Arguments>(line).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
