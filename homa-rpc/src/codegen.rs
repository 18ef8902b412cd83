//! What generated code uses. Not meant for others; it may change with the generator.
#![doc(hidden)]

pub use std::convert::Infallible;
pub use std::future::Future;
pub use std::pin::Pin;
pub use std::sync::Arc;
pub use std::task::{Context, Poll};

pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use futures_core::Stream;
pub use tower::{Layer, Service};
pub use {http, http_body};

pub use crate::body::{UnaryCall, UnaryFuture, UnaryReply};
pub use crate::client::{CallService, Caller};
pub use crate::layer::{InterceptedService, Interceptor};
pub use crate::server::NamedService;
pub use crate::server::service::{UnaryService, serve_http};
pub use crate::server::streaming::{
    StreamingCall, StreamingFuture, bidi_streaming, client_streaming, server_streaming,
    unimplemented_streaming_method,
};
pub use crate::server::unary::{HttpFuture, unary, unimplemented_method};
pub use crate::{
    Body, BoxRequestStream, BoxStream, Channel, Codec, Idempotency, IntoRequest,
    IntoStreamingRequest, MessageLimits, MethodDescriptor, ProstCodec, Request, Response, Status,
    Streaming,
};

/// Any error.
pub type StdError = crate::BoxError;

/// A future whose type is hidden.
pub type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'static>>;
