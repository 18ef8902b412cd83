//! Feeds the fuzz targets with random bytes for a while, on any toolchain and without a corpus.
//!
//! ```text
//! cargo run -p homa-rpc --features fuzz --example fuzz -- frame --seconds 60 --seed 1
//! cargo run -p homa-rpc --features fuzz --example fuzz -- frame --input 00ff17
//! ```
//!
//! See [`command`] for the arguments.

use std::process::ExitCode;

use homa_rpc::fuzz::TARGETS;
use homa_transport::sim::fuzz::command;

fn main() -> ExitCode {
    command(&TARGETS)
}
