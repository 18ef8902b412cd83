//! [`CallService`]: what a service over calls as tower sees them has to be.

use std::future::Future;
use std::task::{self, Poll};

use bytes::Bytes;
use tower::Service;

use super::Body;
use crate::message::BoxError;

/// A service that carries calls: [`Channel`](crate::Channel), bare or under tower layers; on a server, what is
/// under its layers.
///
/// Implemented for every `tower::Service<http::Request<Body>>` with the bounds named here; it
/// only shortens them.
pub trait CallService: Clone + Send + 'static {
    /// Body of the responses.
    type ResponseBody: http_body::Body<Data = Bytes, Error = Self::BodyError> + Send + 'static;
    /// Error of that body.
    type BodyError: Into<BoxError>;
    /// Error of the service.
    type CallError: Into<BoxError>;
    /// Future of the response.
    type CallFuture: Future<Output = Result<http::Response<Self::ResponseBody>, Self::CallError>>
        + Send
        + 'static;

    /// As [`Service::poll_ready`].
    ///
    /// # Errors
    /// As the service says.
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Self::CallError>>;

    /// As [`Service::call`].
    fn call(&mut self, request: http::Request<Body>) -> Self::CallFuture;
}

impl<T, B> CallService for T
where
    T: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    T::Error: Into<BoxError>,
    T::Future: Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type ResponseBody = B;
    type BodyError = B::Error;
    type CallError = T::Error;
    type CallFuture = T::Future;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), T::Error>> {
        Service::poll_ready(self, cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> T::Future {
        Service::call(self, request)
    }
}
