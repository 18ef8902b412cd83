//! One service of a server under tower layers of its own.

use std::fmt;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use super::service::NamedService;
use crate::message::method::MethodDescriptor;
use crate::util::inner::gives_back_inner;

/// Puts `layer` around one service instead of all:
/// `add_service(layered(&layer, GreeterServer::new(greeter)))`. Needed for layers of others, which
/// hide the name of the service; those of [`layer`](crate::layer) keep it by themselves.
///
/// An error of the layer ends the call with the status it stands for
/// ([`Status::from_error`](crate::Status::from_error)).
pub fn layered<L, S>(layer: &L, service: S) -> Layered<L::Service, S>
where
    L: Layer<S>,
    S: NamedService,
{
    Layered {
        inner: layer.layer(service),
        named: PhantomData,
    }
}

/// A service that has the name of the service `N`, around which it is. See [`layered`].
pub struct Layered<S, N> {
    inner: S,
    named: PhantomData<fn() -> N>,
}

gives_back_inner!(Layered<S, N>);

impl<S, N: NamedService> NamedService for Layered<S, N> {
    const NAME: &'static str = N::NAME;
    const METHODS: &'static [MethodDescriptor] = N::METHODS;
}

impl<S, N, R> Service<R> for Layered<S, N>
where
    S: Service<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}

impl<S: Clone, N> Clone for Layered<S, N> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
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
