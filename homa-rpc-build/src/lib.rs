//! Compiles `.proto` files into [homa-rpc] clients and server traits, from a build script.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     homa_rpc_build::compile_protos("proto/greeter.proto")?;
//!     Ok(())
//! }
//! ```
//!
//! The result is included in the crate by the name of the protobuf package:
//!
//! ```ignore
//! pub mod helloworld {
//!     homa_rpc::include_proto!("helloworld");
//! }
//! ```
//!
//! No `protoc` is needed: the files are read by a compiler written in Rust. The option names of
//! [`Builder`] are those of `tonic-build`, so that a build script moves over by changing one name.
//!
//! # What is generated
//!
//! The messages are those of `prost-build`, so the crate needs `prost` as a dependency (and
//! `prost-types` if it uses well-known types such as `google.protobuf.Any`). For a service
//! `Greeter` there are two modules beside the messages:
//!
//! - `greeter_client` with `GreeterClient<T>`: one method per RPC, taking `&self`. The future it
//!   returns owns all it needs, so it can be spawned. On request also the trait `GreeterApi`, for
//!   mocks ([`Builder::build_client_trait`]).
//! - `greeter_server` with the trait `Greeter`, to be implemented, and `GreeterServer<T>`, which
//!   makes a service of an implementation.
//!
//! A method with `stream` before its result gives the client a `Response<Streaming<Reply>>`. The server's trait
//! has a type for it, named like the method: `type WatchStream: Stream<Item = Result<Reply, Status>>`. With
//! [`Builder::generate_default_stubs`] it is a `BoxStream<Reply>` instead, since such a type can have no
//! default. A method with `stream` before its argument takes any stream of messages at the client and gives
//! the server a `Request<Streaming<Message>>`.
//!
//! What is in files that are only imported is built where one of its types is used, and without its
//! services: give a file to the compiler to have those.
//!
//! Comments in the `.proto` become documentation. Rustdoc finds no tests in them, whatever they hold:
//! code is marked as `text`, and HTML and brackets that are no links show as they are written. A
//! method with the option `deprecated` is marked `#[deprecated]`; `idempotency_level` is in the
//! method's descriptor, where layers that retry find it. The code has no warnings of rustc, rustdoc
//! and clippy, `pedantic` included, and none of `missing_docs` if all of the schema is documented.
//! For lints that the names and comments of a schema can offend, it has `allow`s of its own.
//!
//! Names are those of prost-build: packages, and so the names of files, in snake case with keywords
//! as `r#type`. An RPC whose name would clash with a function of the client, such as `New` or
//! `Clone`, gets an underscore: `new_`. So do the trait of a service named `Box` and fields that are
//! maps of enums and called like a keyword: `type_`.
//!
//! Services without a `.proto` file are described in Rust: see [`manual`].
//!
//! # What is refused
//!
//! Files with `edition = "2023"` or later are not supported yet. They give an [`Error`] which names the
//! file and the line, as do syntax errors, missing imports, and names that differ in protobuf and not in
//! Rust. All errors of a kind come in one run, see [`Problems`].
//!
//! No file is written over another: neither within a run, nor over what another run of the same build
//! script has written.
//!
//! [homa-rpc]: https://docs.rs/homa-rpc

mod accessors;
mod attributes;
mod builder;
mod check;
mod comments;
mod compile;
mod defaults;
mod descriptor_walk;
mod error;
mod generate;
mod lint_allows;
pub mod manual;
mod name_collisions;
mod names;
mod needed;
mod output;
mod paths;
mod problems;
mod source;
mod well_known;
mod write;

use std::path::Path;

pub use builder::Builder;
pub use error::Error;
pub use problems::{Problem, Problems};
pub use prost_types::FileDescriptorSet;

/// Compiles one `.proto` file with the default options; its directory is the include path.
///
/// The code goes to Cargo's `OUT_DIR`, one file per protobuf package.
///
/// # Errors
///
/// See [`Builder::compile_protos`].
pub fn compile_protos(proto: impl AsRef<Path>) -> Result<(), Error> {
    let proto = proto.as_ref();
    let include = proto
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    configure().compile_protos(&[proto], &[include.unwrap_or(Path::new("."))])
}

/// Generates code for descriptors that were made elsewhere, with the default options.
///
/// # Errors
///
/// See [`Builder::compile_fds`].
pub fn compile_fds(set: FileDescriptorSet) -> Result<(), Error> {
    configure().compile_fds(set)
}

/// The options of a compilation, to be changed before [`Builder::compile_protos`].
pub fn configure() -> Builder {
    Builder::new()
}

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
