//! From protobuf names to Rust names.

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use proc_macro2::{Ident, Span, TokenStream};
use prost_build::Module;
use quote::{format_ident, quote};

/// `package.Service`, or only `Service` without a package.
pub(crate) fn full(package: &str, service: &str) -> String {
    if package.is_empty() {
        service.to_owned()
    } else {
        format!("{package}.{service}")
    }
}

/// The snake case of prost-build, keywords escaped.
pub(crate) fn snake(name: &str) -> String {
    let module = Module::from_protobuf_package_name(name);
    module.parts().collect()
}

/// The upper camel case of prost-build, for types and variants.
pub(crate) fn camel(name: &str) -> String {
    match name.to_upper_camel_case() {
        name if name == "Self" => "Self_".to_owned(),
        name => no_digit_first(name),
    }
}

fn no_digit_first(name: String) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

/// `HttpService` and `server` to `http_service_server`.
pub(crate) fn module(service: &str, suffix: &str) -> Ident {
    format_ident!("{}_{suffix}", no_digit_first(service.to_snake_case()))
}

/// The trait of a server. `async_trait` writes `Box`, so no trait beside it can have that name.
pub(crate) fn handler(service: &str) -> Ident {
    match service {
        "Box" => format_ident!("Box_"),
        name => format_ident!("{name}"),
    }
}

/// The Rust name of a method. prost-build has escaped keywords (`r#type`, `self_`); names of the
/// client's own methods get an underscore too, and so does `clone`, which would hide that of the
/// client and of what implements the server.
pub(crate) fn method(name: &str) -> Ident {
    match name.strip_prefix("r#") {
        Some(keyword) => Ident::new_raw(keyword, Span::call_site()),
        None => match name {
            "new"
            | "clone"
            | "with_interceptor"
            | "max_decoding_message_size"
            | "max_encoding_message_size" => format_ident!("{name}_"),
            name => format_ident!("{name}"),
        },
    }
}

/// The type of the stream of responses of a method.
pub(crate) fn stream_type(method: &str) -> Ident {
    format_ident!("{}Stream", camel(method).trim_end_matches('_'))
}

/// A message type as seen from inside a generated module.
///
/// `rust` is prost-build's path, relative to the module of the package unless it is external.
pub(crate) fn message(rust: &str) -> TokenStream {
    let path: TokenStream = rust.parse().unwrap_or_default();
    let is_external = rust.starts_with("::") || rust.starts_with("crate::");
    if is_external || is_builtin(rust) {
        path
    } else {
        quote!(super::#path)
    }
}

/// What prost-build uses for `google.protobuf.Empty` and the wrappers of scalars.
fn is_builtin(rust: &str) -> bool {
    matches!(
        rust,
        "()" | "bool" | "f32" | "f64" | "i32" | "i64" | "u32" | "u64"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_are_snake_case_with_a_suffix() {
        assert_eq!(module("Greeter", "client"), "greeter_client");
        assert_eq!(module("HttpService", "server"), "http_service_server");
        assert_eq!(module("V1Api_", "server"), "v1_api_server");
        assert_eq!(module("_3D", "client"), "_3d_client");
        assert_eq!(module("Type", "client"), "type_client");
    }

    #[test]
    fn types_are_upper_camel_case_and_never_begin_with_a_digit() {
        assert_eq!(camel("foo_bar"), "FooBar");
        assert_eq!(camel("self"), "Self_");
        assert_eq!(camel("_3D"), "_3d");
        assert_eq!(camel("__9"), "_9");
    }

    #[test]
    fn stream_types_are_the_method_in_upper_camel_case_and_stream() {
        assert_eq!(stream_type("ListFeatures"), "ListFeaturesStream");
        assert_eq!(stream_type("list_features"), "ListFeaturesStream");
        assert_eq!(stream_type("Self"), "SelfStream");
        assert_eq!(stream_type("_3D"), "_3dStream");
    }

    #[test]
    fn message_paths_step_out_of_the_service_module_unless_external() {
        let message = |rust| message(rust).to_string();
        assert_eq!(message("HelloRequest"), "super :: HelloRequest");
        assert_eq!(message("super::b::C"), "super :: super :: b :: C");
        assert_eq!(message("::prost_types::Any"), ":: prost_types :: Any");
        assert_eq!(message("crate::pb::A"), "crate :: pb :: A");
        assert_eq!(message("()"), "()");
    }

    #[test]
    fn only_a_trait_that_async_trait_would_trip_over_is_renamed() {
        assert_eq!(handler("Box"), "Box_");
        assert_eq!(handler("Result"), "Result");
    }
}
