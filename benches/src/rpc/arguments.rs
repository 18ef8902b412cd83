//! The command line of `homa-bench rpc`.

use std::path::PathBuf;

use super::scenario::{self, Scenario};
use super::stack::Stack;

/// What is printed for `--help`.
pub(crate) const USAGE: &str = "\
usage: homa-bench rpc [--quick] [--scenarios S,...] [--stacks S,...] [--rounds N]
                      [--seconds S] [--cores CLIENT,SERVER] [--sleeping] [--json FILE]

Compares homa-rpc with tonic (gRPC over TCP) and with bare sockets. Client and server
are two processes, pinned to one core each; the same messages, the same allocator
(mimalloc); rounds of the stacks take turns, so that noise of the machine hits all.

  --quick        3 rounds of 0.2 s instead of 7 of 0.5 s
  --scenarios S  one or several with commas (default all):
                   latency_100B         one call at a time, 100 bytes there and back
                   throughput_100B_c64  64 such calls at a time
                   throughput_100B_c256 256
                   upload_1MB_c1        960,000 bytes there, a few back
                   upload_1MB_c8        8 such calls at a time
                   hol_100B_behind_1MB  calls of 100 bytes, one at a time, while 8 uploads
                                        run on the same channel; its times are those of
                                        the small calls, its MB/s those of the uploads
  --stacks S     one or several with commas (default all):
                   tonic       HTTP/2 over TCP, large windows for small calls, adaptive
                               windows for bulk
                   homa+udp    Homa in UDP datagrams
                   homa-raw    Homa as IP protocol 146, from userspace
                   homa-kernel Homa as IP protocol 146, by the kernel module
                   homa+mem    within one process (server CPU is the client's)
                   floor-udp   bare UDP: trains of datagrams, no recovery
                   floor-tcp   bare TCP: one connection, messages one after the other
  --rounds N     rounds of each stack and scenario, 1 to 1,000
  --seconds S    length of a round, 0.01 to 600
  --cores C,S    cores for client and server (default the first two that are allowed)
  --sleeping     without busy polling: sockets sleep as soon as nothing is there
  --json FILE    writes the results: a list with an object per scenario and stack

The ratio is that to tonic, above 1 where better: tonic's P50 / the stack's in latency_100B
and hol_100B_behind_1MB, the stack's calls per second / tonic's otherwise. It is the median
of the rounds' ratios, with the least and the greatest. Stacks that cannot run here are
named with the reason, and are not in the file.";

/// What to run.
#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) stacks: Vec<Stack>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) cores: Option<(usize, usize)>,
    pub(crate) polling: bool,
    pub(crate) json: Option<PathBuf>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            scenarios: scenario::ALL.to_vec(),
            stacks: Stack::ALL.to_vec(),
            rounds: 7,
            seconds: 0.5,
            cores: None,
            polling: true,
            json: None,
        }
    }
}

impl Arguments {
    /// Reads the arguments after `rpc`; `None` asks for help.
    ///
    /// # Errors
    /// Says which argument is wrong, and what was expected.
    pub(crate) fn parse(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Option<Self>, String> {
        let mut parsed = Self::default();
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => (parsed.rounds, parsed.seconds) = (3, 0.2),
                "--sleeping" => parsed.polling = false,
                name if NAMES.contains(&name) => {
                    let value = arguments.next();
                    let value = value.ok_or_else(|| format!("{name} needs a value"))?;
                    parsed.set(name, &value)?;
                }
                _ => {
                    let known = NAMES.join(", ");
                    return Err(format!(
                        "no argument `{name}`, there are --quick, --sleeping, {known}"
                    ));
                }
            }
        }
        Ok(Some(parsed))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |expected: &str| format!("{name} is {expected}, not `{value}`");
        let listed = |names: Vec<&str>| wrong(&format!("one or several of {}", names.join(", ")));
        match name {
            "--scenarios" => {
                let names = || scenario::ALL.iter().map(|known| known.name).collect();
                self.scenarios = list(value, Scenario::find).ok_or_else(|| listed(names()))?;
            }
            "--stacks" => {
                let names = || Stack::ALL.iter().map(|known| known.name()).collect();
                self.stacks = list(value, Stack::find).ok_or_else(|| listed(names()))?;
            }
            "--rounds" => {
                let rounds = value.parse().ok().filter(|n| (1..=1_000).contains(n));
                self.rounds = rounds.ok_or_else(|| wrong("1 to 1,000"))?;
            }
            "--seconds" => {
                let seconds = value.parse().ok().filter(|s| (0.01..=600.0).contains(s));
                self.seconds = seconds.ok_or_else(|| wrong("0.01 to 600"))?;
            }
            "--cores" => {
                let cores = value.split_once(',');
                let cores = cores.and_then(|(a, b)| a.parse().ok().zip(b.parse().ok()));
                self.cores = Some(cores.ok_or_else(|| wrong("two numbers with a comma"))?);
            }
            _ => self.json = Some(value.into()),
        }
        Ok(())
    }
}

const NAMES: [&str; 6] = [
    "--scenarios",
    "--stacks",
    "--rounds",
    "--seconds",
    "--cores",
    "--json",
];

fn list<T>(value: &str, find: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    value.split(',').map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Arguments>, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn all_arguments_are_read() {
        let line = "--quick --scenarios latency_100B,upload_1MB_c8 --stacks homa+udp,tonic \
                    --rounds 5 --cores 1,0 --sleeping --json a.json";
        let expected = Arguments {
            scenarios: vec![
                Scenario::find("latency_100B").unwrap(),
                Scenario::find("upload_1MB_c8").unwrap(),
            ],
            stacks: vec![Stack::HomaUdp, Stack::Tonic],
            rounds: 5,
            seconds: 0.2,
            cores: Some((1, 0)),
            polling: false,
            json: Some("a.json".into()),
        };
        assert_eq!(parse(line), Ok(Some(expected)));
        assert_eq!(parse(""), Ok(Some(Arguments::default())));
        assert_eq!(parse("--quick -h"), Ok(None));
    }

    #[test]
    fn an_error_names_the_argument_and_what_is_allowed() {
        for (line, part) in [
            (
                "--scenarios latency",
                "--scenarios is one or several of latency_100B",
            ),
            ("--stacks grpc", "--stacks is one or several of tonic"),
            ("--rounds 0", "--rounds is 1 to 1,000, not `0`"),
            ("--seconds NaN", "--seconds is 0.01 to 600"),
            ("--cores 1", "two numbers with a comma"),
            ("--json", "--json needs a value"),
            ("--fast", "no argument `--fast`"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
