//! Fuzz targets: functions of arbitrary bytes that panic if they find a defect.
//!
//! They know nothing of where the bytes come from. The example `fuzz` of homa-rpc draws them from a seed,
//! on any toolchain; the targets in the directory `fuzz` of the repository take them from libFuzzer.
//!
//! ```
//! homa_sim::fuzz::wire(b"any bytes");
//! homa_sim::fuzz::endpoint(&[7; 100]);
//! ```

#![expect(
    clippy::indexing_slicing,
    reason = "a panic is how a fuzz target reports"
)]

mod calls;
mod endpoint;
pub(super) mod forge;
mod pair;
mod source;
mod target;
mod wire;

use super::World;

pub use self::endpoint::endpoint;
pub use self::source::Source;
pub use self::target::{Target, to_hex};
pub use self::wire::wire;

/// The targets of this package.
pub const TARGETS: [Target; 3] = [
    Target {
        name: "wire",
        run: wire,
        bytes_max: 160,
    },
    Target {
        name: "endpoint",
        run: endpoint,
        bytes_max: 2_048,
    },
    Target {
        name: "world",
        run: world,
        bytes_max: 8,
    },
];

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
