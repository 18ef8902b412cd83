//! All errors of one kind come in one run, each with what can be done.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Folder;
use homa_rpc_build::Error;

/// Compiles twenty files, the content of which `content` gives by number.
fn twenty(name: &str, content: impl Fn(usize) -> String) -> (Error, String) {
    let files: Vec<_> = (0..20).map(|n| format!("f{n:02}.proto")).collect();
    let mut folder = Folder::new("all_at_once", name);
    for (n, file) in files.iter().enumerate() {
        folder = folder.file(file, content(n));
    }
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let error = folder.compile(&files).unwrap_err();
    let text = folder.without_folder(&error);
    (error, text)
}

#[track_caller]
fn assert_lines(text: &str, first: &str, more: usize) {
    assert_eq!(text.lines().count(), 11, "{text}");
    assert!(text.starts_with(first), "{text}");
    let last = format!("\nand {more} more of this kind");
    assert!(text.ends_with(&last), "{text}");
}

#[test]
fn syntax_errors_missing_imports_and_names_that_are_not_defined() {
    let (error, text) = twenty("syntax", |n| match n % 2 {
        0 => "syntax = \"proto3\";\n message {}".to_owned(),
        _ => "syntax = \"proto3\";\n import \"x.proto\";".to_owned(),
    });
    assert!(matches!(error, Error::Invalid(_)));
    assert_lines(&text, "f00.proto:2:10: expected ", 10);
    let (error, text) = twenty("types", |n| {
        format!("package p{n};\nmessage A {{ optional B b = 1; }}")
    });
    assert!(matches!(error, Error::Invalid(_)));
    assert_lines(&text, "f00.proto:2:22: name 'B' is not defined", 10);
}

#[test]
fn editions_and_names() {
    let (error, text) = twenty("editions", |_| "edition = \"2023\";".to_owned());
    assert!(matches!(error, Error::Edition(_)));
    assert_lines(&text, "f00.proto:1:1: edition files", 10);
    let (error, text) = twenty("names", |n| {
        format!("package p{n}; message A {{\n optional int32 a = 1; optional int32 A = 2; }}")
    });
    assert!(matches!(error, Error::Name(_)));
    assert_lines(&text, "f00.proto:2:24: field `a` and field `A`", 10);
}

#[test]
fn one_error_is_one_line() {
    let folder = Folder::new("all_at_once", "one").file("a.proto", "nonsense");
    assert_eq!(folder.error(&["a.proto"]).lines().count(), 1);
}

#[test]
fn what_imports_a_wrong_file_is_not_blamed() {
    let folder = Folder::new("all_at_once", "blame")
        .file(
            "a.proto",
            "import \"b.proto\"; message A { optional B b = 1; }",
        )
        .file("b.proto", "message B { optional C c = 1; }");
    let text = folder.error(&["a.proto", "b.proto"]);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("b.proto:1:22: "), "{text}");
}

#[test]
fn methods_of_fields_that_clash_are_named_with_their_place() {
    let field = |types: &str| {
        format!("syntax = \"proto3\"; enum E {{ Z = 0; }}\nmessage M {{\n  {types}\n}}\n")
    };
    for (name, fields, expected) in [
        (
            "set",
            "E mode = 1; E set_mode = 2;",
            "15: field `mode` and field `set_mode` would both have the method `set_mode`",
        ),
        (
            "set_first",
            "E set_mode = 1; E mode = 2;",
            "19: field `set_mode` and field `mode` would both have the method `set_mode`",
        ),
        (
            "push",
            "repeated E x = 1; optional int32 push_x = 2;",
            "21: field `x` and field `push_x` would both have the method `push_x`",
        ),
        (
            "get",
            "map<int32, E> k = 1; E get_k = 2;",
            "24: field `k` and field `get_k` would both have the method `get_k`",
        ),
        (
            "insert",
            "map<int32, E> k = 1; optional string insert_k = 2;",
            "24: field `k` and field `insert_k` would both have the method `insert_k`",
        ),
        (
            "keyword",
            "map<int32, E> type = 1; E insert_type_ = 2; E get_type = 3;",
            "",
        ),
        (
            "messages",
            "M mode = 1; M set_mode = 2; E a = 3; int32 set_a = 4; oneof o { E set_b = 5; } E b = 6;",
            "",
        ),
    ] {
        let folder = Folder::new("all_at_once", name).file("a.proto", field(fields));
        match folder.compile(&["a.proto"]) {
            Ok(()) => assert_eq!(expected, "", "{name}"),
            Err(error) => {
                let text = folder.without_folder(&error);
                let expected = format!("a.proto:3:{expected} in Rust: rename one");
                assert_eq!(text, expected, "{name}");
            }
        }
    }
}

#[test]
fn what_is_too_deep_is_an_error_with_its_place() {
    let deep = "{a ".repeat(20_000);
    let proto = format!("syntax = \"proto3\";\noption (m) = {deep};");
    let text = Folder::new("all_at_once", "deep")
        .file("a.proto", proto)
        .error(&["a.proto"]);
    assert_eq!(
        text,
        "a.proto:2:314: brackets within brackets: expected at most 100 levels"
    );
    let mut folder = Folder::new("all_at_once", "chain");
    for n in 0..1000 {
        let import = format!("import \"f{}.proto\";", n + 1);
        folder = folder.file(&format!("f{n}.proto"), import);
    }
    let text = folder.error(&["f0.proto"]);
    assert_eq!(
        text,
        "f200.proto: imports of imports: expected at most 200 levels"
    );
}
