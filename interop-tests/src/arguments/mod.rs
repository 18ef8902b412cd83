//! What the command line says.

mod hostile;

use std::str::FromStr;

use homa_interop::hostile::Orders;
use homa_interop::wire::{OpenError, Uri, Wire};

pub(crate) use hostile::HostileOptions;

pub(crate) const USAGE: &str = "\
usage: homa-interop serve URI [--stats]
       homa-interop check URI [OPTIONS]
       homa-interop hostile [OPTIONS]

commands:
  serve   answers every message with its own bytes, until SIGINT or SIGTERM
  check   calls such a server, of this or any other implementation, with messages of
          many sizes, then with many at once, and compares what comes back
  hostile attacks a server of its own on this machine while a good client calls it, and
          prints what came of that

URI:
  homa://HOST:PORT       IP protocol 146, the wire of the Linux kernel module
  homa+udp://HOST:PORT   the same packets inside UDP
  `serve` takes port 0 for a free one and prints the URI it listens on.

options of check:
  --max-size BYTES       longest message (default 1000000)
  --count N              calls of the second check (default 1000)
  --concurrency N        of those in progress at a time (default: all of them)

options of both:
  --stats                at the end, shows the counters of the socket that are not 0

options of hostile:
  --attack NAME,...|all  mutated, forged, forged-observed, unfinished, max-length, frames, sizes,
                         replays, burst, unreachable, burst-unreachable (default all)
  --wire udp|raw         default udp; raw needs root, and has a network namespace of its own
  --ip 4|6               default 4
  --sources N,...        ports or addresses to attack from, one after the other (default 1,5000)
  --rate N               packets per second (default 3000)
  --seconds S            length of each attack (default 60)
  --burst N              packets of a burst, 67296 per second (default 134592: two seconds)
  --around S             time before and after, in which good calls are measured (default 10)
  --settle S             time for memory to go back at most (default 300)
  --untimed              judge neither times nor memory; one server for all attacks
  --pin                  the server on core 0, the attacker on core 1
  --seed N               start of the random numbers (default 1)
  --json FILE            writes the figures there too

exit status: 0 if all is well, 1 if a check failed, 2 if nothing could be tried.";

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Help,
    Serve {
        uri: Uri,
        stats: bool,
    },
    Check(CheckOptions),
    Hostile(HostileOptions),
    /// The server of `hostile`.
    Victim {
        uri: Uri,
        core: Option<usize>,
    },
    /// The attacker of `hostile`.
    Attacker(Orders),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckOptions {
    pub(crate) uri: Uri,
    pub(crate) size_max: usize,
    pub(crate) count: usize,
    pub(crate) concurrency: Option<usize>,
    pub(crate) stats: bool,
}

/// What is wrong with the command line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgumentError {
    #[error("expected `serve`, `check` or `hostile`, got {0}")]
    Command(String),
    #[error("`{0}` needs a URI")]
    NoUri(&'static str),
    #[error(transparent)]
    Uri(#[from] OpenError),
    #[error("{0} is of use within one process only: expected homa:// or homa+udp://")]
    InProcess(Uri),
    #[error("{option} is one of {known}, got {got:?}")]
    Choice {
        option: &'static str,
        known: String,
        got: String,
    },
    #[error("{0} needs a file to write to")]
    NoFile(&'static str),
    #[error("orders of an attacker are JSON: {0}")]
    Orders(String),
    #[error("{option} needs a number of seconds from 0 to {max}, got {got:?}")]
    Seconds {
        option: &'static str,
        max: f64,
        got: String,
    },
    #[error("unknown argument {0:?}")]
    Unknown(String),
    #[error("{option} needs a number from 1 to {max}, got {got:?}")]
    Number {
        option: &'static str,
        max: usize,
        got: String,
    },
}

impl Command {
    /// The core to run on, if it matters.
    pub(crate) const fn core(&self) -> Option<usize> {
        match self {
            Self::Victim { core, .. } => *core,
            Self::Attacker(orders) => orders.core,
            _ => None,
        }
    }

    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, ArgumentError> {
        let arguments: Vec<String> = arguments.collect();
        if arguments.iter().any(|argument| is_help(argument)) {
            return Ok(Self::Help);
        }
        let mut arguments = arguments.into_iter();
        match arguments.next().as_deref() {
            Some("serve") => {
                let uri = uri("serve", arguments.next())?;
                let mut stats = false;
                for argument in arguments {
                    match argument.as_str() {
                        "--stats" => stats = true,
                        _ => return Err(ArgumentError::Unknown(argument)),
                    }
                }
                Ok(Self::Serve { uri, stats })
            }
            Some("check") => CheckOptions::parse(arguments).map(Self::Check),
            Some("hostile") => HostileOptions::parse(arguments).map(Self::Hostile),
            Some("hostile-server") => Ok(Self::Victim {
                uri: uri("hostile-server", arguments.next())?,
                core: arguments.next().and_then(|core| core.parse().ok()),
            }),
            Some("hostile-attacker") => {
                let orders = arguments.next().unwrap_or_default();
                let orders = serde_json::from_str(&orders);
                let orders = orders.map_err(|error| ArgumentError::Orders(error.to_string()))?;
                Ok(Self::Attacker(orders))
            }
            Some(other) => Err(ArgumentError::Command(format!("`{other}`"))),
            None => Err(ArgumentError::Command("nothing".to_owned())),
        }
    }
}

impl CheckOptions {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, ArgumentError> {
        let mut options = Self {
            uri: uri("check", arguments.next())?,
            size_max: 1_000_000,
            count: 1_000,
            concurrency: None,
            stats: false,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--max-size" => {
                    options.size_max = number("--max-size", 1_000_000, arguments.next())?;
                }
                "--count" => options.count = number("--count", 10_000_000, arguments.next())?,
                "--concurrency" => {
                    let number = number("--concurrency", 100_000, arguments.next())?;
                    options.concurrency = Some(number);
                }
                "--stats" => options.stats = true,
                _ => return Err(ArgumentError::Unknown(argument)),
            }
        }
        Ok(options)
    }
}

fn is_help(argument: &str) -> bool {
    matches!(argument, "--help" | "-h" | "help")
}

fn uri(command: &'static str, argument: Option<String>) -> Result<Uri, ArgumentError> {
    let argument = argument.ok_or(ArgumentError::NoUri(command))?;
    let uri: Uri = argument.parse()?;
    if uri.wire() == Wire::Mem {
        return Err(ArgumentError::InProcess(uri));
    }
    Ok(uri)
}

fn number(
    option: &'static str,
    max: usize,
    argument: Option<String>,
) -> Result<usize, ArgumentError> {
    let got = argument.unwrap_or_default();
    match usize::from_str(&got) {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(ArgumentError::Number { option, max, got }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, ArgumentError> {
        Command::parse(line.split_ascii_whitespace().map(str::to_owned))
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
    fn help_is_given_wherever_it_is_asked_for() {
        for line in [
            "--help",
            "-h",
            "help",
            "serve --help",
            "check -h",
            "serve homa://h:1 --help",
            "check homa://h:1 --count 1 -h",
        ] {
            assert_eq!(parse(line).unwrap(), Command::Help, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (line, expected) in [
            ("", "`serve`, `check` or `hostile`, got nothing"),
            ("dance", "got `dance`"),
            ("serve", "`serve` needs a URI"),
            ("serve h:1", "homa+udp://host:port"),
            ("serve homa+mem://x", "one process"),
            ("hostile --rate", "--rate needs"),
            ("hostile-attacker {", "JSON"),
            ("serve homa://h:1 --stats --count 1", "--count"),
            ("check homa://h:1 --wrong", "--wrong"),
            ("check homa://h:1 --count", "1 to 10000000"),
            ("check homa://h:1 --max-size 0", "1 to 1000000, got \"0\""),
            ("check homa://h:1 --concurrency -1", "got \"-1\""),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
