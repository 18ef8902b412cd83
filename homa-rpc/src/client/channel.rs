//! [`Channel`]: the way to one server, connectionless.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use homa_transport::{Config, NativeBackend, Stats, Transport};
use tower::Service;

use super::future::{CallFuture, ResponseFuture};
use super::resolver::Resolver;
use super::shared::Shared;
use crate::body::{Body, UnaryCall};
use crate::message::BoxError;
use crate::message::status::Status;
use crate::net::ChannelError;
use crate::net::sockets::Kind;
use crate::net::uri::{Uri, Wire};

/// Carries calls to one server. Cheap to clone; there is no connection.
///
/// The socket is opened and the host name looked up by the first call. All channels of a runtime
/// share one socket per wire. A channel and its clones belong to the runtime of their first call:
/// once that has ended, calls fail with UNAVAILABLE. The runtime must have I/O and timers
/// (`enable_all`): without them calls panic, as in tokio.
#[derive(Clone)]
pub struct Channel {
    pub(super) shared: Arc<Shared>,
}

impl Channel {
    /// A channel to `uri`: `homa+udp://host:port`, `homa://host:port` or `homa+mem://name`. Only parses, so it works
    /// outside a runtime.
    ///
    /// # Errors
    /// [`ChannelError::Uri`].
    pub fn new(uri: impl AsRef<str>) -> Result<Self, ChannelError> {
        Self::builder().build(uri)
    }

    /// Counters of the socket that carries the calls, which the runtime's channels of the same wire
    /// share: packets, calls, waiters woken. All are zero before the first call.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.resolver.stats()
    }

    /// Always ready. The same as [`Service::poll_ready`], which needs to be told the type of the body where
    /// there is nothing else to tell it, as in a service around a channel.
    ///
    /// # Errors
    /// None.
    pub const fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    /// Carries a call that no layer wants to see.
    pub(super) fn carry(&self, call: UnaryCall) -> CallFuture {
        CallFuture::new(Arc::clone(&self.shared), call)
    }

    /// A builder, to set more than the URI.
    #[must_use]
    pub fn builder() -> ChannelBuilder {
        ChannelBuilder::default()
    }
}

/// Settings of a [`Channel`].
#[derive(Clone, Debug, Default)]
pub struct ChannelBuilder {
    socket: Option<Arc<dyn Transport>>,
    timeout: Option<Duration>,
    checksums: Option<bool>,
    native_backend: Option<NativeBackend>,
    config: Config,
}

impl ChannelBuilder {
    /// Calls over this socket instead of the one that the runtime's channels share.
    #[must_use]
    pub fn socket(mut self, socket: Arc<dyn Transport>) -> Self {
        self.socket = Some(socket);
        self
    }

    /// Limits the time of every call that has no shorter limit of its own. Without it a call ends
    /// when the transport gives the server up.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether the frames of calls and of their replies carry a checksum (CRC32C). A call whose frame came
    /// damaged, in either direction, fails with INTERNAL. Servers that don't know checksums skip them, and
    /// their replies have none. A checksum takes 8 of the bytes that a frame may have. Default: on for
    /// `homa://`, whose packets have no checksum of their own; off for `homa+udp://`, which has that of UDP,
    /// and within the process.
    #[must_use]
    pub const fn checksums(mut self, on: bool) -> Self {
        self.checksums = Some(on);
        self
    }

    /// What speaks `homa://` for this channel. Default: what the environment variable `HOMA_BACKEND` names
    /// (`raw` or `kernel`), else the kernel module where it is loaded, else raw sockets.
    #[must_use]
    pub const fn native_backend(mut self, backend: NativeBackend) -> Self {
        self.native_backend = Some(backend);
        self
    }

    /// The number of ports and tasks of the socket to call from, 1 to 64; each thread uses one of them. More
    /// than one pay when one core does not keep up with the packets. The kernel module and `homa+mem://` do without, and a
    /// [`socket`](Self::socket) of the caller's is used as it is. Default: 1.
    #[must_use]
    pub const fn shards(mut self, shards: u32) -> Self {
        self.config.shards = shards;
        self
    }

    /// The settings of the socket to call from, [`shards`](Self::shards) among them. It is shared with the
    /// runtime's other channels of the same wire and settings. A [`socket`](Self::socket) of the caller's is
    /// used as it is.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The channel to `uri`, see [`Channel::new`].
    ///
    /// # Errors
    /// [`ChannelError::Uri`].
    pub fn build(self, uri: impl AsRef<str>) -> Result<Channel, ChannelError> {
        let target = Uri::to_call(uri.as_ref())?;
        let kind = Kind {
            wire: target.wire(),
            backend: self.native_backend,
            config: Arc::new(self.config),
        };
        Ok(Channel {
            shared: Arc::new(Shared {
                checksums: self.checksums.unwrap_or(target.wire() == Wire::Homa),
                resolver: Resolver::new(target.clone(), self.socket, kind),
                target,
                timeout: self.timeout,
            }),
        })
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("target", &format_args!("{}", self.shared.target))
            .finish_non_exhaustive()
    }
}

impl<B> Service<http::Request<B>> for Channel
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = ResponseFuture;

    /// Always ready.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        ResponseFuture::new(Arc::clone(&self.shared), request)
    }
}
