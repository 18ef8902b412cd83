//! Runs simulated worlds, one per seed, and says whether every invariant held in all of them.
//!
//! ```text
//! cargo run --release -p homa-sim --example worlds -- --seeds 0..10000
//! cargo run --release -p homa-sim --example worlds -- --seed 42
//! ```
//!
//! The first form prints totals; a range of 500 seeds or more in which some kind of fault never
//! happened fails too, since it would prove nothing. The second form repeats one world and prints
//! everything that happens in it. The exit code is 0 if all held, 1 if not, 2 for wrong arguments.

use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::process::ExitCode;

use homa_sim::{Totals, World};

const USAGE: &str = "usage: worlds --seeds FROM..TO   run the worlds FROM, FROM + 1, ... TO - 1
       worlds --seed N            run one world and print everything that happens in it";

/// Number of worlds from which on every kind of fault must have happened.
const ENOUGH: u64 = 500;
/// Violations printed in full.
const PRINTED: u64 = 3;

enum Task {
    Many(Range<u64>),
    One(u64),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match task(&arguments) {
        Ok(Task::Many(seeds)) => run_many(seeds),
        Ok(Task::One(seed)) => run_one(seed),
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot write the output: {error}");
            ExitCode::FAILURE
        }
    }
}

fn task(arguments: &[String]) -> Result<Task, String> {
    match arguments {
        [option, value] if option == "--seeds" => range(value).map(Task::Many),
        [option, value] if option == "--seed" => number(value).map(Task::One),
        [option] if option == "--seeds" || option == "--seed" => {
            Err(format!("{option} needs a value"))
        }
        [] => Err("no arguments given".to_owned()),
        [option, ..] if option != "--seeds" && option != "--seed" => {
            Err(format!("unknown argument {option:?}"))
        }
        _ => Err(format!("too many arguments: {}", arguments.join(" "))),
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let Some((from, to)) = text.split_once("..") else {
        return Err(format!("{text:?} is no range of seeds such as 0..1000"));
    };
    let seeds = number(from)?..number(to)?;
    if seeds.is_empty() {
        return Err(format!(
            "the range {text} is empty: its end is not part of it"
        ));
    }
    Ok(seeds)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|error| format!("{text:?} is no seed from 0 to {}: {error}", u64::MAX))
}

fn run_one(seed: u64) -> io::Result<bool> {
    let mut world = World::of_seed(seed);
    let mut out = BufWriter::new(io::stdout());
    writeln!(out, "{:#?}", world.scenario())?;
    // Failing to write the trace is noticed when the rest is written.
    world.watch(|record| {
        let _ = writeln!(io::stdout(), "{record}");
    });
    out.flush()?;
    let result = world.run();
    print_totals(&mut out, &world.totals())?;
    match &result {
        Ok(report) => writeln!(
            out,
            "digest {:016x}, end at {:?}",
            report.digest, report.end
        )?,
        Err(violation) => write!(out, "{violation}")?,
    }
    out.flush()?;
    Ok(result.is_ok())
}

fn run_many(seeds: Range<u64>) -> io::Result<bool> {
    let mut out = io::stdout();
    let (worlds, mut totals, mut violations) = (seeds.end - seeds.start, Totals::default(), 0);
    for seed in seeds {
        let mut world = World::of_seed(seed);
        if let Err(violation) = world.run() {
            violations += 1;
            if violations <= PRINTED {
                write!(out, "{violation}")?;
            } else {
                writeln!(
                    out,
                    "seed {}: {:?}: {}",
                    violation.seed, violation.invariant, violation.detail
                )?;
            }
        }
        totals += world.totals();
    }
    writeln!(
        out,
        "{worlds} worlds, {violations} with a violated invariant"
    )?;
    print_totals(&mut out, &totals)?;
    let missing: Vec<&str> = kinds(&totals)
        .into_iter()
        .filter(|(_, count)| *count == 0)
        .map(|(name, _)| name)
        .collect();
    if worlds >= ENOUGH && !missing.is_empty() {
        writeln!(out, "these never happened: {}", missing.join(", "))?;
        return Ok(false);
    }
    Ok(violations == 0)
}

/// What must have happened in a large number of worlds.
fn kinds(totals: &Totals) -> [(&'static str, u64); 14] {
    let network = &totals.network;
    [
        ("packets lost", network.lost),
        ("packets duplicated", network.duplicated),
        ("packets reordered", network.reordered),
        ("packets corrupted", network.corrupted),
        ("partitions", totals.partitions),
        ("crashes", totals.crashes),
        ("stalls", totals.stalls),
        ("ports changed", totals.port_changes),
        ("packets gone astray", totals.astray),
        ("packets forged", totals.forged),
        ("packets overrun", totals.overrun),
        ("RPCs begun in bursts", totals.burst_calls),
        ("RPCs ended ok", totals.succeeded),
        ("RPCs ended failed", totals.failed),
    ]
}

fn print_totals(out: &mut impl Write, totals: &Totals) -> io::Result<()> {
    let network = &totals.network;
    let further = [
        ("steps", totals.steps),
        ("packets sent", network.sent),
        ("packets cut off", network.cut_off),
        ("packets overflowed", network.overflowed),
        ("packets too long", network.too_long),
        ("packets missed", totals.missed),
        ("RPCs begun", totals.calls),
        ("RPCs given up", totals.given_up),
        ("RPCs gone with a crash", totals.gone),
        ("requests delivered", totals.delivered),
    ];
    for (name, count) in kinds(totals).into_iter().chain(further) {
        writeln!(out, "{count:>14} {name}")?;
    }
    for (name, time) in [
        (
            "until quiet after the healing, at most",
            totals.quiet_after_healing,
        ),
        (
            "until quiet after all went bad, at most",
            totals.quiet_after_bad,
        ),
    ] {
        writeln!(out, "{:>12.1} s {name}", time.as_secs_f64())?;
    }
    Ok(())
}
