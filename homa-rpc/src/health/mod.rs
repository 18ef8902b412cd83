//! The health service of gRPC, `grpc.health.v1` (feature `health`).
//!
//! A server says whether it takes calls, as a whole and for each of its services. Clients and load balancers
//! ask for it (`Check`, `List`) or are told of each change (`Watch`). The names are those of the crate
//! tonic-health.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use homa_rpc::{Server, health};
//!
//! let (reporter, health_service) = health::server::health_reporter();
//! let server = Server::builder()
//!     // .add_service(GreeterServer::new(greeter))
//!     .add_service(health_service)
//!     .bind("homa+udp://127.0.0.1:4000")?;
//! // reporter.set_serving::<GreeterServer<MyGreeter>>().await;
//!
//! // Who watches is told first that the server goes, and then the server goes.
//! let ctrl_c = async { /* tokio::signal::ctrl_c().await */ };
//! server.serve_with_shutdown(reporter.shutdown_on(ctrl_c)).await?;
//! # Ok(())
//! # }
//! ```

pub mod server;
mod status;

pub use status::ServingStatus;

/// Messages, client and server of `grpc.health.v1`, and their descriptor.
#[allow(missing_docs, unreachable_pub, reason = "generated code")]
pub mod pb {
    // Made from `proto/grpc/health`; `homa-rpc-build/tests/checked_in.rs` compares.
    include!("grpc_health_v1.rs");

    /// The encoded `google.protobuf.FileDescriptorSet`, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("grpc_health_v1.bin");
}
