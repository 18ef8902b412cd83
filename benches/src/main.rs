//! Benchmarks of homa-rpc.

mod progress;
mod rpc;
mod simulate;

use std::process::ExitCode;

/// What all stacks that are compared use, on both ends.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage: homa-bench COMMAND ...

commands:
  rpc        calls over homa-rpc, tonic and bare sockets, side by side
  simulate   the experiment of the SIGCOMM 2018 paper on the simulator

`homa-bench COMMAND --help` describes a command.";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("rpc") => rpc::main(arguments),
        Some(rpc::SERVER) => rpc::server(arguments),
        Some(rpc::CLIENT) => rpc::client(arguments),
        Some("simulate") => simulate::main(arguments),
        Some("--help" | "-h") => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Some(other) => {
            eprintln!("homa-bench: no command `{other}`\n\n{USAGE}");
            ExitCode::from(2)
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
