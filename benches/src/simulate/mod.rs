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
use std::time::{Duration, Instant};

pub(crate) use self::arguments::Arguments;
use self::experiment::{Outcome, Plan};
use crate::progress;

/// Runs the command.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn main(arguments: &Arguments) -> Result<(), String> {
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
            write(arguments.csv.as_deref(), || Ok(report::csv(&outcomes)))?;
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

fn write(
    path: Option<&Path>,
    contents: impl FnOnce() -> Result<String, String>,
) -> Result<(), String> {
    match path {
        Some(path) => fs::write(path, contents()?)
            .map_err(|error| format!("cannot write {}: {error}", path.display())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
