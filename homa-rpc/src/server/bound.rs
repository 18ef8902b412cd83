//! [`BoundServer`]: listens already, serves on request.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use homa_transport::{BindError, Config, Delivery, NativeBackend, RpcError, Transport};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::dispatch::{Accept, Shared};
use super::stats::ServerStats;
use crate::net::uri::{Place, Uri, UriError};
use crate::net::{listen, sockets};

/// How long a server that ends waits for its last replies to arrive.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// How often it looks whether they have.
const LINGER_STEP: Duration = Duration::from_millis(2);

/// Why a server cannot listen or serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The URI is not one that can be listened on.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The host name has no address.
    #[error("cannot resolve the host of {uri}: {reason}")]
    Resolve {
        /// The URI.
        uri: String,
        /// What the system said.
        reason: String,
    },
    /// The socket could not be opened.
    #[error("cannot listen on {uri}: {source}")]
    Bind {
        /// The URI.
        uri: String,
        /// What is in the way.
        source: BindError,
    },
    /// Two services have the same name.
    #[error("service {name:?} was added twice")]
    ServiceTwice {
        /// Its name.
        name: &'static str,
    },
    /// A limit is set for a method of a service that was not added.
    #[error(
        "a concurrency limit is set for {path:?}, whose service is not served here; expected /package.Service/Method"
    )]
    MethodNotServed {
        /// The path.
        path: String,
    },
    /// Not called inside a tokio runtime.
    #[error("a server must be run inside a tokio runtime")]
    NoRuntime,
    /// A socket failed.
    #[error("cannot take requests: {0}")]
    Socket(#[from] RpcError),
}

/// A server that listens. Requests wait until it serves.
///
/// Dropped, it closes its sockets: its ports and names are free at once. With calls in progress they are free
/// when those have been answered with UNAVAILABLE, by their own tasks: at once if these wait for something,
/// after 2 s at the latest if they block their threads.
pub struct BoundServer {
    dispatcher: Arc<dyn Accept>,
    shared: Arc<Shared>,
    sockets: Vec<Listener>,
    drain_timeout: Duration,
    native_backend: Option<NativeBackend>,
    config: Config,
}

struct Listener {
    /// `None` for a socket of the caller's.
    uri: Option<Uri>,
    socket: Arc<dyn Transport>,
}

impl BoundServer {
    pub(super) fn new(
        dispatcher: Arc<dyn Accept>,
        shared: Arc<Shared>,
        drain_timeout: Duration,
        native_backend: Option<NativeBackend>,
        config: Config,
    ) -> Self {
        Self {
            dispatcher,
            shared,
            sockets: Vec::new(),
            drain_timeout,
            native_backend,
            config,
        }
    }

    /// Listens on a further URI, see [`ServerBuilder::bind`](super::ServerBuilder::bind); on all addresses if
    /// its host is a name that has several.
    ///
    /// # Errors
    /// If the URI is not valid or the port or name is taken.
    pub fn bind(mut self, uri: impl AsRef<str>) -> Result<Self, ServerError> {
        let uri = uri.as_ref();
        let bind_error = |source| ServerError::Bind {
            uri: uri.to_owned(),
            source,
        };
        let parsed: Uri = uri.parse()?;
        let wire = parsed.wire();
        let sockets = match parsed.place() {
            Place::Process { name } => {
                vec![sockets::listen_mem(name, &self.config).map_err(bind_error)?]
            }
            place => {
                let addresses = addresses(uri, place)?;
                let open = |addr| sockets::listen(wire, addr, self.native_backend, &self.config);
                listen::on_all(wire, &addresses, open).map_err(bind_error)?
            }
        };
        self.sockets
            .extend(sockets.into_iter().map(|socket| Listener {
                uri: Some(Uri::of_address(wire, socket.local_addr()).unwrap_or(parsed.clone())),
                socket,
            }));
        Ok(self)
    }

    /// Takes requests from a socket opened by the caller as well. The server closes it when it
    /// ends.
    #[must_use]
    pub fn bind_socket(mut self, socket: Arc<dyn Transport>) -> Self {
        self.sockets.push(Listener { uri: None, socket });
        self
    }

    /// A handle to read the server's counters while it serves.
    #[must_use]
    pub fn monitor(&self) -> ServerMonitor {
        ServerMonitor {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Where this server listens, in the order of the calls of [`bind`](Self::bind), with the
    /// ports that the system chose. A host name gives a URI for each of its addresses.
    #[must_use]
    pub fn local_uris(&self) -> Vec<String> {
        self.sockets
            .iter()
            .filter_map(|listener| listener.uri.as_ref().map(Uri::to_string))
            .collect()
    }

    /// Serves until the future is dropped. Calls in progress end with UNAVAILABLE then.
    ///
    /// # Errors
    /// If a socket has failed, or there is no runtime.
    pub async fn serve(self) -> Result<(), ServerError> {
        self.serve_with_shutdown(std::future::pending::<()>()).await
    }

    /// Serves until `signal` yields. Then new calls are refused (UNAVAILABLE, refused before
    /// dispatch), those in progress are waited for, at most for the `drain_timeout`, and ended
    /// with UNAVAILABLE if that passes. Sockets are closed last: when this returns, their ports and names are
    /// free. What cannot be ended, handlers that block their thread and replies that do not arrive, is
    /// waited for 2 s more.
    ///
    /// # Errors
    /// If a socket has failed, once the calls of the others are over as on a shutdown, or if there is no
    /// runtime.
    pub async fn serve_with_shutdown(mut self, signal: impl Future) -> Result<(), ServerError> {
        let runtime = Handle::try_current().map_err(|_| ServerError::NoRuntime)?;
        for listener in &self.sockets {
            let dispatcher = Arc::clone(&self.dispatcher);
            let runtime = runtime.clone();
            let cancel_told = listener.socket.cancel_reaches_server();
            let sink =
                move |incoming| Arc::clone(&dispatcher).accept(&runtime, incoming, cancel_told);
            listener.socket.serve(Arc::new(sink))?;
        }
        let ended = self.until_signal_or_failure(signal).await;
        let limiter = &self.shared.limiter;
        limiter.close();
        tracing::debug!(calls = limiter.in_progress(), "the server shuts down");
        let mut idle = timeout(self.drain_timeout, limiter.idle()).await;
        if idle.is_err() {
            limiter.stop();
            idle = timeout(LINGER_MAX, limiter.idle()).await;
        }
        match idle {
            Ok(()) => self.linger().await,
            Err(_elapsed) => tracing::warn!(
                calls = limiter.in_progress(),
                "the server ends though handlers block their threads"
            ),
        }
        drop(Closing(std::mem::take(&mut self.sockets)));
        ended
    }

    /// Waits for `signal`, or for a socket that fails.
    async fn until_signal_or_failure(&self, signal: impl Future) -> Result<(), ServerError> {
        let mut signal = pin!(signal);
        let mut telling = pin!(self.shared.overload.tell());
        poll_fn(|cx| {
            let _endless = telling.as_mut().poll(cx);
            if signal.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            for listener in &self.sockets {
                if let Poll::Ready(reason) = listener.socket.poll_closed(cx) {
                    let delivery = Delivery::Unknown;
                    return Poll::Ready(Err(RpcError::Closed { reason, delivery }.into()));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until the clients have their replies, within reason.
    async fn linger(&self) {
        let delivered = async {
            while self.sockets.iter().any(|l| l.socket.stats().rpcs_live > 0) {
                sleep(LINGER_STEP).await;
            }
        };
        let _gone = timeout(LINGER_MAX, delivered).await;
    }
}

impl Drop for BoundServer {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        shared.limiter.stop();
        let sockets = Closing(std::mem::take(&mut self.sockets));
        if sockets.0.is_empty() || shared.limiter.in_progress() == 0 {
            return;
        }
        // The tasks of the calls answer when they next run, for which they need the sockets.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _blocked = timeout(LINGER_MAX, shared.limiter.idle()).await;
                drop(sockets);
            });
        }
    }
}

/// Closes sockets when it is dropped.
struct Closing(Vec<Listener>);

impl Drop for Closing {
    fn drop(&mut self) {
        for listener in &self.0 {
            listener.socket.close();
        }
    }
}

/// Reads the counters of a server, see [`BoundServer::monitor`].
#[derive(Clone)]
pub struct ServerMonitor {
    shared: Arc<Shared>,
}

impl ServerMonitor {
    /// The counters now, those of all its sockets together.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        ServerStats {
            calls_in_progress: self.shared.limiter.in_progress() as u64,
            ..self.shared.counters.read()
        }
    }
}

impl fmt::Debug for ServerMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerMonitor").field(&self.stats()).finish()
    }
}

impl fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundServer")
            .field("local_uris", &self.local_uris())
            .finish_non_exhaustive()
    }
}

/// All that a host stands for, each once.
fn addresses(uri: &str, place: &Place) -> Result<Vec<SocketAddr>, ServerError> {
    let (name, port) = match place {
        Place::Address(addr) => return Ok(vec![*addr]),
        Place::Host { name, port } => (name, *port),
        Place::Process { name } => (name, 0),
    };
    let failed = |reason| ServerError::Resolve {
        uri: uri.to_owned(),
        reason,
    };
    let found = (name.as_str(), port)
        .to_socket_addrs()
        .map_err(|error| failed(error.to_string()))?;
    let mut addresses = Vec::new();
    for addr in found {
        if !addresses.contains(&addr) {
            addresses.push(addr);
        }
    }
    if addresses.is_empty() {
        return Err(failed("it has no address".to_owned()));
    }
    Ok(addresses)
}
