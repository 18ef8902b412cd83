//! `homa-interop`: an echo server and a client that checks one, of any implementation of Homa; attacks on a
//! server of our own.

mod arguments;
mod attack;
mod check;
mod serve;

use std::process::ExitCode;

use arguments::Command;
use clap::Parser;
use homa_interop::hostile::{self, BoxError};
use homa_transport::Stats;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Everything was as it should be.
const GOOD: u8 = 0;
/// A check failed, or the server did.
const FAILED: u8 = 1;
/// A socket that could not be opened; clap ends with it for wrong arguments.
const NOT_STARTED: u8 = 2;

fn main() -> ExitCode {
    let command = Command::parse();
    if let Some(core) = command.core()
        && let Err(error) = pin(core)
    {
        eprintln!("homa-interop: cannot run on core {core}: {error}");
        return NOT_STARTED.into();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("homa-interop: cannot start: {error}");
            return NOT_STARTED.into();
        }
    };
    let code = runtime.block_on(async {
        match command {
            Command::Serve { uri, stats } => serve::run(&uri, stats).await,
            Command::Check(options) => check::run(&options).await,
            Command::Hostile(options) => attack::run(&options).await,
            Command::Victim { uri, .. } => status(hostile::serve(&uri).await),
            Command::Attacker { orders } => status(hostile::attack(&orders).await),
        }
    });
    code.into()
}

/// Keeps this thread, and those that it starts, on one core.
fn pin(core: usize) -> rustix::io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)
}

/// The exit status of a part of `hostile`.
fn status(result: Result<(), BoxError>) -> u8 {
    match result {
        Ok(()) => GOOD,
        Err(error) => {
            eprintln!("homa-interop: {error}");
            FAILED
        }
    }
}

/// Prints what is worth it of the counters of a socket.
fn print_stats(stats: &Stats) {
    if let Some(backend) = stats.backend {
        println!("  {:24} {backend}", "backend");
    }
    for (name, _, value) in stats.iter() {
        // None in progress says more than most numbers.
        if value != 0 || name == "rpcs_live" {
            println!("  {name:24} {value}");
        }
    }
}
