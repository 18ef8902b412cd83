//! `README.md` in this directory names tests that exist, here and in the packages below.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::Path;

/// A published package has no packages below it.
fn is_elsewhere(root: &Path, name: &str) -> bool {
    ["protocol", "sim"]
        .iter()
        .any(|below| name.starts_with(&format!("{below}/")) && !root.join(below).is_dir())
}

#[test]
fn every_test_that_the_index_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = root.join("tests");
    let index = fs::read_to_string(tests.join("README.md")).unwrap();
    let (mut named, mut files) = (0, Vec::new());
    for row in index.lines().filter_map(|line| line.strip_prefix("| ")) {
        let cell = row.split(" | ").nth(1).unwrap_or_default();
        let mut source = None;
        // What stands between backticks: a file, then tests in it.
        for name in cell.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                let below = name.starts_with("protocol/") || name.starts_with("sim/");
                let path = if below {
                    root.join(name)
                } else {
                    tests.join(name)
                };
                let read = || fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
                source = (!is_elsewhere(root, name)).then(read);
                files.push(name);
            } else if let Some(source) = &source {
                // In the open, or in a list from which a macro makes tests.
                let there = source.contains(&format!("fn {name}("))
                    || source.contains(&format!("\n    {name}: \""));
                assert!(there, "there is no test {name}, named in: {row}");
                named += 1;
            }
        }
    }
    assert!(named > 40, "only {named} tests are named");
    // Each file of tests stands for something that somebody relies on.
    for folder in ["tests", "protocol/tests", "sim/tests"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let unlisted = ["index.rs"].contains(&name.as_str()) || !name.ends_with(".rs");
            let known_as = match folder {
                "tests" => name.clone(),
                _ => format!("{folder}/{name}"),
            };
            assert!(
                unlisted || files.contains(&known_as.as_str()),
                "{known_as} is not in the index"
            );
        }
    }
}
