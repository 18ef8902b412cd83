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
//! Comments in the `.proto` become documentation; code blocks in them are kept from being run as
//! doctests. A method with the option `deprecated` is marked `#[deprecated]`; `idempotency_level` is
//! in the method's descriptor, where layers that retry find it. The code passes clippy's pedantic
//! lints, and `missing_docs` if all of the schema is documented.
//!
//! Names are those of prost-build: packages, and so the names of files, in snake case with keywords
//! as `r#type`. An RPC whose name would clash with a function of the client, such as `New`, gets an
//! underscore: `new_`. So does the trait of a service named `Box`.
//!
//! Services without a `.proto` file are described in Rust: see [`manual`].
//!
//! # What is refused
//!
//! Methods that stream, and files with `edition = "2023"` or later, are not supported yet. They
//! give an [`Error`] which names the file and the line, as do syntax errors, missing imports, and
//! names that differ in protobuf and not in Rust.
//!
//! [homa-rpc]: https://docs.rs/homa-rpc

mod accessors;
mod attributes;
mod builder;
mod check;
mod clash;
mod comments;
mod compile;
mod defaults;
mod error;
mod generate;
mod items;
pub mod manual;
mod needed;
mod output;
mod problems;
mod source;
mod tidy;
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
