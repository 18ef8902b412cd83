//! Fuzz targets: functions of arbitrary bytes that panic if they find a defect.
//!
//! They know nothing of where the bytes come from. `examples/fuzz.rs` draws them from a seed,
//! on any toolchain; the targets in the directory `fuzz` of the repository take them from libFuzzer.
//!
//! ```
//! homa_transport::sim::fuzz::wire(b"any bytes");
//! homa_transport::sim::fuzz::endpoint(&[7; 100]);
//! ```

#![expect(
    clippy::indexing_slicing,
    reason = "a panic is how a fuzz target reports"
)]

mod calls;
mod endpoint;
mod forge;
mod pair;
mod source;
mod wire;

use self::source::Source;
use super::World;

pub use self::endpoint::endpoint;
pub use self::wire::wire;

/// Runs the world of the seed that the first eight bytes are (big-endian; missing ones are 0).
///
/// # Panics
/// If an invariant does not hold; the text names it, the seed and what happened last.
pub fn world(data: &[u8]) {
    let seed = Source::new(data).word();
    if let Err(violation) = World::of_seed(seed).run() {
        panic!("{violation}");
    }
}
