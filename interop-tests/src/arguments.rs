//! What the command line says.

use std::path::PathBuf;

use clap::{Args, Parser};
use homa_interop::hostile::{Orders, Plan};
use homa_interop::options::within;
use homa_interop::wire::{Uri, Wire};

/// An echo server, and a client that checks one, of any implementation of Homa; attacks on a server of our own.
///
/// A URI is homa://HOST:PORT for IP protocol 146, the wire of the Linux kernel module, or
/// homa+udp://HOST:PORT for the same packets inside UDP.
///
/// The exit status is 0 if all is well, 1 if a check failed, 2 if nothing could be tried.
#[derive(Debug, PartialEq, Parser)]
#[command(name = "homa-interop", args_override_self = true)]
pub(crate) enum Command {
    /// Answers every message with its own bytes, until SIGINT or SIGTERM
    Serve {
        /// Where to listen; port 0 is a free one. The URI is printed
        #[arg(value_parser = remote)]
        uri: Uri,
        /// At the end, shows the counters of the socket that are not 0
        #[arg(long)]
        stats: bool,
    },
    Check(CheckOptions),
    Hostile(HostileOptions),
    /// The server of `hostile`
    #[command(hide = true, name = "hostile-server")]
    Victim {
        #[arg(value_parser = remote)]
        uri: Uri,
        core: Option<usize>,
    },
    /// The attacker of `hostile`
    #[command(hide = true, name = "hostile-attacker")]
    Attacker {
        #[arg(value_parser = orders)]
        orders: Orders,
    },
}

/// Calls an echo server, of this or any other implementation
///
/// Sends messages of many sizes, then many at once, and compares what comes back.
#[derive(Args, Debug, PartialEq, Eq)]
pub(crate) struct CheckOptions {
    /// The server
    #[arg(value_parser = remote)]
    pub(crate) uri: Uri,
    /// Longest message, 1 to 1000000 bytes
    #[arg(long = "max-size", value_name = "BYTES", default_value_t = 1_000_000)]
    #[arg(value_parser = within::<usize>(1..=1_000_000))]
    pub(crate) size_max: usize,
    /// Calls of the second check, 1 to 10000000
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = within::<usize>(1..=10_000_000))]
    pub(crate) count: usize,
    /// Of those in progress at a time, 1 to 100000; all of them by default
    #[arg(long, value_name = "N")]
    #[arg(value_parser = within::<usize>(1..=100_000))]
    pub(crate) concurrency: Option<usize>,
    /// At the end, shows the counters of the socket that are not 0
    #[arg(long)]
    pub(crate) stats: bool,
}

/// Attacks a server of its own on this machine while a good client calls it, and prints what came of that
#[derive(Args, Debug, PartialEq)]
pub(crate) struct HostileOptions {
    #[command(flatten)]
    pub(crate) plan: Plan,
    /// Writes the figures there too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl Command {
    /// The core to run on, if it matters.
    pub(crate) const fn core(&self) -> Option<usize> {
        match self {
            Self::Victim { core, .. } => *core,
            Self::Attacker { orders } => orders.core,
            _ => None,
        }
    }
}

/// A URI that others can reach.
fn remote(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match uri.wire() {
        Wire::Mem => Err("of use within one process only: expected homa:// or homa+udp://".into()),
        _ => Ok(uri),
    }
}

fn orders(json: &str) -> Result<Orders, String> {
    serde_json::from_str(json).map_err(|error| format!("expected JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use homa_interop::hostile::ATTACKS;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = line.split_ascii_whitespace();
        Command::try_parse_from(std::iter::once("homa-interop").chain(words))
    }

    fn plan(line: &str) -> Plan {
        match parse(line).unwrap() {
            Command::Hostile(options) => options.plan,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_of_check_have_defaults_and_can_be_given() {
        let uri: Uri = "homa://h:1".parse().unwrap();
        let defaults = CheckOptions {
            uri: uri.clone(),
            size_max: 1_000_000,
            count: 1_000,
            concurrency: None,
            stats: false,
        };
        assert_eq!(parse("check homa://h:1").unwrap(), Command::Check(defaults));
        let given = CheckOptions {
            uri,
            size_max: 20,
            count: 3,
            concurrency: Some(2),
            stats: true,
        };
        let line = "check homa://h:1 --concurrency 2 --stats --max-size 20 --count 3";
        assert_eq!(parse(line).unwrap(), Command::Check(given));
    }

    #[test]
    fn options_of_hostile_have_defaults_and_can_be_given() {
        assert_eq!(plan("hostile"), Plan::default());
        assert_eq!(plan("hostile").attacks.len(), ATTACKS.len());
        assert_eq!(plan("hostile --attack all"), Plan::default());
        let line = "hostile --attack sizes,burst --wire raw --ip 6 --sources 3,7 --rate 10 \
                    --burst 20 --seconds 0.5 --around 1 --settle 2 --seed 9 --untimed --pin \
                    --json x.json";
        let plan = Plan {
            attacks: vec!["sizes", "burst"],
            wire: Wire::Homa,
            v6: true,
            sources: vec![3, 7],
            rate: 10,
            burst: 20,
            seconds: 0.5,
            around: 1.0,
            settle: 2.0,
            seed: 9,
            timed: false,
            pin: true,
        };
        let json = Some("x.json".into());
        let given = Command::Hostile(HostileOptions { plan, json });
        assert_eq!(parse(line).unwrap(), given);
    }

    #[test]
    fn help_is_given_wherever_it_is_asked_for() {
        for line in [
            "--help",
            "-h",
            "help",
            "serve --help",
            "check -h",
            "hostile -h",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 0, "{line}");
            assert!(error.to_string().contains("Usage"), "{line}");
        }
        let all = parse("hostile --help").unwrap_err().to_string();
        for attack in &ATTACKS {
            assert!(all.contains(attack.name), "{all}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (line, expected) in [
            ("", "serve"),
            ("dance", "'dance'"),
            ("serve", "<URI>"),
            ("serve h:1", "homa+udp://host:port"),
            ("serve homa+mem://x", "one process"),
            ("hostile-attacker {", "JSON"),
            ("serve homa://h:1 --stats --count 1", "--count"),
            ("check homa://h:1 --wrong", "--wrong"),
            ("check homa://h:1 --count", "--count <N>"),
            (
                "check homa://h:1 --max-size 0",
                "'0' for '--max-size <BYTES>': expected 1 to 1000000",
            ),
            ("check homa://h:1 --concurrency -1", "-1"),
            ("hostile --attack kindness", "burst-unreachable"),
            (
                "hostile --wire tcp",
                "'tcp' for '--wire <WIRE>': expected udp or raw",
            ),
            ("hostile --ip 5", "expected 4 or 6"),
            (
                "hostile --sources 1,x",
                "'x' for '--sources <N>': expected 1 to 10000",
            ),
            ("hostile --seconds=-1", "expected 0 to 86400"),
            ("hostile --seconds nan", "expected 0 to 86400"),
            ("hostile --rate 0", "expected 1 to 10000000"),
            ("hostile --rate", "--rate <N>"),
            ("hostile --json", "--json <FILE>"),
            ("hostile --fast", "--fast"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(expected), "{line}: {error}");
        }
    }
}
