//! Services described in Rust, without a `.proto` file: for messages of another kind, with a codec
//! of one's own.
//!
//! ```no_run
//! // build.rs
//! use homa_rpc_build::manual::{Builder, Method, Service};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let greeter = Service::builder()
//!         .package("helloworld")
//!         .name("Greeter")
//!         .method(
//!             Method::builder()
//!                 .name("say_hello")
//!                 .route_name("SayHello")
//!                 .input_type("crate::HelloRequest")
//!                 .output_type("crate::HelloReply")
//!                 .codec_path("crate::JsonCodec")
//!                 .build(),
//!         )
//!         .build();
//!     Builder::new().compile(&[greeter])?;
//!     Ok(())
//! }
//! ```
//!
//! The code goes to `helloworld.Greeter.rs`, to be included by
//! `homa_rpc::include_proto!("helloworld.Greeter")`. It has the modules `greeter_client` and
//! `greeter_server`, as described at the [crate]. Types are seen from inside of these, so
//! `super::HelloRequest` is one beside them.
//!
//! A codec has two parameters, what it encodes and what it decodes, and implements `Default` and
//! `homa_rpc::Codec`.

use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;

use crate::{
    Error, attributes,
    generate::{self, Idempotency, Kind, Shape},
    names, output,
    write::Outputs,
};

/// A service: a name and methods.
#[derive(Clone, Debug, Default)]
pub struct Service {
    name: String,
    package: String,
    comments: Vec<String>,
    methods: Vec<Method>,
}

impl Service {
    /// A service to be described.
    pub fn builder() -> ServiceBuilder {
        ServiceBuilder::default()
    }

    fn check(&self) -> Result<generate::Service, Error> {
        const NAME: &str = "a name in upper camel case, such as `Greeter`";
        const PACKAGE: &str = "names joined by dots, such as `company.greetings`, or nothing";

        let is_rust = self.name.starts_with(|c: char| c.is_ascii_uppercase())
            && attributes::is_identifier(&self.name)
            && self.name != "Self";
        expect(is_rust, "Service::name", NAME, &self.name)?;
        let is_package =
            self.package.is_empty() || self.package.split('.').all(attributes::is_identifier);
        expect(is_package, "Service::package", PACKAGE, &self.package)?;

        let methods: Vec<_> = self
            .methods
            .iter()
            .map(Method::check)
            .collect::<Result<_, _>>()?;
        for (index, method) in methods.iter().enumerate() {
            let earlier = methods.iter().take(index);
            let is_new = earlier.into_iter().all(|other| {
                let stream_type = method.stream_type();
                other.ident != method.ident
                    && other.name != method.name
                    && (stream_type.is_none() || other.stream_type() != stream_type)
            });
            let expected = "names and route names that no other method of the service has";
            expect(is_new, "Service::method", expected, &method.name)?;
        }
        Ok(generate::Service::new(
            &self.name,
            names::full(&self.package, &self.name),
            doc_lines(&self.comments),
            methods,
        ))
    }
}

/// Describes a [`Service`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ServiceBuilder(Service);

impl ServiceBuilder {
    /// The name of the service, on the wire and, in upper camel case, in Rust. Must be given.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = name.into();
        self
    }

    /// The package that is before the name on the wire. Default: none.
    pub fn package(mut self, package: impl Into<String>) -> Self {
        self.0.package = package.into();
        self
    }

    /// Adds lines to the documentation of the client and the server trait.
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.0.comments.push(comment.into());
        self
    }

    /// Adds a method.
    pub fn method(mut self, method: Method) -> Self {
        self.0.methods.push(method);
        self
    }

    /// The service. What is missing or wrong is an error of [`Builder::compile`].
    #[must_use]
    pub fn build(self) -> Service {
        self.0
    }
}

/// A method of a [`Service`].
#[derive(Clone, Debug, Default)]
pub struct Method {
    name: String,
    route_name: String,
    comments: Vec<String>,
    input_type: String,
    output_type: String,
    codec_path: Option<String>,
    kind: Kind,
    deprecated: bool,
    idempotency: Idempotency,
}

impl Method {
    /// A method to be described.
    pub fn builder() -> MethodBuilder {
        MethodBuilder::default()
    }

    fn check(&self) -> Result<generate::Method, Error> {
        const NAME: &str = "a name in snake case, such as `say_hello`";
        const ROUTE: &str = "a name such as `SayHello`";

        let is_rust = syn::parse_str::<syn::Ident>(&self.name).is_ok();
        let is_escaped = self.name.starts_with("r#") && is_raw_identifier(&self.name);
        expect(is_rust || is_escaped, "Method::name", NAME, &self.name)?;
        let is_route = attributes::is_identifier(&self.route_name);
        expect(is_route, "Method::route_name", ROUTE, &self.route_name)?;
        Ok(generate::Method {
            ident: names::method(&self.name),
            kind: self.kind,
            name: self.route_name.clone(),
            docs: doc_lines(&self.comments),
            deprecated: self.deprecated,
            idempotency: self.idempotency,
            request: rust_type("Method::input_type", &self.input_type)?,
            response: rust_type("Method::output_type", &self.output_type)?,
            codec: match &self.codec_path {
                Some(path) => attributes::parse_type_path("Method::codec_path", path)?,
                None => generate::default_codec(),
            },
        })
    }
}

/// Describes a [`Method`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct MethodBuilder(Method);

impl MethodBuilder {
    /// The name in Rust. Must be given.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = name.into();
        self
    }

    /// The name on the wire. Must be given.
    pub fn route_name(mut self, name: impl Into<String>) -> Self {
        self.0.route_name = name.into();
        self
    }

    /// Adds lines to the documentation.
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.0.comments.push(comment.into());
        self
    }

    /// The type of requests. Must be given.
    pub fn input_type(mut self, path: impl Into<String>) -> Self {
        self.0.input_type = path.into();
        self
    }

    /// The type of responses. Must be given.
    pub fn output_type(mut self, path: impl Into<String>) -> Self {
        self.0.output_type = path.into();
        self
    }

    /// The codec. Default: `homa_rpc::ProstCodec`.
    pub fn codec_path(mut self, path: impl Into<String>) -> Self {
        self.0.codec_path = Some(path.into());
        self
    }

    /// Makes the request a stream of messages.
    pub fn client_streaming(mut self) -> Self {
        self.0.kind.client_streaming = true;
        self
    }

    /// Makes the response a stream of messages.
    pub fn server_streaming(mut self) -> Self {
        self.0.kind.server_streaming = true;
        self
    }

    /// Marks the method as `#[deprecated]`.
    pub fn deprecated(mut self) -> Self {
        self.0.deprecated = true;
        self
    }

    /// Says that the method only reads.
    pub fn no_side_effects(mut self) -> Self {
        self.0.idempotency = Idempotency::NoSideEffects;
        self
    }

    /// Says that several executions do what one does.
    pub fn idempotent(mut self) -> Self {
        self.0.idempotency = Idempotency::Idempotent;
        self
    }

    /// The method. What is missing or wrong is an error of [`Builder::compile`].
    #[must_use]
    pub fn build(self) -> Method {
        self.0
    }
}

/// Options for generating code for services described in Rust. They are described at
/// [`crate::Builder`].
#[derive(Debug, Default)]
#[must_use = "nothing is generated before `compile` is called"]
pub struct Builder {
    shape: Shape,
    out_dir: Option<PathBuf>,
}

impl Builder {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to generate clients. Default: yes.
    pub fn build_client(mut self, enable: bool) -> Self {
        self.shape.build_client = enable;
        self
    }

    /// Whether to generate a trait beside each client. Default: no.
    pub fn build_client_trait(mut self, enable: bool) -> Self {
        self.shape.build_client_trait = enable;
        self
    }

    /// Whether to generate server traits and servers. Default: yes.
    pub fn build_server(mut self, enable: bool) -> Self {
        self.shape.build_server = enable;
        self
    }

    /// Gives the methods of server traits `self: Arc<Self>`. Default: no.
    pub fn use_arc_self(mut self, enable: bool) -> Self {
        self.shape.use_arc_self = enable;
        self
    }

    /// Gives the methods of server traits a body that answers UNIMPLEMENTED. Default: no.
    pub fn generate_default_stubs(mut self, enable: bool) -> Self {
        self.shape.default_stubs = enable;
        self
    }

    /// Writes traits with the language's own `async fn`. Default: no.
    pub fn native_async(mut self, enable: bool) -> Self {
        self.shape.native_async = enable;
        self
    }

    /// The directory to write to. Default: Cargo's `OUT_DIR`.
    pub fn out_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.out_dir = Some(directory.as_ref().to_owned());
        self
    }

    /// Writes a file `package.Service.rs` for each of `services`, or `Service.rs` without a
    /// package.
    ///
    /// # Errors
    ///
    /// A missing or wrong value in the description of a service, a file that would be written over
    /// another, a directory that can't be written to.
    pub fn compile(self, services: &[Service]) -> Result<(), Error> {
        let mut files = Vec::new();
        for service in services {
            let service = service.check()?;
            let code = generate::modules(&service, self.shape).to_string();
            let what = format!("service `{}`", service.name());
            let code = output::format(&code, &what, None)?;
            files.push((format!("{}.rs", service.name()), what, code));
        }
        let directory = output::directory(self.out_dir)?;
        let mut outputs = Outputs::default();
        for (file, what, code) in files {
            outputs.add(directory.join(file), what, code);
        }
        outputs.write()
    }
}

fn expect(
    is_so: bool,
    option: &'static str,
    expected: &'static str,
    value: &str,
) -> Result<(), Error> {
    if is_so {
        return Ok(());
    }
    Err(Error::Option {
        option,
        expected,
        value: value.to_owned(),
    })
}

fn is_raw_identifier(name: &str) -> bool {
    matches!(syn::parse_str::<syn::Expr>(name), Ok(syn::Expr::Path(path)) if path.path.get_ident().is_some())
}

fn rust_type(option: &'static str, text: &str) -> Result<TokenStream, Error> {
    match syn::parse_str::<syn::Type>(text) {
        Ok(parsed) => Ok(quote::quote!(#parsed)),
        Err(_) => Err(Error::Option {
            option,
            expected: "a Rust type such as `crate::HelloRequest`",
            value: text.to_owned(),
        }),
    }
}

/// Lines as they follow `///`.
fn doc_lines(comments: &[String]) -> Vec<String> {
    let lines = comments.iter().flat_map(|comment| comment.lines());
    lines
        .map(|line| format!(" {line}").trim_end().to_owned())
        .collect()
}
