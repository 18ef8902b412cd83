//! No file is written over another, and options that are common elsewhere are understood.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Folder;
use homa_rpc_build::{Builder, Error};

fn folder(name: &str) -> Folder {
    Folder::new("overwriting", name)
        .file("a.proto", "syntax = \"proto3\"; package pack; message A {}")
        .file("b.proto", "syntax = \"proto3\"; package pack; message B {}")
        .file("none.proto", "syntax = \"proto3\"; message None {}")
}

#[track_caller]
fn assert_overwritten(
    folder: &Folder,
    files: &[&str],
    set: impl FnOnce(Builder) -> Builder,
) -> String {
    let before = folder.written();
    let error = folder.compile_with(files, set).unwrap_err();
    assert!(matches!(error, Error::Overwritten { .. }), "{error}");
    assert_eq!(folder.written(), before);
    folder.without_folder(&error)
}

#[test]
fn a_package_in_two_runs() {
    let folder = folder("twice");
    folder.compile(&["a.proto"]).unwrap();
    folder.compile(&["a.proto"]).unwrap();
    let text = assert_overwritten(&folder, &["b.proto"], |builder| builder);
    assert!(
        text.starts_with(
            "out/pack.rs would be overwritten: package `pack` and package `pack` both go there: \
             give all files to one run"
        ),
        "{text}"
    );
    assert!(folder.code("pack").contains("struct A"));
    folder
        .compile_with(&["b.proto"], |b| b.out_dir(&folder.path))
        .unwrap();
}

#[test]
fn names_of_files_that_are_those_of_packages() {
    let folder = folder("names");
    let text = assert_overwritten(&folder, &["a.proto", "none.proto"], |builder| {
        builder.default_package_filename("pack")
    });
    assert!(text.contains("what is in no package"), "{text}");
    let text = assert_overwritten(&folder, &["a.proto"], |builder| {
        builder.include_file("./pack.rs")
    });
    assert!(
        text.contains("the include file") && text.contains("another name"),
        "{text}"
    );
    let same = folder.path.join("out").join(".").join("pack.rs");
    let text = assert_overwritten(&folder, &["a.proto"], |builder| {
        builder.file_descriptor_set_path(same)
    });
    assert!(text.contains("the descriptor set"), "{text}");
    let _ = assert_overwritten(&folder, &["a.proto"], |builder| {
        let set = folder.path.join("out/x.rs");
        builder.include_file("x.rs").file_descriptor_set_path(set)
    });
}

const KNOWN: &str = "syntax = \"proto3\"; package k; import \"google/protobuf/wrappers.proto\"; \
     import \"google/protobuf/duration.proto\"; \
     message A { google.protobuf.Duration d = 1; google.protobuf.StringValue s = 2; }";

#[test]
fn the_crate_of_the_well_known_types_can_be_named() {
    let folder = folder("known").file("k.proto", KNOWN);
    folder
        .compile_with(&["k.proto"], |b| {
            b.extern_path(".google.protobuf", "::prost_types")
        })
        .unwrap();
    assert!(folder.code("k").contains("::prost_types::Duration"));

    for path in [".google.protobuf", ".google.protobuf.StringValue"] {
        let set = |builder: Builder| builder.extern_path(path, "::other::types");
        let error = folder.compile_with(&["k.proto"], set).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "option `extern_path`: expected `compile_well_known_types(true)` beside it, for \
                 this path, found `{path}`"
            )
        );
    }

    let folder = Folder::new("overwriting", "known_others").file("k.proto", KNOWN);
    folder
        .compile_with(&["k.proto"], |builder| {
            builder
                .extern_path(".google.protobuf", "::other::types")
                .compile_well_known_types(true)
        })
        .unwrap();
    let code = folder.code("k");
    assert!(
        code.contains("::other::types::Duration") && code.contains("::other::types::StringValue")
    );
    assert_eq!(folder.written(), ["k.rs"]);
}

#[test]
fn a_path_that_no_import_can_have_is_explained() {
    for (name, import) in [
        ("dot", "./b.proto"),
        ("up", "../b.proto"),
        ("empty", "a//b.proto"),
    ] {
        let proto = format!("syntax = \"proto3\";\nimport \"{import}\";");
        let text = Folder::new("overwriting", name)
            .file("a.proto", proto)
            .error(&["a.proto"]);
        assert!(
            text.starts_with(&format!(
                "a.proto:2:8: invalid import \"{import}\": expected a path"
            )),
            "{text}"
        );
    }
    let text = Folder::new("overwriting", "group")
        .file("a.proto", "message A { optional group b = 1 {} }")
        .error(&["a.proto"]);
    assert_eq!(text, "a.proto:1:28: invalid group name");
}

#[test]
fn a_message_called_like_a_package_can_be_had_from_another_run() {
    let folder = Folder::new("overwriting", "part")
        .file(
            "a.proto",
            "syntax = \"proto3\"; package p; import \"b.proto\"; message Q { message R {} q.X x = 1; }",
        )
        .file("b.proto", "syntax = \"proto3\"; package p.q; message X {}");
    let all = |builder: Builder| builder.include_file("all.rs");
    let error = folder.compile_with(&["a.proto"], all).unwrap_err();
    assert!(matches!(error, Error::Name(_)), "{error}");
    folder
        .compile_with(&["a.proto"], |b| {
            all(b).extern_path(".p.q", "crate::parts::p::q")
        })
        .unwrap();
    assert!(folder.code("p").contains("crate::parts::p::q::X"));
}
