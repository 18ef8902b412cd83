//! Interceptors that don't wait: they see a call before it is made and how it ends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use bytes::Bytes;
use http::Uri;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::on_end;
use crate::body::Body;
use crate::call::context::DropReason;
use crate::call::deadline::{self, Timer};
use crate::message::BoxError;
use crate::message::metadata::Metadata;
use crate::message::method::{CallInfo, MethodDescriptor};
use crate::message::request::Request;
use crate::message::status::Status;
use crate::server::NamedService;
use crate::util::inner::gives_back_inner;

/// Sees calls before and after, on a client or a server. What waits in between belongs into
/// [`around`](super::around()).
///
/// A function from [`Request<()>`](Request) to the same or a [`Status`] is one:
///
/// ```
/// use homa_rpc::layer::interceptor;
/// use homa_rpc::{Channel, Request, Status};
/// use tower::Layer;
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let channel = Channel::new("homa+udp://127.0.0.1:4000")?;
/// let with_token = interceptor(|mut request: Request<()>| {
///     let set = request.metadata_mut().insert("authorization", "Bearer token");
///     set.map_err(|error| Status::internal(error.to_string()))?;
///     Ok(request)
/// });
/// let service = with_token.layer(channel);
/// # Ok(())
/// # }
/// ```
pub trait Interceptor: Send + Sync + 'static {
    /// Sees the request of a call, without its message, and can change its metadata and extensions.
    /// A timeout set here ends the call as well, with the stream of its responses; one set earlier stays.
    ///
    /// # Errors
    /// Ends the call: on a client nothing is sent, on a server the handler is not run.
    fn before(&self, request: Request<()>) -> Result<Request<()>, Status>;

    /// Sees how the call ended, once; of one that streams, with the end of its responses. A call that was
    /// given up has the status CANCELLED, or DEADLINE_EXCEEDED if that is why; on a server also
    /// UNAVAILABLE if that was stopped, and UNKNOWN if the handler panicked.
    fn after(&self, call: &Call, outcome: Result<(), &Status>) {
        let _ = (call, outcome);
    }
}

impl<F> Interceptor for F
where
    F: Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync + 'static,
{
    fn before(&self, request: Request<()>) -> Result<Request<()>, Status> {
        self(request)
    }
}

/// Which call it is that has ended.
#[derive(Clone, Debug)]
pub struct Call {
    uri: Uri,
    info: CallInfo,
}

impl Call {
    /// `/package.Service/Method`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// What else is known of it.
    #[must_use]
    pub const fn info(&self) -> &CallInfo {
        &self.info
    }
}

/// A layer that lets `interceptor` see all calls of a service.
pub fn interceptor<I: Interceptor>(interceptor: I) -> InterceptorLayer<I> {
    InterceptorLayer::new(interceptor)
}

/// See [`interceptor`].
pub struct InterceptorLayer<I> {
    interceptor: Arc<I>,
}

impl<I: Interceptor> InterceptorLayer<I> {
    /// The same as [`interceptor`].
    #[must_use]
    pub fn new(interceptor: I) -> Self {
        Self {
            interceptor: Arc::new(interceptor),
        }
    }
}

/// A service whose calls an [`Interceptor`] sees.
pub struct InterceptedService<S, I> {
    inner: S,
    interceptor: Arc<I>,
}

impl<S, I: Interceptor> InterceptedService<S, I> {
    /// Lets `interceptor` see all calls of `inner`; what [`interceptor`] does as a layer.
    pub fn new(inner: S, interceptor: I) -> Self {
        Self {
            inner,
            interceptor: Arc::new(interceptor),
        }
    }
}

gives_back_inner!(InterceptedService<S, I>);

impl<S, I> InterceptedService<S, I> {
    /// What sees its calls.
    #[must_use]
    pub fn interceptor(&self) -> &I {
        &self.interceptor
    }
}

impl<S, I> Layer<S> for InterceptorLayer<I> {
    type Service = InterceptedService<S, I>;

    fn layer(&self, inner: S) -> Self::Service {
        InterceptedService {
            inner,
            interceptor: Arc::clone(&self.interceptor),
        }
    }
}

impl<S: NamedService, I> NamedService for InterceptedService<S, I> {
    const NAME: &'static str = S::NAME;
    const METHODS: &'static [MethodDescriptor] = S::METHODS;
}

impl<S, I, B, R> Service<http::Request<B>> for InterceptedService<S, I>
where
    S: Service<http::Request<Body>, Response = http::Response<R>>,
    S::Error: Into<BoxError>,
    I: Interceptor,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = InterceptedFuture<S::Future, I>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Status>> {
        let ready = self.inner.poll_ready(cx);
        ready.map_err(|error| Status::from_error(error.into()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let mut body = Body::new(body);
        let mut end = CallEnd::new(&self.interceptor, parts.uri.clone(), *body.info());
        let request = Request::of_call(
            Metadata::of_layer(parts.headers),
            parts.extensions,
            *body.info(),
            (),
        );
        let request = match self.interceptor.before(request) {
            Ok(request) => request,
            Err(status) => return InterceptedFuture::refused(status, end),
        };
        let (metadata, extensions, options, mut info, ()) = request.into_call();
        let own = options.timeout.and_then(deadline::after);
        info.deadline = deadline::earliest([info.deadline, own]);
        *body.info_mut() = info;
        end.call.info = info;
        parts.headers = metadata.into_headers();
        parts.extensions = extensions;
        let timer = match own.map(deadline::timer).transpose() {
            Ok(timer) => timer,
            Err(status) => return InterceptedFuture::refused(status, end),
        };
        let future = self.inner.call(http::Request::from_parts(parts, body));
        InterceptedFuture {
            state: State::Called { future },
            end: Some(end),
            own,
            timer,
        }
    }
}

pin_project_lite::pin_project! {
    /// Future of a call that an [`Interceptor`] sees.
    pub struct InterceptedFuture<F, I: Interceptor> {
        #[pin]
        state: State<F>,
        end: Option<CallEnd<I>>,
        // Only for a timeout that the interceptor has set: it holds for a response that streams as well.
        own: Option<Instant>,
        #[pin]
        timer: Option<Timer>,
    }
}

pin_project_lite::pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Refused { status: Option<Status> },
        Called { #[pin] future: F },
    }
}

impl<F, I: Interceptor> InterceptedFuture<F, I> {
    const fn refused(status: Status, end: CallEnd<I>) -> Self {
        Self {
            state: State::Refused {
                status: Some(status),
            },
            end: Some(end),
            own: None,
            timer: None,
        }
    }
}

impl<F, I, R, E> Future for InterceptedFuture<F, I>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    I: Interceptor,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    E: Into<BoxError>,
{
    type Output = Result<http::Response<Body>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.state.project() {
            StateProjection::Refused { status } => Err(status
                .take()
                .unwrap_or_else(|| Status::internal("a call was polled after its end"))),
            StateProjection::Called { future } => match future.poll(cx) {
                Poll::Ready(Ok(response)) => Ok(response.map(Body::new)),
                Poll::Ready(Err(error)) => Err(Status::from_error(error.into())),
                Poll::Pending => match this.timer.as_pin_mut() {
                    Some(timer) => {
                        ready!(timer.poll(cx));
                        Err(expired())
                    }
                    None => return Poll::Pending,
                },
            },
        };
        let Some(end) = this.end.take() else {
            return Poll::Ready(result);
        };
        Poll::Ready(match result {
            Ok(response) => on_end::on_end(response, *this.own, expired, move |outcome| {
                end.tell(outcome)
            }),
            Err(status) => {
                end.tell(Err(&status));
                Err(status)
            }
        })
    }
}

fn expired() -> Status {
    Status::deadline_exceeded("the timeout that an interceptor has set is over")
}

/// Tells the interceptor how a call ended, at the latest when it is dropped.
struct CallEnd<I: Interceptor> {
    interceptor: Option<Arc<I>>,
    call: Call,
}

impl<I: Interceptor> CallEnd<I> {
    fn new(interceptor: &Arc<I>, uri: Uri, info: CallInfo) -> Self {
        Self {
            interceptor: Some(Arc::clone(interceptor)),
            call: Call { uri, info },
        }
    }

    fn tell(mut self, outcome: Result<(), &Status>) {
        if let Some(interceptor) = self.interceptor.take() {
            interceptor.after(&self.call, outcome);
        }
    }
}

impl<I: Interceptor> Drop for CallEnd<I> {
    fn drop(&mut self) {
        if let Some(interceptor) = self.interceptor.take() {
            let cause = DropReason::current().unwrap_or_else(|| {
                if deadline::has_passed(self.call.info.deadline) {
                    DropReason::Deadline
                } else {
                    DropReason::Cancelled
                }
            });
            interceptor.after(&self.call, Err(&cause.status()));
        }
    }
}

impl<I> Clone for InterceptorLayer<I> {
    fn clone(&self) -> Self {
        Self {
            interceptor: Arc::clone(&self.interceptor),
        }
    }
}

impl<S: Clone, I> Clone for InterceptedService<S, I> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            interceptor: Arc::clone(&self.interceptor),
        }
    }
}

impl<I> fmt::Debug for InterceptorLayer<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterceptorLayer").finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, I> fmt::Debug for InterceptedService<S, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterceptedService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<F, I: Interceptor> fmt::Debug for InterceptedFuture<F, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InterceptedFuture").finish_non_exhaustive()
    }
}
