//! What protoc takes is taken, and means the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Folder;

fn folder(name: &str) -> Folder {
    Folder::new("as_protoc", name)
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_file() {
    let folder = folder("bom")
        .file(
            "a.proto",
            "\u{feff}syntax = \"proto3\"; import \"b.proto\"; message A { B b = 1; }",
        )
        .file(
            "b.proto",
            "\u{feff}// Comment.\nsyntax = \"proto3\"; message B {}",
        )
        .file("c.proto", "\u{feff}syntax = \"proto3\" message");
    folder.compile(&["a.proto"]).unwrap();
    assert!(folder.code("_").contains("pub struct B"));
    let text = folder.error(&["c.proto"]);
    assert!(text.starts_with("c.proto:1:19: expected "), "{text}");
}

#[test]
fn infinities_and_no_numbers_are_values_of_options() {
    let proto = "syntax = \"proto3\"; package p; import \"google/protobuf/descriptor.proto\";
        message Limits { double at = 1; float near = 2; Kind kind = 3; }
        enum Kind { inf = 0; nan = 1; }
        extend google.protobuf.FieldOptions {
          double low = 50001; repeated float all = 50002; Limits limits = 50003; Kind kind = 50004;
        }
        message A { double x = 1 [(low) = -inf, (p.all) = nan, (all) = inf, (.p.all) = - inf,
          (limits).at = -nan, (limits).near = inf, (limits).kind = nan, (kind) = inf]; }";
    let folder = folder("infinities").file("a.proto", proto);
    let set = folder.path.join("set.bin");
    folder
        .compile_with(&["a.proto"], |b| b.file_descriptor_set_path(&set))
        .unwrap();
    let set = std::fs::read(set).unwrap();
    let is_there = |bytes: &[u8]| set.windows(bytes.len()).any(|window| window == bytes);
    // Number 50001, eight bytes.
    let low = [&[0x89, 0xb5, 0x18][..], &f64::NEG_INFINITY.to_le_bytes()].concat();
    assert!(is_there(&low));
    let infinite = f32::INFINITY.to_le_bytes();
    assert!(is_there(&infinite) && is_there(&f32::NEG_INFINITY.to_le_bytes()));
    let text = folder.file("b.proto", "syntax = \"proto3\"; option deprecated = -inf;");
    assert!(text.error(&["b.proto"]).starts_with("b.proto:1:20: "));
}

#[test]
fn a_range_of_extensions_can_be_one_number_with_options() {
    let proto = "syntax = \"proto2\"; message A { extensions 7 [verification = UNVERIFIED]; \
                 extensions 8 to 10, 12 /* . */ [verification = DECLARATION]; nonsense }";
    let folder = folder("ranges").file("a.proto", proto);
    let text = folder.error(&["a.proto"]);
    let column = proto.find('}').unwrap() + 1;
    assert!(text.starts_with(&format!("a.proto:1:{column}: ")), "{text}");
    let folder = folder.file("a.proto", proto.replace("nonsense", ""));
    folder.compile(&["a.proto"]).unwrap();
}

#[test]
fn oneofs_that_stand_for_optional_fields_have_free_names() {
    let proto = "syntax = \"proto3\"; message M { optional int32 _x = 1; optional int32 y = 2; \
                 oneof X_x { int32 z = 3; } message _y {} }";
    folder("synthetic")
        .file("a.proto", proto)
        .compile(&["a.proto"])
        .unwrap();
    let proto = "syntax = \"proto3\";\nmessage M {\n  oneof _x { int32 y = 1; }\n  optional int32 x = 2;\n}";
    let text = folder("synthetic_clash")
        .file("a.proto", proto)
        .error(&["a.proto"]);
    assert_eq!(
        text,
        "a.proto:3:3: field `x` and oneof `_x` would both be `x` in Rust: rename one"
    );
}

#[test]
fn copies_of_the_well_known_files_are_not_read_unless_they_are_given() {
    let folder = folder("copies")
        .file(
            "google/protobuf/descriptor.proto",
            "edition = \"2099\"; nonsense",
        )
        .file(
            "google/protobuf/timestamp.proto",
            "syntax = \"proto3\"; nonsense",
        )
        .file(
            "a.proto",
            "syntax = \"proto3\"; package a; import \"google/protobuf/timestamp.proto\"; \
             import \"google/protobuf/descriptor.proto\"; \
             message A { google.protobuf.Timestamp t = 1; }",
        );
    folder.compile(&["a.proto"]).unwrap();
    assert!(folder.code("a").contains("::prost_types::Timestamp"));
    let text = folder.error(&["google/protobuf/timestamp.proto"]);
    assert!(
        text.starts_with("google/protobuf/timestamp.proto:1:20: "),
        "{text}"
    );
}

/// Every order in which three files can be given.
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

#[test]
fn names_are_looked_up_in_what_a_file_imports_in_any_order() {
    let names = ["far.proto", "near.proto", "leaf.proto"];
    let far = "syntax = \"proto3\"; package org.app.api.types.far; message Far {} \
               message Options {}";
    // The file in between imports what would hide its package, or does not.
    for import in ["", "import \"far.proto\";"] {
        let near = format!(
            "syntax = \"proto3\"; package org.api.types.near; {import} \
             import \"google/protobuf/descriptor.proto\"; message Near {{}} \
             extend google.protobuf.FieldOptions {{ string mark = 50001; }}"
        );
        let leaf = "syntax = \"proto3\"; package org.app.leaf; import \"near.proto\"; \
                    message Leaf { api.types.near.Near n = 1 [(api.types.near.mark) = \"x\"]; } \
                    service S { rpc Get(api.types.near.Near) returns (Leaf); }";
        for (index, order) in ORDERS.iter().enumerate() {
            let folder = folder(&format!("scope_{}_{index}", import.len()))
                .file(names[0], far)
                .file(names[1], &near)
                .file(names[2], leaf);
            let files: Vec<_> = order.iter().map(|&index| names[index]).collect();
            folder.compile(&files).unwrap();
            assert!(
                folder
                    .code("org.app.leaf")
                    .contains("super::super::api::types::near::Near")
            );
        }
    }
}

#[test]
fn what_is_imported_by_an_import_is_seen_only_if_that_is_public() {
    let compile = |name: &str, import: &str| {
        folder(name)
            .file(
                "a.proto",
                "syntax = \"proto3\"; import \"b.proto\"; message A { c.C c = 1; }",
            )
            .file(
                "b.proto",
                format!("syntax = \"proto3\"; {import} \"c.proto\";"),
            )
            .file("c.proto", "syntax = \"proto3\"; package c; message C {}")
            .compile(&["a.proto", "c.proto"])
    };
    compile("public", "import public").unwrap();
    let text = compile("private", "import").unwrap_err().to_string();
    assert!(
        text.contains("a.proto:1:50: ") && text.contains("c.C"),
        "{text}"
    );
}

#[test]
fn imports_are_built_where_they_are_needed_without_their_services() {
    let folder = folder("imports")
        .file(
            "ours.proto",
            "syntax = \"proto3\"; package ours; import \"theirs.proto\"; import \"options.proto\"; \
             service Shop { rpc Buy(theirs.Item) returns (theirs.Item); }",
        )
        .file(
            "theirs.proto",
            "syntax = \"proto3\"; package theirs; import \"deep.proto\"; \
             message Item { deep.Part part = 1; } \
             service Watch { rpc All(Item) returns (stream Item); }",
        )
        .file(
            "deep.proto",
            "syntax = \"proto3\"; package deep; message Part {}",
        )
        .file(
            "options.proto",
            "syntax = \"proto3\"; package options; import \"google/protobuf/descriptor.proto\"; \
             message Rule {} extend google.protobuf.FieldOptions { Rule rule = 50001; }",
        );
    folder
        .compile_with(&["ours.proto"], |builder| builder.include_file("all.rs"))
        .unwrap();
    assert_eq!(
        folder.written(),
        ["all.rs", "deep.rs", "ours.rs", "theirs.rs"]
    );
    assert!(!folder.code("theirs").contains("watch_"));
}
