//! The fuzz targets on a fixed set of inputs: what the example `fuzz` does for as long as it is told.

use homa_rpc::fuzz::TARGETS;

#[test]
fn frames_are_refused_or_read_as_what_they_say() {
    TARGETS[0].run_random(20_000, 1);
}

#[test]
fn metadata_is_what_a_plain_list_of_pairs_is() {
    TARGETS[1].run_random(10_000, 2);
}

#[test]
fn details_of_any_bytes_leave_the_status_good() {
    TARGETS[2].run_random(5_000, 3);
}

#[test]
fn bodies_cut_anywhere_are_refused_or_read_as_what_they_say() {
    TARGETS[3].run_random(50_000, 4);
}

#[test]
fn streams_keep_their_bounds_and_promises_whatever_comes() {
    TARGETS[4].run_random(10_000, 5);
}

#[test]
fn an_input_of_no_bytes_is_one_too() {
    for target in TARGETS {
        (target.run)(&[]);
    }
}
