//! Options of `hostile`.

use std::path::PathBuf;
use std::str::FromStr;

use homa_interop::hostile::{ATTACKS, Attack, Plan};
use homa_interop::wire::Wire;

use super::{ArgumentError, number};

/// Attacks, sources and packets at most.
const SOURCES_MAX: usize = 10_000;
const PACKETS_MAX: usize = 10_000_000;
/// No phase of an attack is longer, in seconds.
const SECONDS_MAX: f64 = 86_400.0;

/// What `hostile` is to do.
#[derive(Debug, PartialEq)]
pub(crate) struct HostileOptions {
    pub(crate) plan: Plan,
    /// Where the figures go as JSON too.
    pub(crate) json: Option<PathBuf>,
}

impl HostileOptions {
    pub(super) fn parse(
        mut arguments: impl Iterator<Item = String>,
    ) -> Result<Self, ArgumentError> {
        let mut options = Self {
            plan: Plan::default(),
            json: None,
        };
        while let Some(argument) = arguments.next() {
            options.take(&argument, &mut arguments)?;
        }
        Ok(options)
    }

    fn take(
        &mut self,
        argument: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), ArgumentError> {
        let plan = &mut self.plan;
        match argument {
            "--attack" => plan.attacks = attacks(rest.next())?,
            "--wire" => plan.wire = one_of("--wire", &WIRES, rest.next())?,
            "--ip" => plan.v6 = one_of("--ip", &VERSIONS, rest.next())?,
            "--sources" => plan.sources = numbers("--sources", SOURCES_MAX, rest.next())?,
            "--rate" => plan.rate = number("--rate", PACKETS_MAX, rest.next())?,
            "--burst" => plan.burst = number("--burst", PACKETS_MAX, rest.next())?,
            "--seconds" => plan.seconds = seconds("--seconds", rest.next())?,
            "--around" => plan.around = seconds("--around", rest.next())?,
            "--settle" => plan.settle = seconds("--settle", rest.next())?,
            "--seed" => plan.seed = number("--seed", PACKETS_MAX, rest.next())? as u64,
            "--untimed" => plan.timed = false,
            "--pin" => plan.pin = true,
            "--json" => {
                let file = rest.next().ok_or(ArgumentError::NoFile("--json"))?;
                self.json = Some(file.into());
            }
            _ => return Err(ArgumentError::Unknown(argument.to_owned())),
        }
        Ok(())
    }
}

const WIRES: [(&str, Wire); 2] = [("udp", Wire::Udp), ("raw", Wire::Homa)];
const VERSIONS: [(&str, bool); 2] = [("4", false), ("6", true)];

/// Names with commas between them, or all attacks.
fn attacks(argument: Option<String>) -> Result<Vec<&'static str>, ArgumentError> {
    let names = argument.unwrap_or_default();
    if names == "all" {
        return Ok(ATTACKS.iter().map(|attack| attack.name).collect());
    }
    let find = |name: &str| {
        let found = Attack::find(name).map(|attack| attack.name);
        found.ok_or_else(|| {
            let known: Vec<_> = ATTACKS.iter().map(|attack| attack.name).collect();
            ArgumentError::Choice {
                option: "--attack",
                known: format!("all, {}", known.join(", ")),
                got: name.to_owned(),
            }
        })
    };
    names.split(',').map(find).collect()
}

fn one_of<T: Copy>(
    option: &'static str,
    choices: &[(&str, T)],
    argument: Option<String>,
) -> Result<T, ArgumentError> {
    let got = argument.unwrap_or_default();
    let found = choices.iter().find(|(name, _)| *name == got);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let known: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        ArgumentError::Choice {
            option,
            known: known.join(", "),
            got,
        }
    })
}

fn numbers(
    option: &'static str,
    max: usize,
    argument: Option<String>,
) -> Result<Vec<usize>, ArgumentError> {
    let list = argument.unwrap_or_default();
    list.split(',')
        .map(|text| number(option, max, Some(text.to_owned())))
        .collect()
}

fn seconds(option: &'static str, argument: Option<String>) -> Result<f64, ArgumentError> {
    let got = argument.unwrap_or_default();
    match f64::from_str(&got) {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(seconds),
        _ => Err(ArgumentError::Seconds {
            option,
            max: SECONDS_MAX,
            got,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<HostileOptions, ArgumentError> {
        HostileOptions::parse(line.split_ascii_whitespace().map(str::to_owned))
    }

    #[test]
    fn everything_has_a_default_and_can_be_given() {
        let defaults = parse("").unwrap();
        assert_eq!(defaults.plan, Plan::default());
        assert_eq!(defaults.plan.attacks.len(), ATTACKS.len());
        let line = "--attack sizes,burst --wire raw --ip 6 --sources 3,7 --rate 10 --burst 20 \
                    --seconds 0.5 --around 1 --settle 2 --seed 9 --untimed --pin --json x.json";
        let given = Plan {
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
        let options = parse(line).unwrap();
        assert_eq!(options.plan, given);
        assert_eq!(options.json, Some("x.json".into()));
        assert_eq!(parse("--attack all").unwrap().plan, Plan::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (line, expected) in [
            ("--attack kindness", "burst-unreachable"),
            ("--wire tcp", "udp, raw, got \"tcp\""),
            ("--ip", "4, 6, got \"\""),
            ("--sources 1,x", "got \"x\""),
            ("--seconds -1", "0 to 86400, got \"-1\""),
            ("--seconds nan", "got \"nan\""),
            ("--rate 0", "1 to 10000000"),
            ("--json", "--json needs a file"),
            ("--fast", "--fast"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
