//! `homa-bench simulate`: the experiment of the SIGCOMM 2018 paper (Montazeri et al., "Homa: A
//! Receiver-Driven Low-Latency Transport Protocol Using Network Priorities") with our endpoints.

mod arguments;
mod experiment;
mod host;
mod published;
mod report;
mod settings;
mod slowdown;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use self::arguments::{Arguments, USAGE};
use self::experiment::{Outcome, Plan};
use crate::progress;

/// Runs the command with these arguments.
pub(crate) fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    match Arguments::parse(arguments) {
        Ok(Some(arguments)) => match simulate(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("homa-bench simulate: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("homa-bench simulate: {error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn simulate(arguments: &Arguments) -> Result<(), String> {
    let mut outcomes = Vec::new();
    for workload in &arguments.workloads {
        for load in &arguments.loads {
            let plan = Plan {
                workload: *workload,
                load: *load,
                mode: arguments.mode,
                seconds: arguments.seconds,
                hosts: arguments.hosts,
                seed: arguments.seed,
            };
            let (outcome, took) = timed(plan);
            print!("{}", report::table(&outcome, took));
            outcomes.push(outcome);
            // After each run, so that a long series that is stopped has not been in vain.
            write(arguments.json.as_deref(), || report::json(&outcomes))?;
            write(arguments.csv.as_deref(), || report::csv(&outcomes))?;
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a run takes is shown, never used"
)]
fn timed(plan: Plan) -> (Outcome, Duration) {
    let start = Instant::now();
    let outcome = experiment::run(plan, |done| {
        let name = settings::name(plan.workload);
        progress::show(&format!("{name} at {}: {:.0} %", plan.load, done * 100.0));
    });
    progress::clear();
    (outcome, start.elapsed())
}

fn write(path: Option<&Path>, contents: impl FnOnce() -> String) -> Result<(), String> {
    match path {
        Some(path) => fs::write(path, contents())
            .map_err(|error| format!("cannot write {}: {error}", path.display())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
