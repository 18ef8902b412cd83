//! One service of a server under layers of its own.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tower::{Layer, Service};

use super::router::NamedService;
use crate::body::{self, Body};
use crate::error::BoxError;
use crate::method::MethodDescriptor;
use crate::status::Status;

/// Puts `layer` around one service instead of all:
/// `add_service(layered(&layer, GreeterServer::new(greeter)))`. An error of the layer ends the call
/// with the status it stands for ([`Status::from_error`]).
pub fn layered<L, S>(layer: &L, service: S) -> Layered<L::Service, S>
where
    L: Layer<S>,
    S: NamedService,
{
    Layered {
        inner: layer.layer(service),
        failed: None,
        named: PhantomData,
    }
}

/// A service that has the name of the service `N`, around which it is. See [`layered`].
pub struct Layered<S, N> {
    inner: S,
    /// Why the layer was not ready: the next call is told.
    failed: Option<Status>,
    named: PhantomData<fn() -> N>,
}

impl<S, N: NamedService> NamedService for Layered<S, N> {
    const NAME: &'static str = N::NAME;
    const METHODS: &'static [MethodDescriptor] = N::METHODS;
}

impl<S, N, R, B> Service<http::Request<R>> for Layered<S, N>
where
    S: Service<http::Request<R>, Response = http::Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = LayeredFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if let Err(error) = ready!(self.inner.poll_ready(cx)) {
            self.failed = Some(Status::from_error(error.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<R>) -> Self::Future {
        let state = match self.failed.take() {
            Some(status) => State::Failed {
                status: Some(status),
            },
            None => State::Called {
                future: self.inner.call(request),
            },
        };
        LayeredFuture { state }
    }
}

pin_project_lite::pin_project! {
    /// Future of a call of [`Layered`].
    pub struct LayeredFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project_lite::pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Failed { status: Option<Status> },
        Called { #[pin] future: F },
    }
}

impl<F, B, E> Future for LayeredFuture<F>
where
    F: Future<Output = Result<http::Response<B>, E>>,
    E: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let status = match self.project().state.project() {
            StateProjection::Failed { status } => status
                .take()
                .unwrap_or_else(|| Status::internal("a call was polled after its end")),
            StateProjection::Called { future } => match ready!(future.poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response.map(Body::new))),
                Err(error) => Status::from_error(error.into()),
            },
        };
        Poll::Ready(Ok(body::failed(status)))
    }
}

impl<S: Clone, N> Clone for Layered<S, N> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            failed: None,
            named: PhantomData,
        }
    }
}

impl<S: fmt::Debug, N> fmt::Debug for Layered<S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for LayeredFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayeredFuture").finish_non_exhaustive()
    }
}
