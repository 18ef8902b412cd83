//! Sockets of the Linux Homa module: the protocol runs in the kernel, this is its interface.
//!
//! [`KernelSocket`] does for IP protocol 146 what [`Socket`](crate::Socket) does with a protocol core
//! of its own. It speaks the interface of the module's full build of July 2026
//! (github.com/PlatformLab/HomaModule); others are refused with a [`Variant`] that names the
//! difference.
//!
//! # What is different from a [`Socket`](crate::Socket)
//!
//! - Of [`Config`] it obeys `rpcs_max`, `inbound_bytes_max` (the size of the region that the module
//!   delivers messages into) and `outbound_bytes_max` (messages that wait because the module's
//!   `wmem_max` is used up). The protocol's own settings are the module's sysctls, `net.homa.*`.
//! - A server's port is 1 to 32767, and its address does not matter: the module takes requests on all
//!   addresses of the host. Only of a socket that was bound to a loopback address the requests of
//!   other hosts are not served.
//! - [`Delivery`](crate::Delivery) after a call has failed is always `Unknown`: the module doesn't
//!   tell whether the server had answered a packet of the call. A request that it does not take in the
//!   first place is `NotSent`.
//! - The server is not told of a cancelled call, and cannot give up a request: one whose responder is
//!   dropped without an answer stays in the module, and its client is told that the server is busy for
//!   as long as it asks.
//! - A message that is a part of a longer whole ([`Message::with_following`], [`Message::scheduled`]) goes like
//!   any other, and the module ranks it by its own length at both ends. Nor does it tell of requests that are
//!   still coming in: [`Respond::receiving_from`](crate::Respond::receiving_from) is always false.
//! - Acks owed are not sent by a close. A server that asks for them gets ICMP "port unreachable".
//! - Its sockets are IPv6 ones wherever there is IPv6, and speak IPv4 too: an IPv6 packet to an IPv4
//!   socket of the module panics the kernel. The module marks what such a socket sends to IPv4 peers
//!   for segmentation as TCP over IPv6. Where a network device that segments by itself mistakes that,
//!   `net.homa.gso_force_software=1` helps (by reading homa_outgoing.c, `homa_tx_data_pkt_alloc`).
//! - Of [`Stats`], the counters of packets stay 0: the module counts for the whole host
//!   (/proc/net/homa_metrics).
//!
//! # How to try it
//!
//! With the module loaded, `cargo test -p homa-transport --test kernel -- --nocapture` runs the
//! conformance suite over it within this machine; without, the tests say that they are skipped.
//! Within one machine the module loses what fits into one packet and sends it again after
//! `resend_ticks`: that works and is slow. Between two machines:
//!
//! ```text
//! cargo run --release -p homa-transport --example kernel -- serve 4000            # on one
//! cargo run --release -p homa-transport --example kernel -- check 10.0.0.1:4000   # on the other
//! ```
//!
//! Of these two programs either can be replaced by another that echoes what it gets, or sends what it
//! likes to have echoed, over protocol 146.

mod driver;
mod errno;
mod probe;
mod shard;
mod state;
mod sys;

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::runtime::Handle as Runtime;

use self::driver::Driver;
use self::shard::Shard;
use self::state::Limits;
use self::sys::Port;
use crate::config::Config;
use crate::error::{BindError, CloseReason, RpcError};
pub use crate::error::{KernelError, Variant};
use crate::message::Message;
use crate::stats::Stats;
use crate::transport::{CallKey, RequestSink, Transport};

/// The smallest region: twice what a few messages of the greatest length need, since half can be
/// lent. The module asks for 64 KiB more per processor. Source: homa_pool.c, `homa_pool_set_region`.
const REGION_BYTES_MIN: usize = 4 << 20;
/// Offsets into the region have 32 bits.
const REGION_BYTES_MAX: usize = 1 << 32;

/// A socket of the Linux Homa module: one port, used as client and, after [`Transport::serve`], as
/// server.
///
/// It is a handle: clones are the same socket, which closes when the last one is dropped, or by
/// [`Transport::close`]: when either returns, the module has freed the port. A task on the runtime that opened it receives for it; when that runtime is gone, its calls fail with
/// [`CloseReason::RuntimeGone`].
#[derive(Clone)]
pub struct KernelSocket {
    handle: Arc<Handle>,
}

/// Closes the socket when the last user lets go. The driver and the responders hold the shard only.
#[derive(Debug)]
struct Handle {
    shard: Arc<Shard>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shard.close(CloseReason::Closed);
    }
}

impl KernelSocket {
    /// Whether the module is loaded and is one that this backend can use. Does not load it.
    ///
    /// # Errors
    /// What is missing.
    pub fn probe() -> Result<(), KernelError> {
        probe::find_module()?;
        probe::open(region_bytes(&Config::default())).map(drop)
    }

    /// Opens a socket on the Homa port `addr.port()`, 1 to 32767, or, for 0, on one that the module
    /// chooses. The system may load the module for this.
    ///
    /// Requests wait in the module until [`Transport::serve`] or the first call.
    ///
    /// # Errors
    /// If the port is taken, a setting is out of range, the module is missing or not one that this
    /// backend can use, or there is no tokio runtime.
    ///
    /// # Panics
    /// If the tokio runtime was built without timers.
    pub fn bind(addr: SocketAddr, config: Config) -> Result<Self, BindError> {
        let (port, runtime) = Self::open(addr, &config)?;
        sys::set_server(port.socket(), true).map_err(|source| BindError::Io { addr, source })?;
        if !addr.ip().is_unspecified() {
            tracing::info!(%addr, "the Homa module takes requests on all addresses of this host");
        }
        Self::start(port, addr, &config, &runtime)
    }

    /// Opens a socket for calls, on a port of the module's choice: for IPv4 and IPv6 if the machine
    /// has both. The system may load the module for this.
    ///
    /// # Errors
    /// As [`KernelSocket::bind`].
    ///
    /// # Panics
    /// If the tokio runtime was built without timers.
    pub fn client(config: Config) -> Result<Self, BindError> {
        let addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let (port, runtime) = Self::open(addr, &config)?;
        Self::start(port, addr, &config, &runtime)
    }

    fn open(addr: SocketAddr, config: &Config) -> Result<(Port, Runtime), BindError> {
        config.validate()?;
        let runtime = Runtime::try_current().map_err(|_| BindError::NoRuntime)?;
        let port = probe::open(region_bytes(config))?;
        probe::bind(&port, addr.port()).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::AddressInUse { addr },
            _ => BindError::Io { addr, source },
        })?;
        Ok((port, runtime))
    }

    fn start(
        port: Port,
        addr: SocketAddr,
        config: &Config,
        runtime: &Runtime,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { addr, source };
        let ipv4 = probe::is_ipv4(&port).map_err(failed)?;
        let number = sys::info(port.socket()).map_err(failed)?.port;
        let port = sys::register(port).map_err(failed)?;
        let mut local = addr;
        local.set_port(number);
        let shard = Arc::new(Shard::new(port, local, ipv4, Limits::of(config)));
        let _inside = runtime.enter();
        drop(runtime.spawn(Driver::new(Arc::clone(&shard))));
        Ok(Self {
            handle: Arc::new(Handle { shard }),
        })
    }

    /// The reason why the socket no longer works, if it does not.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        self.shard().closed()
    }

    fn shard(&self) -> &Arc<Shard> {
        &self.handle.shard
    }
}

/// Size of the region for these settings.
fn region_bytes(config: &Config) -> usize {
    config
        .inbound_bytes_max
        .clamp(REGION_BYTES_MIN, REGION_BYTES_MAX)
}

impl fmt::Debug for KernelSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSocket")
            .field("local_addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

impl Transport for KernelSocket {
    fn start_call(&self, peer: SocketAddr, request: Message) -> Result<CallKey, RpcError> {
        self.shard().start_call(peer, request)
    }

    fn poll_response(&self, call: CallKey, cx: &mut Context<'_>) -> Poll<Result<Bytes, RpcError>> {
        self.shard().poll_response(call, cx)
    }

    fn cancel(&self, call: CallKey) {
        self.shard().cancel(call);
    }

    fn cancel_reaches_server(&self) -> bool {
        false
    }

    fn serve(&self, sink: RequestSink) -> Result<(), RpcError> {
        self.shard().serve(sink)
    }

    fn local_addr(&self) -> SocketAddr {
        self.shard().local_addr()
    }

    fn stats(&self) -> Stats {
        self.shard().stats()
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.shard().poll_closed(cx)
    }

    fn close(&self) {
        self.shard().close(CloseReason::Closed);
    }
}
