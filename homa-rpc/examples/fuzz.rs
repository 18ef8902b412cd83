//! Feeds any fuzz target of this repository with random bytes for a while, on any toolchain and without a corpus.
//!
//! ```text
//! cargo run -p homa-rpc --features fuzz --example fuzz -- frame --seconds 60 --seed 1
//! cargo run -p homa-rpc --features fuzz --example fuzz -- frame --input 00ff17
//! ```
//!
//! Use the `dev` profile: it checks for overflow. With `FUZZ_TRACE=1` in the environment the target `endpoint`
//! prints the last packets and the calls of a finding.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use homa_transport::sim::fuzz::{self as transport, Target, to_hex};

const PROGRESS: Duration = Duration::from_secs(60);

/// Runs a fuzz target on random bytes, or on a given input.
///
/// The exit status is 0 if nothing was found, 1 if something was, 2 for wrong arguments.
#[derive(Parser)]
struct Options {
    /// wire, endpoint and world are of the transport, frame, metadata, details, body and stream of homa-rpc
    #[arg(value_parser = target)]
    target: Target,
    /// How long to try one input after the other, in seconds; all follow from the seed
    #[arg(long, required_unless_present = "input", conflicts_with = "input")]
    seconds: Option<u64>,
    /// Any whole number
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The one input to run, as hexadecimal digits: what a finding printed
    #[arg(long, value_name = "HEX", value_parser = from_hex)]
    input: Option<Input>,
}

type Input = Vec<u8>;

fn main() -> ExitCode {
    let options = Options::parse();
    let target = options.target;
    let Some(input) = options.input else {
        let time = Duration::from_secs(options.seconds.unwrap_or_default());
        return run_for(target, time, options.seed);
    };
    if target.finds(&input) {
        return ExitCode::FAILURE;
    }
    println!("{}: nothing found", target.name);
    ExitCode::SUCCESS
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long to go on is a matter of real time"
)]
fn run_for(target: Target, time: Duration, seed: u64) -> ExitCode {
    let (name, start) = (target.name, Instant::now());
    let (mut iterations, mut next_line) = (0_u64, PROGRESS);
    for input in target.inputs(seed) {
        let elapsed = start.elapsed();
        if elapsed >= time {
            break;
        }
        if elapsed >= next_line {
            next_line += PROGRESS;
            println!("{name}: {iterations} after {} s", elapsed.as_secs());
        }
        if target.finds(&input) {
            println!("{name}: finding in iteration {iterations} of seed {seed}");
            println!("--input {}", to_hex(&input));
            std::panic::set_hook(Box::new(|_| {}));
            println!("shortened: --input {}", to_hex(&target.shorten(input)));
            return ExitCode::FAILURE;
        }
        iterations += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {iterations} iterations of seed {seed} in {seconds:.1} s, nothing found");
    ExitCode::SUCCESS
}

fn target(name: &str) -> Result<Target, String> {
    let all = || {
        transport::TARGETS
            .into_iter()
            .chain(homa_rpc::fuzz::TARGETS)
    };
    let found = all().find(|target| target.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = all().map(|target| target.name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn from_hex(text: &str) -> Result<Input, &'static str> {
    let digits = |at| text.get(at..at + 2);
    let byte = |at| u8::from_str_radix(digits(at)?, 16).ok();
    let bytes: Option<Input> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.ok_or("expected an even number of hexadecimal digits")
}
