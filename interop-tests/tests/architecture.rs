//! ARCHITECTURE.md names the folders of the source, and files that exist.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use homa_interop::skip;

/// Packages with a section of their own, which names all folders of their source.
const LIBRARIES: [&str; 5] = [
    "homa-transport/protocol",
    "homa-transport/sim",
    "homa-transport",
    "homa-rpc",
    "homa-rpc-build",
];
/// The section of a package in a folder of another.
const NESTED: [(&str, &str); 2] = [
    ("homa-transport/protocol", "homa-protocol"),
    ("homa-transport/sim", "homa-sim"),
];
/// Packages that share one.
const OTHERS: [&str; 3] = ["interop-tests", "benches", "examples"];
const OTHERS_SECTION: &str = "Tests, benchmarks, examples";

/// The repository and its ARCHITECTURE.md; `None` where only this package is.
fn repository() -> Option<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.to_owned();
    match fs::read_to_string(root.join("ARCHITECTURE.md")) {
        Ok(text) => Some((root, text)),
        Err(error) => {
            skip::report(
                "the map of the code",
                format_args!("no ARCHITECTURE.md: {error}"),
            );
            None
        }
    }
}

/// All Rust files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The text under a heading of the second level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = format!("\n## {heading}\n");
    let (_, rest) = text
        .split_once(&start)
        .unwrap_or_else(|| panic!("no heading {heading:?}"));
    rest.split("\n## ").next().unwrap()
}

/// The words of a text that could be names of files or folders.
fn words(text: &str) -> BTreeSet<&str> {
    let part = |c: char| c.is_alphanumeric() || "_./-".contains(c);
    text.split(|c| !part(c))
        .map(|word| word.trim_end_matches('.'))
        .collect()
}

#[test]
fn every_folder_of_sources_is_in_the_map() {
    let Some((root, text)) = repository() else {
        return;
    };
    let mut missing = Vec::new();
    for package in LIBRARIES.iter().chain(&OTHERS) {
        let nested = NESTED.iter().find(|(nested, _)| nested == package);
        let heading = match nested {
            Some((_, heading)) => heading,
            None if LIBRARIES.contains(package) => package,
            None => OTHERS_SECTION,
        };
        let named = words(section(&text, heading));
        let src = root.join(package).join("src");
        let folders: BTreeSet<_> = sources(&src)
            .iter()
            .map(|file| file.parent().unwrap().to_owned())
            .collect();
        assert!(folders.contains(&src), "{}", src.display());
        for folder in folders.iter().filter(|folder| **folder != src) {
            let name = format!("{}/", folder.file_name().unwrap().to_str().unwrap());
            if !named.contains(name.as_str()) {
                missing.push(format!("{package}: {name}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md does not name {missing:?}"
    );
}

#[test]
fn every_file_that_the_map_names_is_there() {
    let Some((root, text)) = repository() else {
        return;
    };
    let packages = LIBRARIES
        .iter()
        .chain(&OTHERS)
        .map(|package| root.join(package));
    let files: Vec<_> = packages.flat_map(|package| sources(&package)).collect();
    let exists = |word: &str| files.iter().any(|file| file.ends_with(word));
    let named = words(&text);
    let named = named.iter().filter(|word| word.ends_with(".rs"));
    let gone: Vec<_> = named.filter(|word| !exists(word)).collect();
    assert!(
        gone.is_empty(),
        "ARCHITECTURE.md names {gone:?}, which do not exist"
    );
}
