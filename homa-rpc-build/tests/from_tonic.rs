//! The page for users of tonic names every option, of tonic and of ours.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::Path};

/// Methods of `tonic_prost_build::Builder`. Source: tonic-prost-build 0.14.9, src/lib.rs.
const TONIC: [&str; 37] = [
    "boxed",
    "btree_map",
    "build_client",
    "build_server",
    "build_transport",
    "bytes",
    "client_attribute",
    "client_mod_attribute",
    "codec_path",
    "compile_fds",
    "compile_fds_with_config",
    "compile_protos",
    "compile_well_known_types",
    "compile_with_config",
    "disable_comments",
    "emit_package",
    "emit_rerun_if_changed",
    "enum_attribute",
    "extern_path",
    "field_attribute",
    "file_descriptor_set_path",
    "generate_default_stubs",
    "include_file",
    "message_attribute",
    "out_dir",
    "proto_path",
    "protoc_arg",
    "server_attribute",
    "server_mod_attribute",
    "skip_debug",
    "skip_protoc_run",
    "trait_attribute",
    "type_attribute",
    "use_arc_self",
    "with_extended_rust_types",
    // Functions of the crate.
    "configure",
    "manual",
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The words of the page that are code.
fn words(page: &str) -> BTreeSet<&str> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect()
}

#[test]
fn every_option_of_tonic_has_a_row() {
    let page = read("../docs/from-tonic.md");
    let words = words(&page);
    let missing: Vec<_> = TONIC
        .into_iter()
        .filter(|name| !words.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_option_of_ours_has_a_row() {
    let page = read("../docs/from-tonic.md");
    let words = words(&page);
    let source = read("src/builder.rs");
    let ours: Vec<_> = source
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("pub fn "))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    assert!(ours.len() > 30, "{ours:?}");
    let missing: Vec<_> = ours
        .into_iter()
        .filter(|name| !words.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn files_that_the_page_links_to_are_there() {
    let page = read("../docs/from-tonic.md");
    let links = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let files: Vec<_> = links.filter(|link| link.starts_with("../")).collect();
    assert!(!files.is_empty());
    for file in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(file);
        assert!(path.exists(), "{}", path.display());
    }
}
