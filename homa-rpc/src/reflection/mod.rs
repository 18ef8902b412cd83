//! The reflection service of gRPC, `grpc.reflection.v1` and `v1alpha` (feature `reflection`).
//!
//! A server tells which services it has and how their messages look, so that general tools can call it. The
//! names are those of the crate tonic-reflection.
//!
//! ```
//! use homa_rpc::{Server, reflection};
//!
//! // In build.rs: `.file_descriptor_set_path(out_dir.join("helloworld.bin"))`, then
//! // `homa_rpc::include_file_descriptor_set!("helloworld")`.
//! # let descriptors = reflection::pb::v1::FILE_DESCRIPTOR_SET;
//! let builder = reflection::server::Builder::configure()
//!     .register_encoded_file_descriptor_set(descriptors);
//! let server = Server::builder()
//!     .add_service(builder.clone().build_v1()?)
//!     // What many clients ask for still.
//!     .add_service(builder.build_v1alpha()?);
//! # drop(server);
//! # Ok::<(), reflection::server::Error>(())
//! ```

pub mod pb;
pub mod server;
