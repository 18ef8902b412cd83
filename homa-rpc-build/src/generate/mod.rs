//! Writes the client and server modules of a service.

mod client;
pub(crate) mod names;
mod server;

use proc_macro2::TokenStream;
use prost_build::{Comments, Method, Service};
use quote::quote;

use crate::attributes::{self, Attributes};

/// What a build script can choose about services.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of the builder"
)]
pub(crate) struct Options {
    pub(crate) build_client: bool,
    pub(crate) build_server: bool,
    pub(crate) emit_package: bool,
    pub(crate) compile_well_known_types: bool,
    pub(crate) use_arc_self: bool,
    pub(crate) default_stubs: bool,
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
            build_client: true,
            build_server: true,
            emit_package: true,
            compile_well_known_types: false,
            use_arc_self: false,
            default_stubs: false,
            codec: quote!(homa_rpc::codegen::ProstCodec),
            disable_comments: Vec::new(),
            client_attributes: Attributes::default(),
            client_mod_attributes: Attributes::default(),
            server_attributes: Attributes::default(),
            server_mod_attributes: Attributes::default(),
            trait_attributes: Attributes::default(),
        }
    }
}

impl Options {
    /// The documentation of the item `name`, or `fallback` if it has no comment: generated items
    /// are always documented, for crates that deny `missing_docs`.
    fn docs(&self, name: &str, comments: &Comments, fallback: &str) -> TokenStream {
        let disabled = self
            .disable_comments
            .iter()
            .any(|path| attributes::matches(path, name));
        let mut lines = if disabled {
            Vec::new()
        } else {
            doc_lines(comments)
        };
        if lines.is_empty() {
            lines.push(format!(" {fallback}"));
        }
        quote!(#(#[doc = #lines])*)
    }
}

/// The name under which a service is served, and its attributes and documentation are found.
struct Named<'a> {
    service: &'a Service,
    /// `package.Service`, or only `Service` if the package is not to be emitted.
    name: String,
    /// Always with the package.
    full: String,
}

impl<'a> Named<'a> {
    fn new(service: &'a Service, options: &Options) -> Self {
        let full = names::full(&service.package, &service.proto_name);
        let name = if options.emit_package {
            full.clone()
        } else {
            service.proto_name.clone()
        };
        Self {
            service,
            name,
            full,
        }
    }

    /// `/package.Service/Method`
    fn path(&self, method: &Method) -> String {
        format!("/{}/{}", self.name, method.proto_name)
    }

    fn method_docs(&self, method: &Method, options: &Options, verb: &str) -> TokenStream {
        let full = format!("{}.{}", self.full, method.proto_name);
        let fallback = format!("{verb} `{}/{}`.", self.name, method.proto_name);
        options.docs(&full, &method.comments, &fallback)
    }
}

/// Joins [`Options`] to prost-build.
pub(crate) struct Generator {
    options: Options,
}

impl Generator {
    pub(crate) fn new(options: Options) -> Self {
        Self { options }
    }
}

impl prost_build::ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, buffer: &mut String) {
        let named = Named::new(&service, &self.options);
        if self.options.build_client {
            buffer.push_str(&client::module(&named, &self.options).to_string());
        }
        if self.options.build_server {
            buffer.push_str(&server::module(&named, &self.options).to_string());
        }
    }
}

/// `#[deprecated]` if the option says so.
fn deprecated(is_deprecated: bool) -> TokenStream {
    if is_deprecated {
        quote!(#[deprecated])
    } else {
        TokenStream::new()
    }
}

/// What generated modules may do that a strict crate forbids.
fn allowed_lints() -> TokenStream {
    quote! {
        #![allow(
            deprecated,
            unused_imports,
            unused_qualifications,
            clippy::doc_markdown,
            clippy::match_single_binding,
            clippy::missing_errors_doc,
            clippy::too_many_lines,
            clippy::unit_arg,
            reason = "generated from a schema, whose names and comments are not Rust"
        )]
    }
}

/// The lines of a comment, links and brackets escaped for rustdoc, as prost-build does it for
/// messages. Detached comments are left out.
fn doc_lines(comments: &Comments) -> Vec<String> {
    let mut text = String::new();
    comments.append_with_indent(0, &mut text);
    text.lines()
        .filter_map(|line| line.strip_prefix("///"))
        .map(str::to_owned)
        .collect()
}
