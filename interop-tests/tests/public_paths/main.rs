//! Public paths stay, or the changelog says that they are gone.
//!
//! `paths.rs` compiles only while each of its paths leads to something. Not in it: what is hidden from the
//! documentation, and the modules `fuzz`, which are for those who work on these packages.
#![allow(clippy::unwrap_used, reason = "a test")]

#[expect(
    unused_imports,
    reason = "that the paths are there is all that matters"
)]
mod paths;

use std::fs;
use std::path::Path;

use homa_interop::skip;

/// Public paths of commit 45c21f3.
const BEFORE: usize = 231;
/// Those of them that are no longer there, and how the changelog calls them.
const GONE: [(&str, &str); 4] = [
    ("homa_rpc::Context", "`homa_rpc::Context`"),
    ("homa_rpc::server::MessageLimits", "`server::MessageLimits`"),
    (
        "homa_rpc::server::unary",
        "`server::{unary, unimplemented_method}`",
    ),
    (
        "homa_rpc::server::unimplemented_method",
        "`server::{unary, unimplemented_method}`",
    ),
];

/// The paths that are there.
fn listed() -> Vec<&'static str> {
    let paths = include_str!("paths.rs").lines();
    paths
        .filter_map(|line| line.strip_prefix("use ")?.strip_suffix(" as _;"))
        .collect()
}

#[test]
fn no_path_is_dropped_without_a_word() {
    let listed = listed();
    let count = listed.len() + GONE.len();
    assert!(count >= BEFORE, "{count} of {BEFORE}");
    let twice = GONE.iter().find(|(path, _)| listed.contains(path));
    assert_eq!(twice, None);
}

#[test]
fn the_changelog_names_each_path_that_is_gone() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../CHANGELOG.md");
    let Ok(text) = fs::read_to_string(file) else {
        return skip::report("the paths that are gone", "no CHANGELOG.md");
    };
    let words: Vec<_> = text.split_whitespace().collect();
    let text = words.join(" ");
    for (path, name) in GONE {
        assert!(
            text.contains(name),
            "CHANGELOG.md does not name {path} as {name}"
        );
    }
}
