//! Sockets: the protocol core over a link, driven by one task; or several of these side by side.

mod busy_poll;
mod driver;
mod key;
mod link_slot;
mod memory;
mod overload;
mod shard;
mod state;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use self::busy_poll::BusyPoll;
use self::driver::Driver;
use self::key::ShardKey;
use self::shard::{Shard, Siblings};
use crate::config::{Config, Wire};
use crate::endpoint::{Endpoint, LinkBudget, Seed};
use crate::error::{BindError, CloseReason, RpcError};
use crate::link::Link;
use crate::link::address::reachable;
use crate::link::clock::Clock;
use crate::link::mem::MemLink;
use crate::link::raw::RawLink;
use crate::link::steering::{Steering, shard_of_host};
use crate::link::udp::{UdpLink, UdpOptions};
use crate::message::Message;
use crate::stats::Stats;
use crate::transport::{CallKey, RequestSink, Transport};

/// A Homa socket: one port, used as client and, after [`Transport::serve`], as server.
///
/// It is a handle: clones are the same socket, which closes when the last one is dropped, or by
/// [`Transport::close`]: when either returns, its port is free. A task on the runtime that opened it drives
/// it; when that runtime is gone, its calls fail with [`CloseReason::RuntimeGone`].
///
/// With [`Config::shards`] there are several such tasks, each with a part of the peers: a server's by the
/// peer's port, on one port of their own; a client's, on a port each, by the thread that calls.
#[derive(Clone)]
pub struct Socket {
    handle: Arc<Handle>,
    /// Of a pinned handle: the shard that calls, where any of them can.
    pinned: Option<u32>,
}

/// Bytes of messages that fit into one datagram of UDP packets (GSO).
const GSO_BYTES: u32 = 62_000;

/// How late tokio's timers come.
const TIMER_ERROR: Duration = Duration::from_micros(1_200);

/// Closes the socket when the last user lets go. The drivers and the responders hold the shards only.
#[derive(Debug)]
struct Handle {
    first: Arc<Shard>,
    others: Vec<Arc<Shard>>,
    /// How packets are spread over the shards if they share a port: what a peer sends comes to one of
    /// them, which therefore is the one to call it. `None`: they have a port each, and any of them can.
    steering: Option<Steering>,
}

impl Handle {
    fn shard(&self, number: u32) -> &Arc<Shard> {
        let after_first = (number as usize).checked_sub(1);
        let other = after_first.and_then(|index| self.others.get(index));
        other.unwrap_or(&self.first)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Shard>> {
        [&self.first].into_iter().chain(&self.others)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.others.len() + 1).unwrap_or(u32::MAX)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.first.close(CloseReason::Closed);
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
        config.validate()?;
        let (first, others) = UdpLink::bind_group(addr, &UdpOptions::default(), config.shards)?;
        Self::over_udp(first, others, Some(Steering::ById), config)
    }

    /// Opens a socket for calls on a UDP port of the system's choice: for IPv4 and IPv6 if the
    /// machine has both.
    ///
    /// # Errors
    /// As [`Socket::udp`].
    pub fn udp_client(config: Config) -> Result<Self, BindError> {
        config.validate()?;
        let bind =
            |ip: IpAddr, port| UdpLink::bind(SocketAddr::new(ip, port), &UdpOptions::default());
        let mut ip = IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let first = match bind(ip, 0) {
            Err(BindError::Io { .. }) => {
                ip = Ipv4Addr::UNSPECIFIED.into();
                bind(ip, 0)?
            }
            result => result?,
        };
        let mut others = Vec::new();
        for number in 1..config.shards {
            // Ports that follow one another meet the shards of a server evenly.
            let offset = u16::try_from(number).unwrap_or(0);
            let next = first.local_addr().port().checked_add(offset).unwrap_or(0);
            let link = match bind(ip, next) {
                Err(BindError::AddressInUse { .. }) => bind(ip, 0)?,
                result => result?,
            };
            others.push(link);
        }
        Self::over_udp(first, others, None, config)
    }

    fn over_udp(
        first: UdpLink,
        others: Vec<UdpLink>,
        steering: Option<Steering>,
        config: Config,
    ) -> Result<Self, BindError> {
        // All that may come can come to one shard, and the buffers are of one size.
        let mut config = fitting(config, first.receive_buffer_bytes());
        // Each grant is one datagram of packets then, and a system call at either end.
        config.grant_increment_bytes = config.grant_increment_bytes.max(GSO_BYTES);
        let others = others
            .into_iter()
            .map(|link| Arc::new(link) as Arc<dyn Link>);
        let wire = Wire::Encapsulated;
        Self::start(Arc::new(first), others.collect(), steering, wire, config)
    }

    /// Opens a server's socket on raw sockets of IP protocol 146, the wire of the Homa kernel module
    /// (`homa://`). Port 0 means the first that is free from 1 to 32767; `[::]` takes IPv4 as well.
    ///
    /// # Errors
    /// As [`RawLink::bind`], and if a setting is out of range.
    pub fn raw(addr: SocketAddr, config: Config) -> Result<Self, BindError> {
        config.validate()?;
        let (first, others) = RawLink::bind_group(addr, config.shards)?;
        Self::over_raw(first, others, Some(Steering::ByAddress), config)
    }

    /// Opens a socket for calls on raw sockets of IP protocol 146, for IPv4 and IPv6 if the machine has
    /// both, on a free port from 32768 on.
    ///
    /// # Errors
    /// As [`RawLink::client`], and if a setting is out of range.
    pub fn raw_client(config: Config) -> Result<Self, BindError> {
        config.validate()?;
        let first = RawLink::client()?;
        let others = (1..config.shards).map(|_| RawLink::client());
        let others = others.collect::<Result<_, _>>()?;
        Self::over_raw(first, others, None, config)
    }

    pub(crate) fn over_raw(
        first: RawLink,
        others: Vec<RawLink>,
        steering: Option<Steering>,
        config: Config,
    ) -> Result<Self, BindError> {
        let config = fitting(config, first.receive_buffer_bytes());
        let others = others
            .into_iter()
            .map(|link| Arc::new(link) as Arc<dyn Link>);
        Self::start(
            Arc::new(first),
            others.collect(),
            steering,
            Wire::Native,
            config,
        )
    }

    /// Opens an in-process socket that others of this process find by `name`.
    ///
    /// # Errors
    /// If the name is taken, a setting is out of range, or there is no tokio runtime.
    pub fn mem_listen(name: &str, config: Config) -> Result<Self, BindError> {
        Self::over(Arc::new(MemLink::listen(name)?), Wire::Encapsulated, config)
    }

    /// Opens an in-process socket for calls.
    ///
    /// # Errors
    /// If a setting is out of range, or there is no tokio runtime.
    pub fn mem_client(config: Config) -> Result<Self, BindError> {
        Self::over(Arc::new(MemLink::client()), Wire::Encapsulated, config)
    }

    /// Address of the in-process socket that listens by `name`.
    #[must_use]
    pub fn mem_resolve(name: &str) -> Option<SocketAddr> {
        MemLink::resolve(name)
    }

    /// Joins the protocol core to any link. `wire` says whose packets it carries.
    ///
    /// # Errors
    /// If a setting is out of range, the system has no random numbers, or there is no tokio
    /// runtime.
    ///
    /// # Panics
    /// If the tokio runtime was built without timers.
    pub fn over(link: Arc<dyn Link>, wire: Wire, config: Config) -> Result<Self, BindError> {
        Self::start(link, Vec::new(), None, wire, config)
    }

    fn start(
        first: Arc<dyn Link>,
        others: Vec<Arc<dyn Link>>,
        steering: Option<Steering>,
        wire: Wire,
        config: Config,
    ) -> Result<Self, BindError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        // Pacing needs a backlog that outlasts the error of tokio's timers.
        let nic_backlog = match config.link_mbps {
            Some(_) => config.nic_backlog.max(TIMER_ERROR),
            None => config.nic_backlog,
        };
        let shards = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
        let config = Config {
            nic_backlog,
            shards,
            ..config
        };
        let budget = (shards > 1).then(|| LinkBudget::new(shards, config.max_incoming_bytes));
        let config = config.of_shard();
        let (budget, clock) = (budget.map(Arc::new), Clock::new());
        let ids = Ids::random(&*first, shards)?;
        let open = |number, link: Arc<dyn Link>| {
            let mut endpoint = endpoint(&*link, wire, config.clone(), ids.of_shard(number))?;
            if let Some(budget) = &budget {
                endpoint.share_link(budget);
            }
            let key = ShardKey::new(number, shards);
            Ok::<_, BindError>(Arc::new(Shard::new(endpoint, link, clock, key)))
        };
        let first = open(0, first)?;
        let others = (1..).zip(others).map(|(number, link)| open(number, link));
        let handle = Handle {
            first,
            others: others.collect::<Result<_, _>>()?,
            steering,
        };
        if shards > 1 {
            for shard in handle.all() {
                shard.join(Siblings {
                    all: handle.all().map(Arc::downgrade).collect(),
                    steering,
                });
            }
        }
        let _inside = runtime.enter();
        for shard in handle.all() {
            let can_busy_poll = shard.link().with(|link| link.can_busy_poll());
            let window = if can_busy_poll == Some(true) {
                config.busy_poll
            } else {
                Duration::ZERO
            };
            drop(runtime.spawn(Driver::new(Arc::clone(shard), BusyPoll::new(window))));
        }
        Ok(Self {
            handle: Arc::new(handle),
            pinned: None,
        })
    }

    /// The reason why the socket no longer works, if it does not.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        self.handle.first.closed()
    }

    /// The counters of each shard, of which [`Transport::stats`] gives the sums.
    #[must_use]
    pub fn stats_by_shard(&self) -> Vec<Stats> {
        self.handle.all().map(|shard| shard.stats()).collect()
    }

    /// The shard that a call belongs to.
    fn shard_of(&self, call: CallKey) -> &Arc<Shard> {
        self.handle.shard(key::shard_of(call, self.handle.count()))
    }

    /// The number of the shard that is to call `peer`.
    fn shard_to_call(&self, peer: SocketAddr) -> u32 {
        let handle = &self.handle;
        match handle.steering {
            _ if handle.others.is_empty() => 0,
            Some(Steering::ByAddress) => shard_of_host(reachable(peer).ip(), handle.count()),
            Some(Steering::ById) | None => self
                .pinned
                .unwrap_or_else(|| thread_number() % handle.count()),
        }
    }
}

fn endpoint(link: &dyn Link, wire: Wire, config: Config, ids: u64) -> Result<Endpoint, BindError> {
    let seed = Seed {
        ids,
        secret: [random(link)?, random(link)?],
    };
    Ok(Endpoint::new(config, wire, link.local_addr().port(), seed)?)
}

fn random(link: &dyn Link) -> Result<u64, BindError> {
    getrandom::u64().map_err(|error| BindError::Io {
        addr: link.local_addr(),
        source: error.into(),
    })
}

/// Where the ids of a socket's shards start. Their upper halves, by which a server's shards are chosen,
/// follow one another from a random number on: so the shards of a client meet those of a server evenly, and
/// what a server's shard calls is answered to that shard.
#[derive(Clone, Copy)]
struct Ids {
    upper: u32,
    lower: u32,
}

impl Ids {
    fn random(link: &dyn Link, shards: u32) -> Result<Self, BindError> {
        let [a, b, c, d, lower @ ..] = random(link)?.to_be_bytes();
        let upper = u32::from_be_bytes([a, b, c, d]);
        // Half of the numbers are random enough, and the last shard's does not overflow.
        let upper = upper / 2;
        let first_of_shards = upper - upper % shards;
        Ok(Self {
            upper: first_of_shards,
            lower: u32::from_be_bytes(lower),
        })
    }

    fn of_shard(self, number: u32) -> u64 {
        u64::from(self.upper + number) << 32 | u64::from(self.lower)
    }
}

/// Threads that call are numbered in the order of their first calls.
fn thread_number() -> u32 {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static NUMBER: u32 = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that ends has none any more.
    NUMBER.try_with(|number| *number).unwrap_or(0)
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
        let shard = self.handle.shard(self.shard_to_call(peer));
        shard.start_call(peer, request)
    }

    fn pin(&self, peer: SocketAddr) -> Option<Arc<dyn Transport>> {
        if self.handle.others.is_empty() || self.pinned.is_some() {
            return None;
        }
        Some(Arc::new(Self {
            handle: Arc::clone(&self.handle),
            pinned: Some(self.shard_to_call(peer)),
        }))
    }

    fn poll_response(&self, call: CallKey, cx: &mut Context<'_>) -> Poll<Result<Bytes, RpcError>> {
        self.shard_of(call).poll_response(call, cx)
    }

    fn cancel(&self, call: CallKey) {
        self.shard_of(call).cancel(call);
    }

    fn peer_heard(&self, call: CallKey) -> bool {
        self.shard_of(call).peer_heard(call)
    }

    fn cancel_reaches_server(&self) -> bool {
        true
    }

    fn serve(&self, sink: RequestSink) -> Result<(), RpcError> {
        for shard in self.handle.all() {
            shard.serve(Arc::clone(&sink))?;
        }
        Ok(())
    }

    fn local_addr(&self) -> SocketAddr {
        self.handle.first.link().local_addr()
    }

    fn stats(&self) -> Stats {
        let mut total = self.handle.first.stats();
        for shard in &self.handle.others {
            total += shard.stats();
        }
        total
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let reason = ready!(self.handle.first.poll_closed(cx));
        // Ports are shared by shards: all of them have to let go.
        self.handle.first.close(reason.clone());
        Poll::Ready(reason)
    }

    fn close(&self) {
        self.handle.first.close(CloseReason::Closed);
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
