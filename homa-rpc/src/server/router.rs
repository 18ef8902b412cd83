//! From the path of a call to the service that has it.

use std::convert::Infallible;
use std::fmt;
use std::future::{poll_fn, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tower::Service;

use super::service::{NamedService, UnaryService};
use super::unary::{HttpFuture, Replying};
use crate::body::{self, Body, CallService, UnaryCall};
use crate::message::BoxError;
use crate::message::method::{MethodDescriptor, MethodKind};
use crate::message::status::Status;
use crate::util::downcast::try_cast;
use crate::util::name_map::ByName;

/// Hands each call to the service named in its path; unknown ones are UNIMPLEMENTED. The
/// innermost service of a server, below all layers.
#[derive(Clone, Default)]
pub struct Router {
    routes: Arc<ByName<&'static str, Route>>,
}

impl Router {
    pub(super) fn new(routes: ByName<&'static str, Route>) -> Self {
        Self {
            routes: Arc::new(routes),
        }
    }

    /// Answers a call to which no layer has to be applied; `route` is its service, if that is known.
    pub(super) fn serve(&self, route: Option<&Route>, call: UnaryCall) -> Replying {
        match route.or_else(|| self.find(call.path())) {
            Some(route) => match route.0.unary() {
                Some(service) if !streams(&call) => Replying::Unary(service.serve(call)),
                _ => route.0.serve_http(call.into_http()).0,
            },
            None => not_served(call.path()),
        }
    }

    fn find(&self, path: &str) -> Option<&Route> {
        self.routes.get(service_in(path)?)
    }
}

/// True if a call is for a method that streams, with a request that happens to be one message.
fn streams(call: &UnaryCall) -> bool {
    let method = call.info.method;
    method.is_some_and(|method| method.kind() != MethodKind::Unary)
}

/// The name of the service in a path.
fn service_in(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/')?;
    let end = path.bytes().position(|byte| byte == b'/');
    path.get(..end.unwrap_or(path.len()))
}

fn not_served(path: &str) -> Replying {
    let name = service_in(path).unwrap_or_default();
    let text = format!("service {name:?} is not served here (call of {path})");
    Replying::Unary(Box::pin(ready(Status::unimplemented(text).into())))
}

impl<B> Service<http::Request<B>> for Router
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = HttpFuture;

    /// Always ready; services are asked when their call has come.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> HttpFuture {
        let path = request.uri().path();
        match self.find(path) {
            Some(route) => route.0.serve_http(request.map(Body::new)),
            None => HttpFuture(not_served(path)),
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.keys()).finish()
    }
}

/// A service whose type is hidden.
#[derive(Clone)]
pub(super) struct Route(Arc<dyn Serve>);

impl Route {
    pub(super) fn of<S: NamedService + CallService + Sync>(service: S) -> Self {
        Self(Arc::new(Hidden(service)))
    }

    pub(super) fn methods(&self) -> &'static [MethodDescriptor] {
        self.0.methods()
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Route")
    }
}

trait Serve: Send + Sync {
    fn methods(&self) -> &'static [MethodDescriptor];

    fn unary(&self) -> Option<&dyn UnaryService>;

    fn serve_http(&self, request: http::Request<Body>) -> HttpFuture;
}

/// The response for an error of a layer of the service.
fn failed(error: impl Into<BoxError>) -> http::Response<Body> {
    body::failed(Status::from_error(error.into()).of_handler())
}

/// Hides the type of a service.
struct Hidden<S>(S);

impl<S: NamedService + CallService + Sync> Serve for Hidden<S> {
    fn methods(&self) -> &'static [MethodDescriptor] {
        S::METHODS
    }

    fn unary(&self) -> Option<&dyn UnaryService> {
        self.0.unary()
    }

    fn serve_http(&self, request: http::Request<Body>) -> HttpFuture {
        let mut service = self.0.clone();
        let mut at_once = Context::from_waker(Waker::noop());
        HttpFuture(Replying::Http(match service.poll_ready(&mut at_once) {
            // Generated services are always ready and their future is boxed already.
            Poll::Ready(Ok(())) => {
                match try_cast::<S::CallFuture, HttpFuture>(service.call(request)) {
                    Ok(future) => return future,
                    Err(future) => Box::pin(finished::<S>(future)),
                }
            }
            Poll::Ready(Err(error)) => Box::pin(ready(failed(error))),
            Poll::Pending => Box::pin(async move {
                let ready = poll_fn(|cx| service.poll_ready(cx)).await;
                match ready.map_err(failed) {
                    Ok(()) => finished::<S>(service.call(request)).await,
                    Err(response) => response,
                }
            }),
        }))
    }
}

async fn finished<S: CallService>(responding: S::CallFuture) -> http::Response<Body> {
    let response = responding.await;
    response.map_or_else(failed, |response| response.map(Body::new))
}
