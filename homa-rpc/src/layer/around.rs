//! Interceptors that wait: asynchronous functions around calls.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{self, Poll};

use bytes::Bytes;
use tower::{Layer, Service};

use crate::body::{Body, CallService};
use crate::message::BoxError;
use crate::message::method::MethodDescriptor;
use crate::message::status::Status;
use crate::server::NamedService;
use crate::util::inner::gives_back_inner;

/// A layer that runs an asynchronous function around each call, on a client or a server. It gets the
/// request and what comes [`Next`], sees the response, with
/// [`final_status`](crate::final_status) how the call ended, and can change both or answer itself.
///
/// ```
/// use homa_rpc::layer::{Next, around};
/// use homa_rpc::{Body, Status, final_status};
///
/// async fn fetch_token() -> Result<http::HeaderValue, Status> {
///     # Ok(http::HeaderValue::from_static("Bearer token"))
/// }
///
/// let with_token = around(|mut request: http::Request<Body>, next: Next| async move {
///     request.headers_mut().insert("authorization", fetch_token().await?);
///     let response = next.run(request).await?;
///     if let Some(Err(status)) = final_status(&response) {
///         eprintln!("failed: {status}");
///     }
///     Ok(response)
/// });
/// ```
pub const fn around<F, Fut>(function: F) -> AroundLayer<F>
where
    F: Fn(http::Request<Body>, Next) -> Fut + Clone,
    Fut: Future<Output = Result<http::Response<Body>, Status>>,
{
    AroundLayer { function }
}

/// See [`around`].
#[derive(Clone)]
pub struct AroundLayer<F> {
    function: F,
}

impl<S, F: Clone> Layer<S> for AroundLayer<F> {
    type Service = Around<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        Around {
            inner,
            function: self.function.clone(),
        }
    }
}

/// A service with a function around its calls, see [`around`].
#[derive(Clone)]
pub struct Around<S, F> {
    inner: S,
    function: F,
}

gives_back_inner!(Around<S, F>);

impl<S: NamedService, F> NamedService for Around<S, F> {
    const NAME: &'static str = S::NAME;
    const METHODS: &'static [MethodDescriptor] = S::METHODS;
}

impl<S, F, Fut, B> Service<http::Request<B>> for Around<S, F>
where
    S: CallService,
    F: Fn(http::Request<Body>, Next) -> Fut,
    Fut: Future<Output = Result<http::Response<Body>, Status>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Fut;

    /// Always ready: the function decides whether the service is needed.
    fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Fut {
        let mut inner = self.inner.clone();
        let next = Next(Box::new(move |request| {
            Box::pin(async move {
                let failed = |error: S::CallError| Status::from_error(error.into());
                poll_fn(|cx| inner.poll_ready(cx)).await.map_err(failed)?;
                let response = inner.call(request).await.map_err(failed)?;
                Ok(response.map(Body::new))
            })
        }));
        (self.function)(request.map(Body::new), next)
    }
}

type NextFuture = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

/// The rest of a call: further layers, then the channel or the handler.
pub struct Next(Box<dyn FnOnce(http::Request<Body>) -> NextFuture + Send>);

impl Next {
    /// Makes the call.
    ///
    /// # Errors
    /// The status of a layer or the channel. A status that the server has sent is in the response,
    /// see [`final_status`](crate::final_status).
    pub async fn run(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        (self.0)(request).await
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}

impl<F> fmt::Debug for AroundLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AroundLayer").finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Around<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Around")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
