//! gRPC-style RPC over the Homa transport.
//!
//! A [`Channel`] carries calls to a server; it has no connection, is cheap to clone and can be put
//! under any tower layer. A [`Server`] takes calls on one or several sockets and hands them to
//! services, under layers as well. Clients and services are generated from `.proto` files by
//! `homa-rpc-build`; [`include_proto!`] brings them in.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use homa_rpc::{Channel, MethodDescriptor, ProstCodec, Request, client::Caller};
//!
//! #[derive(Clone, PartialEq, prost::Message)]
//! struct HelloRequest {
//!     #[prost(string, tag = "1")]
//!     name: String,
//! }
//! #[derive(Clone, PartialEq, prost::Message)]
//! struct HelloReply {
//!     #[prost(string, tag = "1")]
//!     message: String,
//! }
//!
//! // What a generated client does:
//! static SAY_HELLO: MethodDescriptor =
//!     MethodDescriptor::unary("helloworld.Greeter", "SayHello", "/helloworld.Greeter/SayHello");
//! let caller = Caller::new(Channel::new("homa+udp://127.0.0.1:4000")?);
//! let request = Request::new(HelloRequest { name: "homa".into() });
//! let codec = ProstCodec::<HelloRequest, HelloReply>::default();
//! let reply = caller.unary(request, &SAY_HELLO, codec).await?;
//! println!("{}", reply.get_ref().message);
//! # Ok(())
//! # }
//! ```
//!
//! # Streams
//!
//! Methods are of four kinds: one message or a stream of them, each way. What a client receives and what a
//! handler is asked is a [`Streaming`]; what a client sends and what a handler answers is any
//! [`Stream`](futures_core::Stream) that is `Send`, boxed ([`BoxStream`]) or not.
//!
//! ```
//! # type Item = u32;
//! # struct Client;
//! # impl Client {
//! #     async fn chat(
//! #         &self,
//! #         requests: impl homa_rpc::IntoStreamingRequest<Message = Item>,
//! #     ) -> homa_rpc::Result<homa_rpc::Response<homa_rpc::Streaming<Item>>> {
//! #         unimplemented!()
//! #     }
//! # }
//! # async fn example(
//! #     client: Client,
//! #     requests: impl futures_core::Stream<Item = Item> + Send + 'static,
//! # ) -> homa_rpc::Result<()> {
//! let mut replies = client.chat(requests).await?.into_inner();
//! while let Some(reply) = replies.message().await? {
//!     println!("{reply}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A call ends with an error in the stream, with its deadline, or when one side drops its end; then the other
//! side's stream is dropped too.
//!
//! # Map of the crate
//!
//! | part | what it does |
//! |---|---|
//! | [`client`] | [`Channel`], the typed [`client::Caller`], look-up of hosts |
//! | [`server`] | [`Server`], routing, dispatch, shutdown |
//! | [`transport`] | both, with the sockets, settings and errors that they take and give |
//! | [`Request`], [`Response`], [`Streaming`], [`Status`], [`Metadata`] | what users see of a call |
//! | [`Body`], [`CallInfo`] | a call as tower layers see it: HTTP requests and responses |
//! | [`Codec`] | messages to bytes and back |
//! | [`layer`] | interceptors |
//! | `types` (feature) | `google.rpc.Status` and the standard details of errors |
//! | `health` (feature) | the health service, `grpc.health.v1` |
//! | `reflection` (feature) | the reflection service, `grpc.reflection.v1` and `v1alpha` |
//!
//! Messages travel as frames of the format specified in `WIRE.md`, one Homa message each. There is
//! no encryption and source addresses can be forged: use it in trusted networks only.

// By this name the generated code of this crate finds it.
#[cfg(any(feature = "health", feature = "reflection"))]
extern crate self as homa_rpc;

mod body;
mod call;
pub mod client;
pub mod codegen;
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
#[cfg(feature = "health")]
pub mod health;
pub mod layer;
mod message;
mod net;
#[cfg(feature = "reflection")]
pub mod reflection;
pub mod server;
mod stream;
pub mod transport;
mod util;

pub use async_trait::async_trait;
pub use body::{Body, BoxRequestStream, BoxStream, Streaming, final_status, try_clone_request};
pub use call::{CallContext, Scope, detached};
pub use client::{Channel, ChannelBuilder, ChannelError};
pub use homa_transport::{Delivery, NativeBackend, Stats};
pub use http;
pub use message::BoxError;
pub use message::codec::{Codec, ProstCodec};
pub use message::limits::MessageLimits;
pub use message::metadata::{self, Metadata, MetadataError};
pub use message::method::{CallInfo, Idempotency, MethodDescriptor, MethodKind};
pub use message::request::{IntoRequest, IntoStreamingRequest, Request};
pub use message::response::Response;
pub use message::status::{Code, Status, UnknownCode};
#[cfg(feature = "types")]
pub use message::types;
pub use net::uri::UriError;
pub use server::{BoundServer, Server, ServerBuilder, ServerError, ServerMonitor, ServerStats};

/// What a handler and a client's method return.
pub type Result<T, E = Status> = std::result::Result<T, E>;

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Includes the code that `homa-rpc-build` generated for a protobuf package.
///
/// ```ignore
/// pub mod helloworld {
///     homa_rpc::include_proto!("helloworld");
/// }
/// ```
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}

/// The descriptors that `homa-rpc-build` wrote to `OUT_DIR`, encoded, as `&[u8]`: of the file
/// `name.bin` if the build script said
/// `file_descriptor_set_path(out_dir.join("name.bin"))`.
///
/// ```ignore
/// const DESCRIPTORS: &[u8] = homa_rpc::include_file_descriptor_set!("helloworld");
/// ```
#[macro_export]
macro_rules! include_file_descriptor_set {
    ($name:tt) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bin"))
    };
}
