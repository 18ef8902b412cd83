//! What UDP and protocol 146 have in common.

use std::sync::Once;

/// Warns once of a receive buffer that is much smaller than `wanted`.
pub(super) fn warn_of_small_buffer(got: usize, wanted: usize) {
    static ONCE: Once = Once::new();
    if got < wanted / 2 {
        ONCE.call_once(|| {
            tracing::warn!(
                wanted_bytes = wanted,
                got_bytes = got,
                "the system limits receive buffers, so packets may be lost; \
                 raise net.core.rmem_max"
            );
        });
    }
}
