//! `README.md` in this directory names tests that exist.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_index_names_is_there() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let index = fs::read_to_string(directory.join("README.md")).unwrap();
    let mut named = 0;
    for row in index.lines().filter_map(|line| line.strip_prefix("| ")) {
        let tests = row.split(" | ").nth(1).unwrap_or_default();
        let mut source = String::new();
        // What stands between backticks: a file, then tests in it.
        for name in tests.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                source = fs::read_to_string(directory.join(name)).unwrap();
            } else if !source.is_empty() {
                let there = source.contains(&format!("fn {name}("));
                assert!(there, "there is no test {name}, named in: {row}");
                named += 1;
            }
        }
    }
    assert!(named > 80, "only {named} tests are named");
}
