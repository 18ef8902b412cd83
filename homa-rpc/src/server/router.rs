//! From the path of a call to the service that has it.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tower::Service;

use crate::body::{self, Body};
use crate::message::BoxError;
use crate::message::method::MethodDescriptor;
use crate::message::status::Status;
use crate::util::downcast::try_cast;
use crate::util::name_map::ByName;

/// A service with the name under which it is called.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service that can be served",
    label = "expected a service, such as the generated `GreeterServer`",
    note = "what implements a generated trait `Greeter` is served as `GreeterServer::new(..)`",
    note = "a service of another kind needs `homa_rpc::server::NamedService`, which says how it is called"
)]
pub trait NamedService {
    /// `package.Service`.
    const NAME: &'static str;

    /// Its methods, as far as they are known: layers and handlers learn from here which one is called
    /// ([`CallInfo::method`](crate::CallInfo::method)).
    const METHODS: &'static [MethodDescriptor] = &[];
}

type RouteFuture = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// Hands each call to the service named in its path; unknown ones are UNIMPLEMENTED. The
/// innermost service of a server, below all layers.
#[derive(Clone, Default)]
pub struct Router {
    routes: Arc<ByName<&'static str, Box<dyn Route>>>,
}

impl Router {
    pub(super) fn new(routes: ByName<&'static str, Box<dyn Route>>) -> Self {
        Self {
            routes: Arc::new(routes),
        }
    }

    fn route(&self, request: http::Request<Body>) -> RouteFuture {
        let path = request.uri().path();
        let name = path.strip_prefix('/').and_then(|path| {
            let end = path.bytes().position(|byte| byte == b'/');
            path.get(..end.unwrap_or(path.len()))
        });
        if let Some(route) = name.and_then(|name| self.routes.get(name)) {
            return route.call(request);
        }
        let response = body::failed(Status::unimplemented(format!(
            "service {:?} is not served here (call of {path})",
            name.unwrap_or_default()
        )));
        Box::pin(ready(Ok(response)))
    }
}

impl<B> Service<http::Request<B>> for Router
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = RouteFuture;

    /// Always ready; services are asked when their call has come.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> RouteFuture {
        self.route(request.map(Body::new))
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.keys()).finish()
    }
}

/// A service whose type is hidden.
pub(super) trait Route: Send + Sync {
    fn call(&self, request: http::Request<Body>) -> RouteFuture;
}

fn finished<B, E>(result: Result<http::Response<B>, E>) -> http::Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    result.map_or_else(failed, |response| response.map(Body::new))
}

/// The response for an error of a layer of the service.
fn failed(error: impl Into<BoxError>) -> http::Response<Body> {
    body::failed(Status::from_error(error.into()).of_handler())
}

/// Hides the type of a service.
pub(super) struct ServiceRoute<S>(pub(super) S);

impl<S, B> Route for ServiceRoute<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(&self, request: http::Request<Body>) -> RouteFuture {
        let mut service = self.0.clone();
        let mut at_once = Context::from_waker(Waker::noop());
        match service.poll_ready(&mut at_once) {
            // Generated services are always ready and their future is boxed already.
            Poll::Ready(Ok(())) => {
                match try_cast::<S::Future, RouteFuture>(service.call(request)) {
                    Ok(future) => future,
                    Err(future) => Box::pin(async move { Ok(finished(future.await)) }),
                }
            }
            Poll::Ready(Err(error)) => Box::pin(ready(Ok(failed(error)))),
            Poll::Pending => Box::pin(async move {
                let ready = poll_fn(|cx| service.poll_ready(cx)).await;
                Ok(match ready.map_err(failed) {
                    Ok(()) => finished(service.call(request).await),
                    Err(response) => response,
                })
            }),
        }
    }
}
