//! Sockets: the protocol core over a link, driven by one task.

mod core;
mod driver;
mod polling;
mod shard;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use self::driver::Driver;
use self::polling::BusyPolling;
use self::shard::Shard;
use crate::config::{Config, Wire};
use crate::endpoint::{Endpoint, RpcKey};
use crate::error::{BindError, CloseReason, RpcError};
use crate::link::Link;
use crate::link::mem::MemLink;
use crate::link::raw::RawLink;
use crate::link::udp::{UdpLink, UdpOptions};
use crate::message::Message;
use crate::stats::Stats;
use crate::transport::{CallKey, RequestSink, Transport};
use crate::wire::MESSAGE_BYTES_MAX;

/// A Homa socket: one port, used as client and, after [`Transport::serve`], as server.
///
/// It is a handle: clones are the same socket, which closes when the last one is dropped. A task
/// on the runtime that opened it drives it; when that runtime is gone, its calls fail with
/// [`CloseReason::RuntimeGone`].
#[derive(Clone)]
pub struct Socket {
    handle: Arc<Handle>,
}

/// Bytes of messages that fit into a train of UDP packets.
const TRAIN_BYTES: u32 = 62_000;

/// How late tokio's timers come.
const TIMER_ERROR: Duration = Duration::from_micros(1_200);

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

impl Socket {
    /// Opens a socket on UDP port `addr.port()`, 0 letting the system choose. Packets are those
    /// of `homa+udp`, see `WIRE-UDP.md`.
    ///
    /// # Errors
    /// If the port is taken, the system refuses, a setting is out of range, or there is no tokio
    /// runtime.
    pub fn udp(addr: SocketAddr, config: Config) -> Result<Self, BindError> {
        let link = UdpLink::bind(addr, &UdpOptions::default())?;
        let mut config = fitting(config, link.receive_buffer_bytes());
        // Each grant is a train of packets then, and a system call at either end.
        config.grant_increment_bytes = config.grant_increment_bytes.max(TRAIN_BYTES);
        Self::over(Arc::new(link), config)
    }

    /// Opens a socket for calls on a UDP port of the system's choice: for IPv4 and IPv6 if the
    /// machine has both.
    ///
    /// # Errors
    /// As [`Socket::udp`].
    pub fn udp_client(config: Config) -> Result<Self, BindError> {
        match Self::udp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), config.clone()) {
            Err(BindError::Io { .. }) => {
                Self::udp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), config)
            }
            result => result,
        }
    }

    /// Opens a server's socket on raw sockets of IP protocol 146, the wire of the Homa kernel module
    /// (`homa://`). Port 0 means the first that is free from 1 to 32767; `[::]` takes IPv4 as well.
    ///
    /// # Errors
    /// As [`RawLink::bind`], and if a setting is out of range.
    pub fn raw(addr: SocketAddr, config: Config) -> Result<Self, BindError> {
        Self::over_raw(RawLink::bind(addr)?, config)
    }

    /// Opens a socket for calls on raw sockets of IP protocol 146, for IPv4 and IPv6 if the machine has
    /// both, on a free port from 32768 on.
    ///
    /// # Errors
    /// As [`RawLink::client`], and if a setting is out of range.
    pub fn raw_client(config: Config) -> Result<Self, BindError> {
        Self::over_raw(RawLink::client()?, config)
    }

    pub(crate) fn over_raw(link: RawLink, config: Config) -> Result<Self, BindError> {
        let config = fitting(config, link.receive_buffer_bytes());
        Self::start(Arc::new(link), Wire::Native, config)
    }

    /// Opens an in-process socket that others of this process find by `name`.
    ///
    /// # Errors
    /// If the name is taken, a setting is out of range, or there is no tokio runtime.
    pub fn mem_listen(name: &str, config: Config) -> Result<Self, BindError> {
        Self::over(Arc::new(MemLink::listen(name)?), config)
    }

    /// Opens an in-process socket for calls.
    ///
    /// # Errors
    /// If a setting is out of range, or there is no tokio runtime.
    pub fn mem_client(config: Config) -> Result<Self, BindError> {
        Self::over(Arc::new(MemLink::client()), config)
    }

    /// Address of the in-process socket that listens by `name`.
    #[must_use]
    pub fn mem_resolve(name: &str) -> Option<SocketAddr> {
        MemLink::resolve(name)
    }

    /// Joins the protocol core to any link that only we speak over: packets are those of `homa+udp`.
    ///
    /// # Errors
    /// If a setting is out of range, the system has no random numbers, or there is no tokio
    /// runtime.
    ///
    /// # Panics
    /// If the tokio runtime was built without timers.
    pub fn over(link: Arc<dyn Link>, config: Config) -> Result<Self, BindError> {
        Self::start(link, Wire::Encapsulated, config)
    }

    fn start(link: Arc<dyn Link>, wire: Wire, config: Config) -> Result<Self, BindError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let local = link.local_addr();
        let seed = getrandom::u64().map_err(|error| BindError::Io {
            addr: local,
            source: error.into(),
        })?;
        // Pacing needs a backlog that outlasts the error of tokio's timers.
        let nic_backlog = match config.link_mbps {
            Some(_) => config.nic_backlog.max(TIMER_ERROR),
            None => config.nic_backlog,
        };
        let config = Config {
            nic_backlog,
            ..config
        };
        let busy_poll = if link.can_busy_poll() {
            config.busy_poll
        } else {
            Duration::ZERO
        };
        let endpoint = Endpoint::new(config, wire, local.port(), seed)?;
        let shard = Arc::new(Shard::new(endpoint, link));
        let _inside = runtime.enter();
        drop(runtime.spawn(Driver::new(Arc::clone(&shard), BusyPolling::new(busy_poll))));
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

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("local_addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

impl Transport for Socket {
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
        true
    }

    fn serve(&self, sink: RequestSink) -> Result<(), RpcError> {
        self.shard().serve(sink)
    }

    fn respond(&self, rpc: RpcKey, response: Message) -> Result<(), RpcError> {
        self.shard().respond(rpc, response)
    }

    fn abandon(&self, rpc: RpcKey) {
        self.shard().abandon(rpc);
    }

    fn poll_cancelled(&self, rpc: RpcKey, cx: &mut Context<'_>) -> Poll<()> {
        self.shard().poll_cancelled(rpc, cx)
    }

    fn local_addr(&self) -> SocketAddr {
        self.shard().local_addr()
    }

    fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
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

/// What is granted must fit into the receive buffer, whose bookkeeping takes about as much as the
/// packets: a third of the total.
fn fitting(config: Config, receive_buffer_bytes: usize) -> Config {
    let room = u32::try_from(receive_buffer_bytes / 3 * 2).unwrap_or(u32::MAX);
    let max_incoming_bytes = config.max_incoming_bytes.min(room.max(10_000));
    Config {
        max_incoming_bytes,
        ..config
    }
}

/// A socket bound to "any address" is reachable on this host's loopback address.
pub(crate) const fn reachable(mut peer: SocketAddr) -> SocketAddr {
    match peer.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => peer.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(ip) if ip.is_unspecified() => peer.set_ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => {}
    }
    peer
}
