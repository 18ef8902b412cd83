//! What wrong input gives: the text a user sees, with file, line and column.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use homa_rpc_build::{Error, configure};
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};

struct Case {
    directory: PathBuf,
}

impl Case {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("errors")
            .join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("out")).unwrap();
        Self { directory }
    }

    fn file(self, name: &str, content: &str) -> Self {
        fs::write(self.directory.join(name), content).unwrap();
        self
    }

    /// Compiles `a.proto` and gives the error and its text without the directory.
    fn error(&self) -> (Error, String) {
        let error = configure()
            .emit_rerun_if_changed(false)
            .out_dir(self.directory.join("out"))
            .compile_protos(&[self.directory.join("a.proto")], &[&self.directory])
            .unwrap_err();
        let written: Vec<_> = fs::read_dir(self.directory.join("out")).unwrap().collect();
        assert!(written.is_empty(), "{written:?}");
        let text = error
            .to_string()
            .replace(&format!("{}/", self.directory.display()), "");
        (error, text)
    }

    fn text(&self) -> String {
        self.error().1
    }
}

#[test]
fn syntax_error_has_line_and_column() {
    let case = Case::new("syntax").file(
        "a.proto",
        "syntax = \"proto3\";\nmessage A {\n  int32 = 1;\n}\n",
    );
    let text = case.text();
    assert!(text.starts_with("a.proto:3:9: expected "), "{text}");
}

#[test]
fn unexpected_end_has_line_and_column() {
    let case = Case::new("end").file("a.proto", "syntax = \"proto3\";\nmessage A {\n");
    let text = case.text();
    assert!(text.starts_with("a.proto:3:1: expected "), "{text}");
    assert!(text.contains("end of file"), "{text}");
}

#[test]
fn missing_import_has_line_and_column_of_the_import() {
    let case = Case::new("import").file("a.proto", "syntax = \"proto3\";\n\nimport \"b.proto\";\n");
    assert_eq!(case.text(), "a.proto:3:1: import 'b.proto' not found");
}

#[test]
fn error_in_an_imported_file_names_that_file() {
    let case = Case::new("imported")
        .file("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n")
        .file("b.proto", "syntax = \"proto3\";\n\n  nonsense\n");
    let text = case.text();
    assert!(text.starts_with("b.proto:3:3: expected "), "{text}");
}

#[test]
fn unknown_type_has_line_and_column() {
    let case = Case::new("type").file(
        "a.proto",
        "syntax = \"proto3\";\nmessage A {\n  Missing m = 1;\n}\n",
    );
    let text = case.text();
    assert!(text.starts_with("a.proto:3:3: "), "{text}");
    assert!(text.contains("'Missing'"), "{text}");
}

#[test]
fn import_cycle_names_the_files() {
    let case = Case::new("cycle")
        .file("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n")
        .file("b.proto", "syntax = \"proto3\";\nimport \"a.proto\";\n");
    let text = case.text();
    assert!(text.contains("a.proto -> b.proto -> a.proto"), "{text}");
}

#[test]
fn missing_file_is_named_with_the_include_paths() {
    let case = Case::new("missing");
    let text = case.error().0.to_string();
    assert!(
        text.contains("a.proto: file not found, include paths: "),
        "{text}"
    );
}

#[test]
fn file_outside_the_include_paths_is_named() {
    let case = Case::new("outside").file("a.proto", "syntax = \"proto3\";");
    let error = configure()
        .compile_protos(
            &[case.directory.join("a.proto")],
            &[case.directory.join("out")],
        )
        .unwrap_err()
        .to_string();
    assert!(error.contains("a.proto"), "{error}");
    assert!(error.contains("not in any include path"), "{error}");
}

#[test]
fn file_that_is_not_text_is_named() {
    let case = Case::new("binary");
    fs::write(case.directory.join("a.proto"), [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(case.text(), "a.proto: file 'a.proto' is not valid utf-8");
}

#[test]
fn streaming_method_is_refused_with_its_place() {
    for (name, rpc) in [
        ("server_stream", "rpc Chat(A) returns (stream A);"),
        ("client_stream", "rpc Chat(stream A) returns (A);"),
    ] {
        let proto = format!(
            "syntax = \"proto3\";\npackage p.q;\nmessage A {{}}\nservice S {{\n  rpc Fine(A) returns (A);\n  {rpc}\n}}\n"
        );
        let (error, text) = Case::new(name).file("a.proto", &proto).error();
        assert!(matches!(error, Error::Streaming { .. }));
        assert_eq!(
            text,
            "a.proto:6:3: method `Chat` of service `p.q.S` uses `stream`: streaming is not \
             supported yet, only unary methods are"
        );
    }
}

#[test]
fn streaming_methods_do_not_matter_if_only_messages_are_wanted() {
    let proto = "syntax = \"proto3\"; message A {} service S { rpc M(A) returns (stream A); }";
    let case = Case::new("messages_only").file("a.proto", proto);
    let out = case.directory.join("out");
    configure()
        .build_client(false)
        .build_server(false)
        .emit_rerun_if_changed(false)
        .out_dir(&out)
        .compile_protos(&[case.directory.join("a.proto")], &[&case.directory])
        .unwrap();
    assert!(
        fs::read_to_string(out.join("_.rs"))
            .unwrap()
            .contains("pub struct A")
    );
}

#[test]
fn error_without_a_position_names_the_file() {
    let proto = "syntax = \"proto3\";\npackage a;\npackage b;\n";
    let text = Case::new("two_packages").file("a.proto", proto).text();
    assert_eq!(text, "a.proto: multiple package names specified");
}

#[test]
fn edition_file_is_refused_with_its_place() {
    let case = Case::new("edition").file(
        "a.proto",
        "// Comment.\nedition = \"2023\";\nmessage A {}\n",
    );
    let (error, text) = case.error();
    assert!(matches!(error, Error::Edition { .. }));
    assert!(
        text.starts_with("a.proto:2:1: edition files are not supported yet"),
        "{text}"
    );
}

#[test]
fn imported_edition_file_is_refused() {
    let case = Case::new("edition_import")
        .file("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n")
        .file("b.proto", "edition = \"2023\";\n");
    let text = case.text();
    assert!(text.starts_with("b.proto:1:1: edition files"), "{text}");
}

#[test]
fn debug_prints_what_display_prints() {
    let case = Case::new("debug").file("a.proto", "nonsense");
    let error = case.error().0;
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[test]
fn wrong_option_values_are_named() {
    let error = |builder: homa_rpc_build::Builder| {
        builder
            .compile_fds(FileDescriptorSet::default())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(configure().extern_path(".a", "other::a")),
        "option `extern_path`: expected a Rust path that starts with `::` or `crate::`, found `other::a`"
    );
    let attribute = error(configure().client_attribute(".", "derive(Eq)"));
    assert!(
        attribute.starts_with("option `client_attribute`: "),
        "{attribute}"
    );
    let codec = error(configure().codec_path("a::(b"));
    assert!(codec.starts_with("option `codec_path`: "), "{codec}");
}

#[test]
fn descriptors_made_elsewhere_are_checked_too() {
    let file = |syntax: &str, streaming| FileDescriptorProto {
        name: Some("x.proto".to_owned()),
        syntax: Some(syntax.to_owned()),
        service: vec![ServiceDescriptorProto {
            name: Some("S".to_owned()),
            method: vec![MethodDescriptorProto {
                name: Some("M".to_owned()),
                server_streaming: Some(streaming),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let error = |file| {
        let set = FileDescriptorSet { file: vec![file] };
        configure().compile_fds(set).unwrap_err().to_string()
    };
    let streaming = error(file("proto3", true));
    assert!(
        streaming.starts_with("x.proto: method `M` of service `S` uses `stream`"),
        "{streaming}"
    );
    let edition = error(file("editions", false));
    assert!(edition.starts_with("x.proto: edition files"), "{edition}");
}
