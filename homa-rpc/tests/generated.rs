//! The code in `src/message/types` is what the schemas in `proto` give.
//!
//! Set `UPDATE_GENERATED=1` to write it anew.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::{env, fs};

#[test]
fn generated_code_is_that_of_the_schemas() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = package.join("../proto");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
    fs::create_dir_all(&out).unwrap();
    let files = ["google/rpc/status.proto", "google/rpc/error_details.proto"];
    let descriptors = protox::compile(files, [&proto]).unwrap();
    prost_build::Config::new()
        .out_dir(&out)
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        // The same bytes each time.
        .btree_map(["."])
        .compile_fds(descriptors)
        .unwrap();
    let made = fs::read_to_string(out.join("google.rpc.rs")).unwrap();
    let kept = package.join("src/message/types/google_rpc.rs");
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&kept, &made).unwrap();
    }
    let kept = fs::read_to_string(kept).unwrap_or_default();
    for (number, (kept, made)) in kept.lines().zip(made.lines()).enumerate() {
        assert_eq!(kept, made, "google_rpc.rs, line {}", number + 1);
    }
    assert_eq!(kept.len(), made.len(), "google_rpc.rs is cut short");
}
