//! Feeds the fuzz targets with random bytes for a while, on any toolchain and without a corpus.
//!
//! ```text
//! cargo run -p homa-sim --example fuzz -- endpoint --seconds 60 --seed 1
//! cargo run -p homa-sim --example fuzz -- endpoint --input 00ff17
//! ```
//!
//! See [`command`] for the arguments. With `FUZZ_TRACE=1` in the environment the target `endpoint`
//! prints the last packets and the calls of a finding.

use std::process::ExitCode;

use homa_sim::fuzz::{TARGETS, command};

fn main() -> ExitCode {
    command(&TARGETS)
}
