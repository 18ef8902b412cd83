//! Writes the client and server modules of a service.

mod client;
mod server;
mod service;

use proc_macro2::{Ident, TokenStream};
use quote::quote;

pub(crate) use service::{Idempotency, Kind, Method, Service};

use crate::{attributes::Attributes, comments::Docs};

/// What a build script can choose about services.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) shape: Shape,
    pub(crate) emit_package: bool,
    pub(crate) codec: TokenStream,
    pub(crate) disable_comments: Vec<String>,
    pub(crate) client_attributes: Attributes,
    pub(crate) client_mod_attributes: Attributes,
    pub(crate) server_attributes: Attributes,
    pub(crate) server_mod_attributes: Attributes,
    pub(crate) trait_attributes: Attributes,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shape: Shape::default(),
            emit_package: true,
            codec: default_codec(),
            disable_comments: Vec::new(),
            client_attributes: Attributes::default(),
            client_mod_attributes: Attributes::default(),
            server_attributes: Attributes::default(),
            server_mod_attributes: Attributes::default(),
            trait_attributes: Attributes::default(),
        }
    }
}

/// What is generated for every service, and in which form.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of the builder"
)]
pub(crate) struct Shape {
    pub(crate) build_client: bool,
    pub(crate) build_client_trait: bool,
    pub(crate) build_server: bool,
    pub(crate) use_arc_self: bool,
    pub(crate) default_stubs: bool,
    pub(crate) native_async: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            build_client: true,
            build_client_trait: false,
            build_server: true,
            use_arc_self: false,
            default_stubs: false,
            native_async: false,
        }
    }
}

pub(crate) fn default_codec() -> TokenStream {
    quote!(homa_rpc::codegen::ProstCodec)
}

/// The modules of `service`.
pub(crate) fn modules(service: &Service, shape: Shape) -> TokenStream {
    let mut modules = TokenStream::new();
    if shape.build_client {
        modules.extend(client::module(service, shape));
    }
    if shape.build_server {
        modules.extend(server::module(service, shape));
    }
    modules
}

/// Joins [`Options`] to prost-build.
pub(crate) struct Generator {
    options: Options,
    docs: Docs,
}

impl Generator {
    pub(crate) fn new(options: Options, docs: Docs) -> Self {
        Self { options, docs }
    }
}

impl prost_build::ServiceGenerator for Generator {
    fn generate(&mut self, service: prost_build::Service, buffer: &mut String) {
        let service = Service::from_proto(&service, &self.options, &self.docs);
        buffer.push_str(&modules(&service, self.options.shape).to_string());
    }
}

/// What the runtime knows of a method.
fn descriptor(service: &Service, method: &Method) -> TokenStream {
    let (service_name, name, path) = (&service.name, &method.name, service.path(method));
    let level = match method.idempotency {
        Idempotency::Unknown => TokenStream::new(),
        Idempotency::NoSideEffects => {
            quote!(.with_idempotency(codegen::Idempotency::NoSideEffects))
        }
        Idempotency::Idempotent => quote!(.with_idempotency(codegen::Idempotency::Idempotent)),
    };
    let kind = method.kind.function();
    quote!(codegen::MethodDescriptor::#kind(#service_name, #name, #path)#level)
}

/// A method of a trait.
struct TraitMethod<'a> {
    ident: &'a Ident,
    receiver: TokenStream,
    argument: TokenStream,
    /// What the request and the response hold: a message or a stream of them.
    request: TokenStream,
    response: TokenStream,
}

/// The signature of `method`: `async fn`, or what that stands for.
fn trait_method(method: &TraitMethod<'_>, native_async: bool) -> TokenStream {
    let TraitMethod {
        ident,
        receiver,
        argument,
        request,
        response,
    } = method;
    let arguments = quote!(#receiver, #argument: codegen::Request<#request>);
    let output = quote!(std::result::Result<codegen::Response<#response>, codegen::Status>);
    if native_async {
        quote! {
            fn #ident(
                #arguments,
            ) -> impl std::future::Future<Output = #output> + std::marker::Send
        }
    } else {
        quote!(async fn #ident(#arguments) -> #output)
    }
}

/// What makes a trait of `async fn`s of the next item, or nothing for native ones. It has the name
/// that users know: rustc shows this line when they have forgotten it on their `impl`.
fn async_attribute(native_async: bool) -> TokenStream {
    if native_async {
        TokenStream::new()
    } else {
        quote!(#[homa_rpc::async_trait])
    }
}

/// What generated modules may do that a strict crate forbids.
fn allowed_lints() -> TokenStream {
    quote! {
        #![allow(
            deprecated,
            unused_imports,
            unused_qualifications,
            clippy::doc_lazy_continuation,
            clippy::doc_link_with_quotes,
            clippy::doc_markdown,
            clippy::doc_overindented_list_items,
            clippy::iter_not_returning_iterator,
            clippy::match_single_binding,
            clippy::missing_errors_doc,
            clippy::module_inception,
            clippy::should_implement_trait,
            clippy::too_many_lines,
            clippy::unit_arg,
            clippy::used_underscore_items,
            clippy::wrong_self_convention,
            reason = "generated from a schema, whose names and comments are not Rust"
        )]
    }
}
