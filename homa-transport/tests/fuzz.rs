//! The fuzz targets on a fixed set of inputs: what `examples/fuzz.rs` does for as long as it is told.

use homa_transport::sim::{Random, fuzz};

/// Runs `target` on so many random inputs, as often short as long.
fn run(target: fn(&[u8]), inputs: usize, bytes_max: usize, seed: u64) {
    let mut random = Random::new(seed);
    for _ in 0..inputs {
        let len = bytes_max >> random.index(5);
        let words = (0..len.div_ceil(8)).flat_map(|_| random.next().to_be_bytes());
        let input: Vec<u8> = words.take(len).collect();
        if std::panic::catch_unwind(|| target(&input)).is_err() {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("the fuzz target has found something, repeat it with: --input {hex}");
        }
    }
}

#[test]
fn bytes_are_refused_or_read_as_what_they_say() {
    run(fuzz::wire, 300_000, 160, 1);
}

#[test]
fn endpoints_keep_their_bounds_and_promises_whatever_happens() {
    run(fuzz::endpoint, 500, 2_048, 2);
}

#[test]
fn worlds_of_any_seed_hold_every_invariant() {
    let mut random = Random::new(3);
    for _ in 0..150 {
        fuzz::world(&random.next().to_be_bytes());
    }
}

#[test]
fn an_input_of_no_bytes_is_one_too() {
    fuzz::wire(&[]);
    fuzz::endpoint(&[]);
    fuzz::world(&[]);
}
