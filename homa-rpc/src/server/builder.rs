//! [`Server`]: what is served, under which layers and limits.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use homa_transport::{Config, NativeBackend, Transport};
use tower::layer::Layer;
use tower::layer::util::{Identity, Stack};

use super::admission::CallLimiter;
use super::bound::{BoundServer, ServerError};
use super::cancel::Cancellations;
use super::dispatch::{Dispatcher, Shared};
use super::methods::Methods;
use super::overload::Overload;
use super::quota::PeerQuota;
use super::router::Router;
use super::routes::Routes;
use super::service::NamedService;
use super::stats::Counters;
use super::stream::Calls;
use crate::body::CallService;

/// Serves calls. See [`Server::builder`].
#[derive(Debug)]
pub struct Server;

impl Server {
    /// A server without services or layers.
    #[must_use]
    pub fn builder() -> ServerBuilder<Identity> {
        ServerBuilder {
            layer: Identity::new(),
            routes: Routes::default(),
            method_limits: HashMap::new(),
            concurrency_limit: 65_536,
            request_bytes_limit: 1 << 30,
            concurrency_limit_per_peer: None,
            drain_timeout: Duration::from_secs(30),
            native_backend: None,
            config: Config::default(),
        }
    }
}

/// What a server serves, under which layers and limits.
pub struct ServerBuilder<L> {
    layer: L,
    routes: Routes,
    /// Limits of methods by their paths.
    method_limits: HashMap<String, usize>,
    concurrency_limit: usize,
    request_bytes_limit: usize,
    concurrency_limit_per_peer: Option<usize>,
    drain_timeout: Duration,
    native_backend: Option<NativeBackend>,
    config: Config,
}

impl<L> ServerBuilder<L> {
    fn check(&self) -> Result<(), ServerError> {
        if let Some(name) = self.routes.twice {
            return Err(ServerError::ServiceTwice { name });
        }
        let unserved = self.method_limits.keys().find(|path| {
            let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
            !service.is_some_and(|(service, _)| self.routes.services.contains_key(service))
        });
        match unserved {
            Some(path) => Err(ServerError::MethodNotServed { path: path.clone() }),
            None => Ok(()),
        }
    }
}

impl<L> ServerBuilder<L> {
    /// Puts a tower layer around all services. The first one added sees a call first.
    #[must_use]
    pub fn layer<N>(self, layer: N) -> ServerBuilder<Stack<N, L>> {
        ServerBuilder {
            layer: Stack::new(layer, self.layer),
            routes: self.routes,
            method_limits: self.method_limits,
            concurrency_limit: self.concurrency_limit,
            request_bytes_limit: self.request_bytes_limit,
            concurrency_limit_per_peer: self.concurrency_limit_per_peer,
            drain_timeout: self.drain_timeout,
            native_backend: self.native_backend,
            config: self.config,
        }
    }

    /// Adds a service; a server can have several. It can be one with an interceptor of its own, see
    /// [`layer`](crate::layer).
    #[must_use]
    pub fn add_service<S: NamedService + CallService + Sync>(mut self, service: S) -> Self {
        self.routes = self.routes.add_service(service);
        self
    }

    /// Adds a service if there is one.
    #[must_use]
    pub fn add_optional_service<S: NamedService + CallService + Sync>(
        self,
        service: Option<S>,
    ) -> Self {
        match service {
            Some(service) => self.add_service(service),
            None => self,
        }
    }

    /// Adds all services of `routes`.
    #[must_use]
    pub fn add_routes(mut self, routes: Routes) -> Self {
        self.routes.merge(routes);
        self
    }

    /// Adds a service whose handlers are first polled by the task that drives the socket. A handler that is
    /// done with its first poll costs no task and no wake-up. Layers run there too.
    ///
    /// Only for methods measured to take a few microseconds until they first wait: meanwhile nothing
    /// is received or sent, by any call of the socket. A handler that has to wait goes on in a task
    /// of its own, as usual.
    #[must_use]
    pub fn add_inline_service<S: NamedService + CallService + Sync>(mut self, service: S) -> Self {
        self.routes.inline.insert(S::NAME);
        self.add_service(service)
    }

    /// Calls in progress at most; further ones are refused with RESOURCE_EXHAUSTED before
    /// dispatch. Default: 65,536.
    #[must_use]
    pub const fn concurrency_limit(mut self, calls: usize) -> Self {
        self.concurrency_limit = calls;
        self
    }

    /// Bytes of the requests of all calls in progress at most, those of up to 4,096 bytes not counted;
    /// further ones are refused with RESOURCE_EXHAUSTED before dispatch. So slow handlers cannot fill
    /// the memory with requests. As many again are held of requests in several frames, half of that for one
    /// client address; one for which there is no room fails with RESOURCE_EXHAUSTED, in the middle if need be.
    /// Default: 1 GiB.
    #[must_use]
    pub const fn request_bytes_limit(mut self, bytes: usize) -> Self {
        self.request_bytes_limit = bytes;
        self
    }

    /// Calls in progress of one client at most, known by its address and port; further ones are
    /// refused with RESOURCE_EXHAUSTED before dispatch. Default: no limit but that of the server.
    #[must_use]
    pub const fn concurrency_limit_per_peer(mut self, calls: usize) -> Self {
        self.concurrency_limit_per_peer = Some(calls);
        self
    }

    /// Calls in progress at most of the method with this path, `/package.Service/Method`; further ones
    /// are refused with RESOURCE_EXHAUSTED before dispatch. Default: no limit but that of the server.
    #[must_use]
    pub fn method_concurrency_limit(mut self, path: impl Into<String>, calls: usize) -> Self {
        self.method_limits.insert(path.into(), calls);
        self
    }

    /// How long a shutdown waits for calls in progress before it ends them with UNAVAILABLE.
    /// Default: 30 s.
    #[must_use]
    pub const fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// What speaks `homa://` for this server. Default: what the environment variable `HOMA_BACKEND` names
    /// (`raw` or `kernel`), else the kernel module where it is loaded, else raw sockets.
    #[must_use]
    pub const fn native_backend(mut self, backend: NativeBackend) -> Self {
        self.native_backend = Some(backend);
        self
    }

    /// The number of tasks per `homa+udp://` or `homa://` port, 1 to 64. Each serves a part of the clients.
    /// More than one pay when one core does not keep up with the packets. The
    /// kernel module and `homa+mem://` do without. Default: 1.
    #[must_use]
    pub const fn shards(mut self, shards: u32) -> Self {
        self.config.shards = shards;
        self
    }

    /// The settings of the sockets that this server opens, [`shards`](Self::shards) among them. A socket of
    /// the caller's is used as it is.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }
}

impl<L> ServerBuilder<L>
where
    L: Layer<Router>,
    L::Service: CallService + Sync,
{
    /// Listens on `uri`: `homa+udp://address:port`, port 0 for one that the system chooses,
    /// `homa://address:port`, with ports up to 32767 and 0 for the first that is free, or
    /// `homa+mem://name`. Must be called inside a tokio runtime. A host name is looked up
    /// blocking.
    ///
    /// # Errors
    /// If the URI is not valid, the port or name is taken, a service was added twice, or a limit is
    /// set for a method whose service was not added.
    ///
    /// # Panics
    /// In a runtime built without I/O or timers (`enable_all`), as tokio does.
    pub fn bind(self, uri: impl AsRef<str>) -> Result<BoundServer, ServerError> {
        self.bound()?.bind(uri)
    }

    /// Takes requests from a socket opened by the caller. The server closes it when it ends.
    ///
    /// # Errors
    /// If a service was added twice, or a limit is set for a method whose service was not added.
    pub fn bind_socket(self, socket: Arc<dyn Transport>) -> Result<BoundServer, ServerError> {
        Ok(self.bound()?.bind_socket(socket))
    }

    fn bound(self) -> Result<BoundServer, ServerError> {
        self.check()?;
        let shared = Arc::new(Shared {
            limiter: CallLimiter::new(self.concurrency_limit, self.request_bytes_limit),
            cancellations: Arc::new(Cancellations::default()),
            calls: Calls::new(self.request_bytes_limit),
            counters: Counters::default(),
            overload: Overload::default(),
            peer_quota: self.concurrency_limit_per_peer.map(PeerQuota::new),
            methods: Methods::new(&self.routes, self.method_limits),
            inline: self.routes.inline,
        });
        let dispatcher = Dispatcher {
            service: self.layer.layer(Router::new(self.routes.services)),
            shared: Arc::clone(&shared),
        };
        Ok(BoundServer::new(
            Arc::new(dispatcher),
            shared,
            self.drain_timeout,
            self.native_backend,
            self.config,
        ))
    }

    /// Listens on `uri` and serves until the future is dropped.
    ///
    /// # Errors
    /// As [`bind`](Self::bind) and [`BoundServer::serve`].
    pub async fn serve(self, uri: impl AsRef<str>) -> Result<(), ServerError> {
        self.bind(uri)?.serve().await
    }

    /// Listens on `uri` and serves until `signal` yields, see
    /// [`BoundServer::serve_with_shutdown`].
    ///
    /// # Errors
    /// As [`bind`](Self::bind) and [`BoundServer::serve`].
    pub async fn serve_with_shutdown(
        self,
        uri: impl AsRef<str>,
        signal: impl Future,
    ) -> Result<(), ServerError> {
        self.bind(uri)?.serve_with_shutdown(signal).await
    }
}

impl<L> fmt::Debug for ServerBuilder<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("services", &self.routes)
            .field("concurrency_limit", &self.concurrency_limit)
            .field("drain_timeout", &self.drain_timeout)
            .finish_non_exhaustive()
    }
}
