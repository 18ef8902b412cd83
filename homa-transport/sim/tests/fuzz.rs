//! The fuzz targets on a fixed set of inputs: what `examples/fuzz.rs` does for as long as it is told.

use homa_sim::fuzz::{self, TARGETS};

#[test]
fn bytes_are_refused_or_read_as_what_they_say() {
    TARGETS[0].run_random(300_000, 1);
}

#[test]
fn endpoints_keep_their_bounds_and_promises_whatever_happens() {
    TARGETS[1].run_random(500, 2);
}

#[test]
fn worlds_of_any_seed_hold_every_invariant() {
    TARGETS[2].run_random(150, 3);
}

#[test]
fn an_input_of_no_bytes_is_one_too() {
    fuzz::wire(&[]);
    fuzz::endpoint(&[]);
    fuzz::world(&[]);
}
