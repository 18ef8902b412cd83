//! The fuzz targets on a fixed set of inputs: what the example `fuzz` of homa-rpc does for as long as it is told.

use homa_sim::fuzz::{self, TARGETS, Target};

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

/// A target with a defect: it panics where a 7 is followed by a 9, at any distance.
const DEFECTIVE: Target = Target {
    name: "defective",
    run: |bytes| {
        let mut after_seven = bytes.iter().skip_while(|byte| **byte != 7);
        assert!(!after_seven.any(|byte| *byte == 9));
    },
    bytes_max: 64,
};

#[test]
fn a_finding_is_shortened_to_what_it_needs() {
    let input = [0, 1, 7, 2, 3, 7, 9, 9, 4];
    assert!(DEFECTIVE.finds(&input));
    assert_eq!(DEFECTIVE.shorten(input.to_vec()), [7, 9]);
}

#[test]
fn inputs_follow_from_the_seed_and_have_every_length_down_to_a_sixteenth() {
    let of = |seed| DEFECTIVE.inputs(seed).take(100).collect::<Vec<_>>();
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    for len in [4, 8, 16, 32, 64] {
        assert!(of(1).iter().any(|input| input.len() == len), "{len}");
    }
}

#[test]
#[should_panic(expected = "--input ")]
fn a_test_that_finds_something_says_how_to_repeat_it() {
    DEFECTIVE.run_random(10_000, 1);
}
