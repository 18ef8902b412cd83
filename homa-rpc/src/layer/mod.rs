//! Tower layers for clients and servers.
//!
//! Layers of `tower` and `tower-http` work as well: on a [`Channel`](crate::Channel) with
//! `tower::ServiceBuilder`, on a server with [`ServerBuilder::layer`](crate::ServerBuilder::layer).
//! Those here can also be put around a single service before it is added to a server.

mod around;
mod interceptor;
mod on_end;

pub use around::{Around, AroundLayer, Next, around};
pub use interceptor::{
    Call, InterceptedFuture, InterceptedService, Interceptor, InterceptorLayer, interceptor,
};
