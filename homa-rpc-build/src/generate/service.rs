//! Services as the generators see them, whether they come from a `.proto` file or from Rust.

use proc_macro2::{Ident, TokenStream};
use prost_build::Comments;
use quote::{format_ident, quote};

use super::Options;
use crate::{attributes, comments::Docs, names};

/// A service and what is to be written about it.
pub(crate) struct Service {
    /// Rust name: `Greeter`, from which the names of types are made.
    base: String,
    /// Name on the wire: `package.Service`, or `Service` if the package is not to be emitted.
    pub(super) name: String,
    pub(super) docs: Vec<String>,
    pub(super) deprecated: bool,
    pub(super) methods: Vec<Method>,
    pub(super) client_attributes: TokenStream,
    pub(super) client_mod_attributes: TokenStream,
    pub(super) server_attributes: TokenStream,
    pub(super) server_mod_attributes: TokenStream,
    pub(super) trait_attributes: TokenStream,
}

/// A method of a service.
pub(crate) struct Method {
    pub(crate) ident: Ident,
    pub(crate) kind: Kind,
    /// Name on the wire.
    pub(crate) name: String,
    pub(crate) docs: Vec<String>,
    pub(crate) deprecated: bool,
    pub(crate) idempotency: Idempotency,
    /// Types, as seen from inside a generated module.
    pub(crate) request: TokenStream,
    pub(crate) response: TokenStream,
    pub(crate) codec: TokenStream,
}

/// How many messages pass each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) client_streaming: bool,
    pub(crate) server_streaming: bool,
}

impl Kind {
    pub(super) const fn is_unary(self) -> bool {
        !self.client_streaming && !self.server_streaming
    }

    /// The runtime's functions for such methods: all of them have this name.
    pub(super) fn function(self) -> Ident {
        let name = match (self.client_streaming, self.server_streaming) {
            (false, false) => "unary",
            (true, false) => "client_streaming",
            (false, true) => "server_streaming",
            (true, true) => "bidi_streaming",
        };
        format_ident!("{name}")
    }
}

/// What a method says about being called several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Idempotency {
    #[default]
    Unknown,
    NoSideEffects,
    Idempotent,
}

impl Service {
    /// A service without attributes. `base` is its name in upper camel case.
    pub(crate) fn new(base: &str, name: String, docs: Vec<String>, methods: Vec<Method>) -> Self {
        Self {
            base: base.trim_start_matches("r#").to_owned(),
            name,
            docs,
            deprecated: false,
            methods,
            client_attributes: TokenStream::new(),
            client_mod_attributes: TokenStream::new(),
            server_attributes: TokenStream::new(),
            server_mod_attributes: TokenStream::new(),
            trait_attributes: TokenStream::new(),
        }
    }

    /// The service that prost-build found in a file.
    pub(super) fn from_proto(
        service: &prost_build::Service,
        options: &Options,
        docs: &Docs,
    ) -> Self {
        let full = names::full(&service.package, &service.proto_name);
        let name = if options.emit_package {
            full.clone()
        } else {
            service.proto_name.clone()
        };
        let methods = service.methods.iter().map(|method| {
            let name = format!("{full}.{}", method.proto_name);
            let lines = options.docs(&name, &method.comments, docs);
            Method::from_proto(method, lines, options)
        });
        Self {
            deprecated: service.options.deprecated(),
            client_attributes: options.client_attributes.of(&full),
            client_mod_attributes: options.client_mod_attributes.of(&service.package),
            server_attributes: options.server_attributes.of(&full),
            server_mod_attributes: options.server_mod_attributes.of(&service.package),
            trait_attributes: options.trait_attributes.of(&full),
            ..Self::new(
                &service.name,
                name,
                options.docs(&full, &service.comments, docs),
                methods.collect(),
            )
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn client_module(&self) -> Ident {
        names::module(&self.base, "client")
    }

    pub(super) fn server_module(&self) -> Ident {
        names::module(&self.base, "server")
    }

    pub(super) fn client(&self) -> Ident {
        format_ident!("{}Client", self.base.trim_end_matches('_'))
    }

    /// The trait of the client.
    pub(super) fn api(&self) -> Ident {
        format_ident!("{}Api", self.base.trim_end_matches('_'))
    }

    pub(super) fn server(&self) -> Ident {
        format_ident!("{}Server", self.base.trim_end_matches('_'))
    }

    /// The trait of the server.
    pub(super) fn handler(&self) -> Ident {
        names::handler(&self.base)
    }

    /// `/package.Service/Method`
    pub(super) fn path(&self, method: &Method) -> String {
        format!("/{}/{}", self.name, method.name)
    }

    pub(super) fn deprecated(&self) -> TokenStream {
        deprecated(self.deprecated)
    }

    /// Its comment, or `fallback` if it has none.
    pub(super) fn docs(&self, fallback: &str) -> TokenStream {
        docs(&self.docs, fallback)
    }

    /// The comment of `method`, or a line with `verb`.
    pub(super) fn method_docs(&self, method: &Method, verb: &str) -> TokenStream {
        docs(
            &method.docs,
            &format!("{verb} `{}/{}`.", self.name, method.name),
        )
    }
}

impl Method {
    fn from_proto(method: &prost_build::Method, docs: Vec<String>, options: &Options) -> Self {
        use prost_types::method_options::IdempotencyLevel;

        Self {
            ident: names::method(&method.name),
            kind: Kind {
                client_streaming: method.client_streaming,
                server_streaming: method.server_streaming,
            },
            name: method.proto_name.clone(),
            docs,
            deprecated: method.options.deprecated(),
            idempotency: match method.options.idempotency_level() {
                IdempotencyLevel::IdempotencyUnknown => Idempotency::Unknown,
                IdempotencyLevel::NoSideEffects => Idempotency::NoSideEffects,
                IdempotencyLevel::Idempotent => Idempotency::Idempotent,
            },
            request: names::message(&method.input_type),
            response: names::message(&method.output_type),
            codec: options.codec.clone(),
        }
    }

    pub(super) fn deprecated(&self) -> TokenStream {
        deprecated(self.deprecated)
    }

    /// The type of its stream of responses, in the trait of a server.
    pub(crate) fn stream_type(&self) -> Option<Ident> {
        let is_streaming = self.kind.server_streaming;
        is_streaming.then(|| names::stream_type(&self.name))
    }
}

impl Options {
    /// The lines of the comment of `name`, none if they are disabled.
    fn docs(&self, name: &str, comments: &Comments, docs: &Docs) -> Vec<String> {
        let is_disabled = |path: &String| attributes::matches(path, name);
        if self.disable_comments.iter().any(is_disabled) {
            return Vec::new();
        }
        let mark = comments.leading.first().map(String::as_str);
        let lines = docs.lines(mark.unwrap_or_default());
        lines.map(<[String]>::to_vec).unwrap_or_default()
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

/// Generated items are always documented, for crates that deny `missing_docs`.
fn docs(lines: &[String], fallback: &str) -> TokenStream {
    if lines.is_empty() {
        let fallback = format!(" {fallback}");
        quote!(#[doc = #fallback])
    } else {
        quote!(#(#[doc = #lines])*)
    }
}
