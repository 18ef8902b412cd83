//! Services described in Rust: what is written, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use homa_rpc_build::{
    Error,
    manual::{Builder, Method, MethodBuilder, Service},
};

fn directory(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("manual")
        .join(test);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn method() -> MethodBuilder {
    Method::builder()
        .name("say_hello")
        .route_name("SayHello")
        .input_type("crate::HelloRequest")
        .output_type("super::Reply<u8>")
        .codec_path("crate::JsonCodec")
}

fn service(method: Method) -> Service {
    let service = Service::builder().package("hello.world").name("Greeter");
    service.method(method).build()
}

#[test]
fn a_service_gets_a_file_by_its_full_name() {
    let out = directory("full_name");
    let method = method()
        .comment("Greets.\n\nPolitely.")
        .deprecated()
        .idempotent();
    let bare = Service::builder().name("Bare").build();
    Builder::new()
        .out_dir(&out)
        .compile(&[service(method.build()), bare])
        .unwrap();
    let code = fs::read_to_string(out.join("hello.world.Greeter.rs")).unwrap();
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "pub mod greeter_client {",
        "pub mod greeter_server {",
        "/// Greets. /// /// Politely. #[deprecated] pub fn say_hello<M>(",
        "M: codegen::IntoRequest<crate::HelloRequest>,",
        "codegen::Response<super::Reply<u8>>",
        "crate::JsonCodec::< crate::HelloRequest, super::Reply<u8>, >::default()",
        "\"/hello.world.Greeter/SayHello\"",
        ".with_idempotency(codegen::Idempotency::Idempotent)",
    ] {
        assert!(code.contains(part), "no {part} in {code}");
    }
    let bare = fs::read_to_string(out.join("Bare.rs")).unwrap();
    assert!(
        bare.contains("pub const SERVICE_NAME: &str = \"Bare\";"),
        "{bare}"
    );
}

#[test]
fn sides_and_forms_can_be_chosen() {
    let services = [service(method().build())];
    let code = |builder: Builder| {
        // Empty each time: no run may write over what another has written.
        let out = directory("sides");
        builder.out_dir(&out).compile(&services).unwrap();
        fs::read_to_string(out.join("hello.world.Greeter.rs")).unwrap()
    };
    let client = code(Builder::new().build_server(false).build_client_trait(true));
    assert!(client.contains("pub trait GreeterApi") && !client.contains("greeter_server"));
    let server = code(
        Builder::new()
            .build_client(false)
            .native_async(true)
            .use_arc_self(true)
            .generate_default_stubs(true),
    );
    assert!(!server.contains("greeter_client") && !server.contains("async_trait"));
    assert!(server.contains("self: std::sync::Arc<Self>"), "{server}");
    assert!(server.contains("/hello.world.Greeter/SayHello is not implemented"));
}

#[test]
fn methods_of_every_kind_are_written() {
    let out = directory("kinds");
    let method = |name: &str, route: &str| method().name(name).route_name(route);
    let service = Service::builder()
        .name("Kinds")
        .method(method("say", "Say").build())
        .method(method("record", "Record").client_streaming().build())
        .method(method("list", "list").server_streaming().build())
        .method(
            method("chat", "Chat")
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .build();
    Builder::new().out_dir(&out).compile(&[service]).unwrap();
    let code = fs::read_to_string(out.join("Kinds.rs")).unwrap();
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "codegen::MethodDescriptor::unary( \"Kinds\", \"Say\", \"/Kinds/Say\", )",
        "codegen::MethodDescriptor::client_streaming( \"Kinds\", \"Record\", \"/Kinds/Record\", )",
        "codegen::MethodDescriptor::server_streaming( \"Kinds\", \"list\", \"/Kinds/list\", )",
        "codegen::MethodDescriptor::bidi_streaming( \"Kinds\", \"Chat\", \"/Kinds/Chat\", )",
        "self.inner.client_streaming(request.into_streaming_request(), &METHOD, codec)",
        "self.inner.server_streaming(request.into_request(), &METHOD, codec)",
        "self.inner.bidi_streaming(request.into_streaming_request(), &METHOD, codec)",
        "M: codegen::IntoStreamingRequest<Message = crate::HelloRequest>,",
        "codegen::Response<codegen::Streaming<super::Reply<u8>>>",
        "type ListStream: codegen::Stream<",
        "type ChatStream: codegen::Stream<",
        "request: codegen::Request<codegen::Streaming<crate::HelloRequest>>",
        "codegen::client_streaming(call, codec, self.limits, handler)",
    ] {
        assert!(code.contains(part), "no {part} in {code}");
    }
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let out = directory("wrong");
    let refused = |service: Service, option: &str| {
        let error = Builder::new()
            .out_dir(&out)
            .compile(&[service])
            .unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("option `{option}`: expected ")),
            "{text}"
        );
    };
    for name in ["", "greeter", "Gre eter", "Self", "1", "Ä"] {
        refused(Service::builder().name(name).build(), "Service::name");
    }
    for package in [".", "a..b", "a b", "a/b"] {
        let service = Service::builder().name("S").package(package).build();
        refused(service, "Service::package");
    }
    refused(service(Method::builder().build()), "Method::name");
    for name in ["", "a b", "type", "self", "r#self", "1a"] {
        refused(service(method().name(name).build()), "Method::name");
    }
    for name in ["", "a/b", "a b"] {
        refused(
            service(method().route_name(name).build()),
            "Method::route_name",
        );
    }
    for wrong in ["", "a b", "Vec<", "1"] {
        refused(
            service(method().input_type(wrong).build()),
            "Method::input_type",
        );
        refused(
            service(method().output_type(wrong).build()),
            "Method::output_type",
        );
        refused(
            service(method().codec_path(wrong).build()),
            "Method::codec_path",
        );
    }
    let twice = Service::builder().name("S").method(method().build());
    refused(twice.method(method().build()).build(), "Service::method");
    let streaming = |name: &str, route: &str| {
        let method = method().name(name).route_name(route);
        method.server_streaming().build()
    };
    // Both would be `A1Stream`.
    let streams = Service::builder().name("S").method(streaming("a_1", "a_1"));
    let streams = streams.method(streaming("a1", "a1")).build();
    refused(streams, "Service::method");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn keywords_are_written_as_raw_identifiers() {
    let out = directory("raw");
    let services = [service(method().name("r#type").build())];
    Builder::new().out_dir(&out).compile(&services).unwrap();
    let code = fs::read_to_string(out.join("hello.world.Greeter.rs")).unwrap();
    assert!(code.contains("pub fn r#type<M>("), "{code}");
}
