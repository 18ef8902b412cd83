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
    assert_eq!(
        case.text(),
        "a.proto: the file is not UTF-8 text: see byte 0"
    );
}

#[test]
fn services_are_left_out_if_only_messages_are_wanted() {
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
    let file = |syntax: &str, service: &str| FileDescriptorProto {
        name: Some("x.proto".to_owned()),
        syntax: Some(syntax.to_owned()),
        service: vec![ServiceDescriptorProto {
            name: Some(service.to_owned()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let error = |file| {
        let set = FileDescriptorSet { file: vec![file] };
        configure().compile_fds(set).unwrap_err().to_string()
    };
    let name = error(file("proto3", "_"));
    assert_eq!(
        name,
        "x.proto: `_` cannot be made a name of Rust: rename it"
    );
    let edition = error(file("editions", "S"));
    assert!(edition.starts_with("x.proto: edition files"), "{edition}");
}

#[test]
fn custom_option_that_is_not_defined_has_line_and_column() {
    for (name, option) in [
        ("unknown_option", "option (my.option) = 1;"),
        ("unknown_builtin", "option no_such_option = true;"),
        ("unknown_nested", "option (my.option).part = 1;"),
    ] {
        let proto = format!("syntax = \"proto3\";\npackage my;\n{option}\nmessage A {{}}\n");
        let text = Case::new(name).file("a.proto", &proto).text();
        assert!(text.starts_with("a.proto:3:"), "{text}");
        assert!(text.contains("option"), "{text}");
    }
}

#[test]
fn names_that_are_the_same_in_rust_have_line_and_column() {
    let service =
        "message A {}\nservice S {\n  rpc GetIt(A) returns (A);\n  rpc get_it(A) returns (A);\n}";
    for (name, body, expected) in [
        (
            "fields",
            "message M {\n  optional int32 a = 1;\n  optional int32 A = 2;\n}",
            "4:3: field `a` and field `A` would both be `a` in Rust: rename one",
        ),
        (
            "oneof_and_field",
            "message M {\n  optional int32 one = 1;\n  oneof One {\n    int32 two = 2;\n  }\n}",
            "4:3: field `one` and oneof `One` would both be `one` in Rust: rename one",
        ),
        (
            "variants",
            "message M {\n  oneof o {\n    int32 a_b = 1;\n    int32 A_b = 2;\n  }\n}",
            "5:5: field `a_b` and field `A_b` would both be `AB` in Rust: rename one",
        ),
        (
            "messages",
            "message FooBar {}\nmessage foo_bar {}",
            "3:1: message `p.FooBar` and message `p.foo_bar` would both be `FooBar` in Rust: rename one",
        ),
        (
            "message_and_enum",
            "message Foo {\n  message Bar {}\n  enum bar { ZERO = 0; }\n}",
            "4:3: message `p.Foo.Bar` and enum `p.Foo.bar` would both be `Bar` in Rust: rename one",
        ),
        (
            "methods",
            service,
            "5:3: method `GetIt` and method `get_it` would both be `get_it` in Rust: rename one",
        ),
        (
            "methods_of_the_client",
            "message A {}\nservice S {\n  rpc New(A) returns (A);\n  rpc New_(A) returns (A);\n}",
            "5:3: method `New` and method `New_` would both be `new_` in Rust: rename one",
        ),
        (
            "services",
            "service HTTPApi {}\nservice HttpApi {}",
            "3:1: the client of service `p.HTTPApi` and the client of service `p.HttpApi` would both be \
             `http_api_client` in Rust: rename one",
        ),
        (
            "module_of_a_message",
            "message GreeterClient {\n  message Inner {}\n}\nservice Greeter {}",
            "5:1: the module of what is in message `p.GreeterClient` and the client of service \
             `p.Greeter` would both be `greeter_client` in Rust: rename one",
        ),
        (
            "values",
            "enum Color {\n  COLOR_RED = 0;\n  RED = 1;\n}",
            "4:3: value `COLOR_RED` and value `RED` would both be `Red` in Rust: rename one, or set the \
             option `retain_enum_prefix` of the builder",
        ),
        (
            "underscore",
            "message M {\n  optional int32 _ = 1;\n}",
            "3:3: `_` cannot be made a name of Rust: rename it",
        ),
    ] {
        // proto3 has rules of its own against some of these.
        let proto = format!("syntax = \"proto2\"; package p;\n{body}\n");
        let (error, text) = Case::new(name).file("a.proto", &proto).error();
        assert!(matches!(error, Error::Name { .. }), "{name}: {text}");
        assert_eq!(text, format!("a.proto:{expected}"), "{name}");
    }
}

#[test]
fn a_message_with_the_name_of_a_package_matters_only_in_an_include_file() {
    let case = Case::new("package_and_message")
        .file(
            "a.proto",
            "syntax = \"proto3\";\npackage p;\nimport \"b.proto\";\nmessage Q { message R {} q.X x = 1; }\n",
        )
        .file("b.proto", "syntax = \"proto3\";\npackage p.q;\nmessage X {}\n");
    let out = case.directory.join("out");
    let builder = || configure().emit_rerun_if_changed(false).out_dir(&out);
    let compile = |builder: homa_rpc_build::Builder| {
        builder.compile_protos(&[case.directory.join("a.proto")], &[&case.directory])
    };
    let text = compile(builder().include_file("all.rs"))
        .unwrap_err()
        .to_string();
    let expected = "a.proto:4:1: package `p.q` and the module of what is in message `p.Q` would both \
                    be `q` in Rust: rename one; or compile the files of one of them in a run of its own \
                    and name its module by `extern_path` in the other; or go without `include_file`";
    assert!(text.contains(expected), "{text}");
    compile(builder()).unwrap();
}

#[test]
fn streams_that_clash_matter_in_the_trait_of_a_server_only() {
    let proto = "syntax = \"proto3\"; message A {} service S {\n\
                 rpc A_1(A) returns (stream A);\nrpc a1(A) returns (stream A);\n\
                 rpc b_1(A) returns (A);\nrpc B1(stream A) returns (A); }";
    let case = Case::new("streams_of_methods").file("a.proto", proto);
    let (error, text) = case.error();
    assert!(matches!(error, Error::Name { .. }), "{text}");
    assert_eq!(
        text,
        "a.proto:3:1: the stream of method `A_1` and the stream of method `a1` would both be \
         `A1Stream` in Rust: rename one"
    );
    type Set = fn(homa_rpc_build::Builder) -> homa_rpc_build::Builder;
    let fine: [Set; 2] = [
        |b| b.build_server(false),
        |b| b.generate_default_stubs(true),
    ];
    for (number, set) in fine.into_iter().enumerate() {
        let out = case.directory.join(format!("out{number}"));
        fs::create_dir_all(&out).unwrap();
        let builder = configure().emit_rerun_if_changed(false).out_dir(&out);
        set(builder)
            .compile_protos(&[case.directory.join("a.proto")], &[&case.directory])
            .unwrap();
    }
}

#[test]
fn enum_values_that_clash_without_the_prefix_can_keep_it() {
    let proto = "syntax = \"proto3\"; enum Color { COLOR_RED = 0; RED = 1; }";
    let case = Case::new("retain_prefix").file("a.proto", proto);
    let out = case.directory.join("out");
    configure()
        .retain_enum_prefix(true)
        .emit_rerun_if_changed(false)
        .out_dir(&out)
        .compile_protos(&[case.directory.join("a.proto")], &[&case.directory])
        .unwrap();
    let code = fs::read_to_string(out.join("_.rs")).unwrap();
    assert!(
        code.contains("ColorRed = 0") && code.contains("Red = 1"),
        "{code}"
    );
}

#[allow(clippy::too_many_lines, reason = "a table")]
#[test]
fn wrong_values_are_refused_by_every_option_before_anything_is_compiled() {
    type Set = fn(homa_rpc_build::Builder, &str) -> homa_rpc_build::Builder;
    let attributes: [(&str, Set); 9] = [
        ("type_attribute", |b, a| b.type_attribute(".", a)),
        ("field_attribute", |b, a| b.field_attribute(".", a)),
        ("message_attribute", |b, a| b.message_attribute(".", a)),
        ("enum_attribute", |b, a| b.enum_attribute(".", a)),
        ("client_attribute", |b, a| b.client_attribute(".", a)),
        ("client_mod_attribute", |b, a| {
            b.client_mod_attribute(".", a)
        }),
        ("server_attribute", |b, a| b.server_attribute(".", a)),
        ("server_mod_attribute", |b, a| {
            b.server_mod_attribute(".", a)
        }),
        ("trait_attribute", |b, a| b.trait_attribute(".", a)),
    ];
    for (option, set) in attributes {
        for wrong in [
            "",
            "derive(Eq)",
            "#[derive(Eq",
            "#[a] fn f() {}",
            "\"",
            "#![a]",
        ] {
            assert_refused(option, set(configure(), wrong));
        }
    }
    let paths: [(&str, Set); 15] = [
        ("type_attribute", |b, p| b.type_attribute(p, "#[a]")),
        ("field_attribute", |b, p| b.field_attribute(p, "#[a]")),
        ("message_attribute", |b, p| b.message_attribute(p, "#[a]")),
        ("enum_attribute", |b, p| b.enum_attribute(p, "#[a]")),
        ("client_attribute", |b, p| b.client_attribute(p, "#[a]")),
        ("client_mod_attribute", |b, p| {
            b.client_mod_attribute(p, "#[a]")
        }),
        ("server_attribute", |b, p| b.server_attribute(p, "#[a]")),
        ("server_mod_attribute", |b, p| {
            b.server_mod_attribute(p, "#[a]")
        }),
        ("trait_attribute", |b, p| b.trait_attribute(p, "#[a]")),
        ("boxed", |b, p| b.boxed(p)),
        ("bytes", |b, p| b.bytes(p)),
        ("btree_map", |b, p| b.btree_map(p)),
        ("skip_debug", |b, p| b.skip_debug([p])),
        ("disable_comments", |b, p| b.disable_comments([p])),
        ("type_name_domain", |b, p| {
            b.type_name_domain([p], "example.com")
        }),
    ];
    for (option, set) in paths {
        for wrong in ["", "a b", "a::B", "a.", "..a", "é"] {
            assert_refused(option, set(configure(), wrong));
        }
    }
    for (proto, rust) in [
        ("a", "::a"),
        (".", "::a"),
        (".a", "a::b"),
        (".a", "::a::"),
        (".a", "::a b"),
        (".a b", "::a"),
    ] {
        assert_refused("extern_path", configure().extern_path(proto, rust));
    }
    let twice = configure()
        .extern_path(".a", "::a")
        .extern_path(".a", "::b");
    assert_refused("extern_path", twice);
    for wrong in ["", "a b", "a<", "()", "a::"] {
        assert_refused("codec_path", configure().codec_path(wrong));
    }
}

#[track_caller]
fn assert_refused(option: &str, builder: homa_rpc_build::Builder) {
    let error = builder
        .compile_fds(FileDescriptorSet::default())
        .unwrap_err();
    assert!(matches!(error, Error::Option { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("option `{option}`: expected ")),
        "{text}"
    );
}

#[test]
fn directory_that_is_not_there_is_named() {
    let case = Case::new("no_directory").file("a.proto", "syntax = \"proto3\"; message A {}");
    let error = configure()
        .emit_rerun_if_changed(false)
        .out_dir(case.directory.join("nowhere"))
        .compile_protos(&[case.directory.join("a.proto")], &[&case.directory])
        .unwrap_err();
    assert!(matches!(error, Error::Write { .. }));
    assert!(error.to_string().contains("nowhere/_.rs: "), "{error}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn descriptors_that_are_not_consistent_are_errors() {
    use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};

    let message = |name: &str, fields| DescriptorProto {
        name: Some(name.to_owned()),
        field: fields,
        ..DescriptorProto::default()
    };
    let field = |name: &str, type_name: &str| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(1),
        r#type: Some(11),
        type_name: Some(type_name.to_owned()),
        ..FieldDescriptorProto::default()
    };
    let method = MethodDescriptorProto {
        name: Some("M".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("x.proto".to_owned()),
        package: Some("p".to_owned()),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    };
    for (file, expected) in [
        (
            FileDescriptorProto {
                message_type: vec![message("A", vec![field("f", ".p.Missing")])],
                ..file.clone()
            },
            "p.Missing",
        ),
        (
            FileDescriptorProto {
                message_type: vec![message("A", vec![field("f", "")])],
                ..file.clone()
            },
            "",
        ),
        (
            FileDescriptorProto {
                message_type: vec![message("A b", Vec::new())],
                ..file.clone()
            },
            "`A b` cannot be made a name of Rust",
        ),
        (
            FileDescriptorProto {
                message_type: vec![DescriptorProto::default()],
                ..file.clone()
            },
            "`` cannot be made a name of Rust",
        ),
        (
            FileDescriptorProto {
                enum_type: vec![EnumDescriptorProto {
                    name: Some("E".to_owned()),
                    ..EnumDescriptorProto::default()
                }],
                ..file.clone()
            },
            "",
        ),
        (
            FileDescriptorProto {
                package: Some("p..q".to_owned()),
                ..file.clone()
            },
            "`p..q` cannot be made a name of Rust",
        ),
        (
            FileDescriptorProto {
                dependency: vec!["missing.proto".to_owned()],
                ..file.clone()
            },
            "missing.proto",
        ),
        (
            FileDescriptorProto {
                service: vec![ServiceDescriptorProto {
                    name: Some("S".to_owned()),
                    method: vec![method],
                    ..ServiceDescriptorProto::default()
                }],
                ..file.clone()
            },
            "",
        ),
        (
            FileDescriptorProto {
                name: None,
                ..file.clone()
            },
            "",
        ),
    ] {
        let set = FileDescriptorSet {
            file: vec![file.clone()],
        };
        let out = Case::new("descriptors").directory.join("out");
        let result = configure().out_dir(&out).compile_fds(set);
        let Err(error) = result else {
            // What the checks let pass must be code.
            continue;
        };
        let text = error.to_string();
        assert!(text.contains(expected), "{file:?}: {text}");
    }
}

#[test]
fn source_information_that_names_some_items_only_is_enough() {
    use prost_types::{DescriptorProto, SourceCodeInfo, source_code_info::Location};

    let message = |name: &str| DescriptorProto {
        name: Some(name.to_owned()),
        ..DescriptorProto::default()
    };
    let set = FileDescriptorSet {
        file: vec![FileDescriptorProto {
            name: Some("x.proto".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![message("A"), message("B")],
            source_code_info: Some(SourceCodeInfo {
                location: vec![Location {
                    path: vec![4, 1],
                    span: vec![7, 0, 9],
                    leading_comments: Some(" The second one.\r with a return \u{202e}".to_owned()),
                    ..Location::default()
                }],
            }),
            ..FileDescriptorProto::default()
        }],
    };
    let out = Case::new("some_places").directory.join("out");
    configure().out_dir(&out).compile_fds(set).unwrap();
    let code = fs::read_to_string(out.join("_.rs")).unwrap();
    assert!(
        code.contains("/// The second one.  with a return\n"),
        "{code}"
    );
}
