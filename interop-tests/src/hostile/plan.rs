//! What to try, as the options of `homa-interop hostile`.

use clap::{ArgAction, Args};

use super::attacks::{ATTACKS, Attack};
use crate::options::within;
use crate::wire::Wire;

/// Attacks from so many ports or addresses at most.
const SOURCES_MAX: usize = 10_000;
const PACKETS_MAX: usize = 10_000_000;
/// No phase of an attack is longer, in seconds.
const SECONDS_MAX: f64 = 86_400.0;

/// What to try.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Plan {
    /// Attacks, one after the other, with commas between them: mutated, forged, forged-observed, unfinished,
    /// max-length, frames, stalled-uploads, sizes, replays, burst, unreachable, burst-unreachable, or all
    #[arg(long = "attack", value_name = "NAMES", value_parser = attacks, default_value = "all")]
    pub attacks: Attacks,
    /// udp or raw; raw needs root, and has a network namespace of its own
    #[arg(long, value_parser = wire, default_value = "udp")]
    pub wire: Wire,
    /// 4 or 6, the version of IP
    #[arg(long = "ip", value_name = "VERSION", value_parser = version, default_value = "4", action = ArgAction::Set)]
    pub v6: bool,
    /// Numbers of ports or addresses to attack from, 1 to 10000, with commas between them: each attack is run
    /// with each
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = Self::default().sources)]
    #[arg(value_parser = within::<usize>(1..=SOURCES_MAX))]
    pub sources: Vec<usize>,
    /// Packets per second of an attack, 1 to 10000000
    #[arg(long, value_name = "N", default_value_t = Self::default().rate)]
    #[arg(value_parser = within::<usize>(1..=PACKETS_MAX))]
    pub rate: usize,
    /// Length of each attack in seconds, 0 to 86400, the burst aside
    #[arg(long, value_name = "S", value_parser = within(0.0..=SECONDS_MAX), default_value_t = Self::default().seconds)]
    pub seconds: f64,
    /// Packets of a burst, 1 to 10000000, 67296 of them per second
    #[arg(long, value_name = "N", default_value_t = Self::default().burst)]
    #[arg(value_parser = within::<usize>(1..=PACKETS_MAX))]
    pub burst: usize,
    /// Time before and after in which good calls are measured, 0 to 86400 seconds
    #[arg(long, value_name = "S", value_parser = within(0.0..=SECONDS_MAX), default_value_t = Self::default().around)]
    pub around: f64,
    /// Time for memory and RPCs to go at most, 0 to 86400 seconds
    #[arg(long, value_name = "S", value_parser = within(0.0..=SECONDS_MAX), default_value_t = Self::default().settle)]
    pub settle: f64,
    /// Judge neither times nor memory; one server for all attacks
    #[arg(long = "untimed", action = ArgAction::SetFalse)]
    pub timed: bool,
    /// The server on core 0, the attacker and the good client on core 1
    #[arg(long)]
    pub pin: bool,
    /// Start of the random numbers, 1 to 10000000
    #[arg(long, value_name = "N", default_value_t = Self::default().seed)]
    #[arg(value_parser = within(1..=PACKETS_MAX as u64))]
    pub seed: u64,
}

/// Names of attacks.
pub type Attacks = Vec<&'static str>;

impl Default for Plan {
    fn default() -> Self {
        Self {
            attacks: ATTACKS.iter().map(|attack| attack.name).collect(),
            wire: Wire::Udp,
            v6: false,
            sources: vec![1, 5_000],
            rate: 3_000,
            seconds: 60.0,
            burst: 134_592,
            around: 10.0,
            settle: 300.0,
            timed: true,
            pin: false,
            seed: 1,
        }
    }
}

fn attacks(names: &str) -> Result<Attacks, String> {
    let all = Plan::default().attacks;
    if names == "all" {
        return Ok(all);
    }
    let find = |name| {
        let found = Attack::find(name).map(|attack| attack.name);
        found.ok_or_else(|| format!("expected all, {}, got {name:?}", all.join(", ")))
    };
    names.split(',').map(find).collect()
}

fn wire(name: &str) -> Result<Wire, &'static str> {
    match name {
        "udp" => Ok(Wire::Udp),
        "raw" => Ok(Wire::Homa),
        _ => Err("expected udp or raw"),
    }
}

fn version(number: &str) -> Result<bool, &'static str> {
    match number {
        "4" => Ok(false),
        "6" => Ok(true),
        _ => Err("expected 4 or 6"),
    }
}
