//! Benchmarks of homa-rpc.

mod arguments;
mod instructions;
mod process;
mod progress;
mod rpc;
mod simulate;

use std::process::ExitCode;

use clap::Parser;

/// What all stacks that are compared use, on both ends.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Benchmarks of homa-rpc.
///
/// The exit status is 0 if all was measured, 1 if something failed, 2 for wrong arguments.
#[derive(Debug, Parser)]
#[command(name = "homa-bench", args_override_self = true)]
enum Command {
    Rpc(rpc::Arguments),
    Simulate(simulate::Arguments),
    Instructions(instructions::Arguments),
    #[command(hide = true, name = rpc::SERVER)]
    RpcServer(rpc::Role),
    #[command(hide = true, name = rpc::CLIENT)]
    RpcClient(rpc::Role),
    #[command(hide = true, name = instructions::SIDE)]
    InstructionsSide(instructions::Side),
}

fn main() -> ExitCode {
    let (name, result) = match Command::parse() {
        Command::Rpc(arguments) => ("rpc", rpc::main(&arguments)),
        Command::Simulate(arguments) => ("simulate", simulate::main(&arguments)),
        Command::Instructions(arguments) => ("instructions", instructions::main(&arguments)),
        Command::RpcServer(role) => return rpc::server(&role),
        Command::RpcClient(role) => return rpc::client(&role),
        Command::InstructionsSide(side) => return instructions::side(&side),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("homa-bench {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
