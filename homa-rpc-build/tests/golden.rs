//! The generated code, compared with files in `tests/golden`.
//!
//! Set `UPDATE_GOLDEN=1` to write those files anew.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use homa_rpc_build::{Builder, configure};

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An empty directory of this test's own.
fn empty_dir(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("golden")
        .join(test);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Compiles `proto` in `include` and gives the content of each file written.
fn generate(test: &str, builder: Builder, include: &Path, proto: &str) -> BTreeMap<String, String> {
    let out = empty_dir(test);
    builder
        .emit_rerun_if_changed(false)
        .out_dir(&out)
        .compile_protos(&[include.join(proto)], &[include])
        .unwrap();
    let files = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn own_protos() -> PathBuf {
    manifest_dir().join("tests/protos")
}

#[track_caller]
fn assert_golden(name: &str, generated: &str) {
    let path = manifest_dir().join("tests/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, generated).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    if let Some((line, (expected, found))) = golden
        .lines()
        .zip(generated.lines())
        .enumerate()
        .find(|(_, (a, b))| a != b)
    {
        panic!(
            "{name}:{}:\nexpected: {expected}\n   found: {found}",
            line + 1
        );
    }
    assert_eq!(golden.len(), generated.len(), "{name} differs in length");
}

#[test]
fn greeter() {
    let include = manifest_dir().join("../proto");
    let files = generate("greeter", configure(), &include, "helloworld/greeter.proto");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["helloworld.rs"]);
    assert_golden("helloworld.rs", &files["helloworld.rs"]);
}

#[test]
fn keywords_nested_messages_imports_and_well_known_types_in_two_packages() {
    let files = generate(
        "features",
        configure(),
        &own_protos(),
        "features/service.proto",
    );
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["features.common.rs", "features.v1.rs"]
    );
    assert_golden("features.v1.rs", &files["features.v1.rs"]);
    assert_golden("features.common.rs", &files["features.common.rs"]);
}

#[test]
fn service_without_package() {
    let files = generate("no_package", configure(), &own_protos(), "no_package.proto");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["_.rs"]);
    assert_golden("no_package.rs", &files["_.rs"]);
}

#[test]
fn options() {
    let builder = configure()
        .use_arc_self(true)
        .generate_default_stubs(true)
        .codec_path("crate::MyCodec")
        .emit_package(false)
        .disable_comments([".features.common.Shared", "Common.Echo"])
        .client_attribute("Common", "#[cfg(feature = \"a\")]")
        .client_mod_attribute(".features", "#[cfg(feature = \"b\")]")
        .server_attribute(".", "#[cfg(feature = \"c\")]")
        .server_mod_attribute("features.common", "#[cfg(feature = \"d\")]")
        .trait_attribute(".features.common.Common", "#[cfg(feature = \"e\")]")
        .message_attribute(".", "#[derive(Eq)]")
        .client_attribute("Other", "#[cfg(feature = \"not_here\")]");
    let files = generate(
        "options",
        builder,
        &own_protos(),
        "features/common/types.proto",
    );
    assert_golden("options.rs", &files["features.common.rs"]);
}

#[test]
fn output_is_the_same_each_time() {
    let run = |test| generate(test, configure(), &own_protos(), "features/service.proto");
    assert_eq!(run("stable_a"), run("stable_b"));
}

#[test]
fn client_and_server_can_be_left_out() {
    let run = |test, builder| generate(test, builder, &own_protos(), "no_package.proto");
    let client = run("no_server", configure().build_server(false))
        .remove("_.rs")
        .unwrap();
    assert!(client.contains("mod bare_client") && !client.contains("mod bare_server"));
    let server = run("no_client", configure().build_client(false))
        .remove("_.rs")
        .unwrap();
    assert!(!server.contains("mod bare_client") && server.contains("mod bare_server"));
    assert!(client.contains("struct PingReply") && server.contains("struct PingReply"));
}

#[test]
fn services_under_an_extern_path_are_not_generated() {
    let builder = configure().extern_path(".features.common", "::other::common");
    let files = generate("extern", builder, &own_protos(), "features/service.proto");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["features.v1.rs"]);
    assert!(files["features.v1.rs"].contains("::other::common::shared::Part"));
}

#[test]
fn bytes_and_maps_accumulate_over_several_calls() {
    let include = empty_dir("accumulate_protos");
    let proto = "syntax = \"proto3\"; package a; message M { bytes x = 1; bytes y = 2; \
                 map<string, string> m = 3; map<string, string> n = 4; }";
    fs::write(include.join("a.proto"), proto).unwrap();
    let builder = configure()
        .bytes("M.x")
        .bytes("M.y")
        .btree_map("M.m")
        .btree_map("M.n");
    let code = generate("accumulate", builder, &include, "a.proto")
        .remove("a.rs")
        .unwrap();
    assert_eq!(code.matches("::prost::bytes::Bytes").count(), 2);
    assert_eq!(
        code.matches("::prost::alloc::collections::BTreeMap<")
            .count(),
        2
    );
}

#[test]
fn well_known_types_can_be_generated() {
    let builder = configure().compile_well_known_types(true);
    let files = generate(
        "well_known",
        builder,
        &own_protos(),
        "features/service.proto",
    );
    assert!(files["google.protobuf.rs"].contains("pub struct Empty"));
    let code = &files["features.v1.rs"];
    assert!(code.contains("super::super::super::google::protobuf::Empty"));
    assert!(code.contains("super::super::super::google::protobuf::StringValue"));
    assert!(!code.contains("prost_types"));
}

#[test]
fn files_can_be_named_relative_to_an_include_path_or_to_the_directory() {
    for (proto, include) in [
        ("no_package.proto", "tests/protos"),
        ("tests/protos/no_package.proto", "tests/protos"),
        ("tests/protos/no_package.proto", "."),
        ("./tests/protos/no_package.proto", "."),
    ] {
        let out = empty_dir("relative");
        let builder = configure().emit_rerun_if_changed(false).out_dir(&out);
        builder.compile_protos(&[proto], &[include]).unwrap();
        assert!(out.join("_.rs").exists(), "{proto} in {include}");
    }
}

#[test]
fn include_file_and_descriptor_set_are_written() {
    let directory = empty_dir("descriptors");
    let set = directory.join("set.bin");
    let builder = configure()
        .include_file("all.rs")
        .file_descriptor_set_path(&set);
    let files = generate(
        "include_file",
        builder,
        &own_protos(),
        "features/service.proto",
    );
    assert!(files["all.rs"].contains("pub mod common"));
    let bytes = fs::read(set).unwrap();
    for name in [
        "features/service.proto",
        "features/common/types.proto",
        "google/protobuf/any.proto",
    ] {
        let found = bytes
            .windows(name.len())
            .any(|window| window == name.as_bytes());
        assert!(found, "{name} is not in the descriptor set");
    }
}

#[test]
fn one_file_is_compiled_with_its_directory_as_include_path() {
    // `compile_protos` writes to OUT_DIR, which a test has not: the error says so, and comes after
    // the file was found and read.
    let error = homa_rpc_build::compile_protos(own_protos().join("no_package.proto")).unwrap_err();
    assert!(error.to_string().contains("OUT_DIR"), "{error}");
}
