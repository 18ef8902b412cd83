//! The code in `tests/support/streams.rs` is what the schema beside it gives.
//!
//! Set `UPDATE_GENERATED=1` to write it anew.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::{env, fs};

#[test]
fn the_service_of_the_tests_that_stream_is_that_of_its_schema() {
    let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated_streams");
    fs::create_dir_all(&out).unwrap();
    homa_rpc_build::configure()
        .build_client_trait(true)
        .bytes(".")
        .emit_rerun_if_changed(false)
        .out_dir(&out)
        .compile_protos(&[support.join("streams.proto")], &[&support])
        .unwrap();
    let made = fs::read_to_string(out.join("test.streams.rs")).unwrap();
    let kept = support.join("streams.rs");
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&kept, &made).unwrap();
    }
    let kept = fs::read_to_string(kept).unwrap_or_default();
    for (number, (kept, made)) in kept.lines().zip(made.lines()).enumerate() {
        assert_eq!(kept, made, "streams.rs, line {}", number + 1);
    }
    assert_eq!(kept.len(), made.len(), "streams.rs is cut short");
}
