//! Benchmarks of homa-rpc.

mod simulate;

use std::process::ExitCode;

const USAGE: &str = "\
usage: homa-bench COMMAND ...

commands:
  simulate   the experiment of the SIGCOMM 2018 paper on the simulator

`homa-bench COMMAND --help` describes a command.";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
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
