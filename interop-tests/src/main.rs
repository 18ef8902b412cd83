//! `homa-interop`: an echo server and a client that checks one, of any implementation of Homa.

mod arguments;
mod check;
mod serve;

use std::process::ExitCode;

use arguments::{Command, USAGE};
use homa_transport::Stats;

/// Everything was as it should be.
const GOOD: u8 = 0;
/// A check failed, or the server did.
const FAILED: u8 = 1;
/// Wrong arguments, or a socket that could not be opened.
const NOT_STARTED: u8 = 2;

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("homa-interop: {error}\n\n{USAGE}");
            return NOT_STARTED.into();
        }
    };
    if matches!(command, Command::Help) {
        println!("{USAGE}");
        return GOOD.into();
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
            Command::Help => GOOD,
            Command::Serve { uri, stats } => serve::run(&uri, stats).await,
            Command::Check(options) => check::run(&options).await,
        }
    });
    code.into()
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
