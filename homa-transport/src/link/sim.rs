//! The simulated network as links: sockets, and all that is built on them, run on it in tokio's
//! time.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Sleep;

use homa_sim::{
    Arrival, EventQueue, Network, NetworkCounts, PacketFaults, RECEIVE_BUFFER_BYTES, REPORT_DELAY,
    Topology, ip_of, number_at,
};

use crate::endpoint::Transmit;
use crate::error::{BindError, Report, Unreachable};
use crate::link::clock::Clock;
use crate::link::{Link, PacketMeta, RecvBatch};
use crate::units::Instant;
use crate::wire;

/// Largest packet, Homa header included, in bytes: an Ethernet frame less IPv4 and UDP headers.
const PACKET_BYTES_MAX: usize = 1_472;
/// How far ahead of the present the uplink of a host takes packets. Less, and it would run dry
/// until the next timer.
const UPLINK_BACKLOG: Duration = Duration::from_millis(1);
/// Reports of unreachable peers that wait for a link at most.
const REPORTS_MAX: usize = 256;
/// Source and destination port, which go with every packet as in a UDP header.
const PORTS_BYTES: usize = 4;
/// Ports that are given out where none is asked for.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=u16::MAX;

/// A simulated network for sockets: a [`Network`] whose time is tokio's.
///
/// Every host has an address of its own and any number of ports; [`SimNetwork::host`] opens one as
/// a [`Link`]. Packets pass the queues of switches by their priority, and suffer what the
/// [`PacketFaults`] say. An uplink takes packets a millisecond ahead of the present, then the
/// socket has to wait, as with a real one.
///
/// It is meant for a runtime of one thread whose clock is paused: then the clock jumps to whatever
/// is due next, and equal seeds and programs give equal times. (What sockets draw by chance are the
/// ids of their RPCs, which change the contents of packets and nothing else; only
/// [`Damaged::Delivered`](homa_sim::Damaged::Delivered) makes those count.)
///
/// tokio's timers know whole milliseconds. The network itself reckons in nanoseconds, but a packet
/// is handed to its receiver at the first whole millisecond from its arrival, and a round trip
/// takes two at least. Retransmission intervals of less than about 5 ms are too short for it.
///
/// The handle can be cloned. The network is gone when its last handle and link are dropped.
///
/// ```
/// use std::sync::Arc;
///
/// use homa_transport::sim::{PacketFaults, SimNetwork, Topology};
/// use homa_transport::{Config, Socket, Transport, Wire, transport};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let faults = PacketFaults { loss: 100_000, ..PacketFaults::default() };
/// let network = SimNetwork::new(Topology::single_switch(2, 1_000), faults, 7).unwrap();
/// let open = |host| {
///     let link = network.host(host, 4_000).unwrap();
///     Arc::new(Socket::over(Arc::new(link), Wire::Encapsulated, Config::default()).unwrap())
/// };
/// let (client, server) = (open(0), open(1));
/// server
///     .serve(Arc::new(|request| {
///         let answer = request.message.into();
///         request.responder.respond(answer).unwrap();
///     }))
///     .unwrap();
/// let response = transport::call(client, server.local_addr(), vec![7; 100_000].into()).await;
/// assert_eq!(response.unwrap(), vec![7; 100_000]);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct SimNetwork {
    shared: Arc<Shared>,
}

/// A port of a host of a [`SimNetwork`]. Dropping it closes the port.
#[derive(Debug)]
pub struct SimLink {
    shared: Arc<Shared>,
    at: Port,
}

/// Number of a host, and port.
type Port = (usize, u16);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    hosts: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    network: Network,
    reports: EventQueue<Word>,
    /// One per open port.
    inboxes: BTreeMap<Port, Inbox>,
    /// Who waits for room in the uplink.
    writers: BTreeMap<Port, Waker>,
    driver: Option<Waker>,
    /// When the driver wakes by itself.
    armed_until: Option<Instant>,
    /// The runtime is gone.
    stopped: bool,
    /// The packet being sent.
    scratch: Vec<u8>,
}

/// Word to a port that another cannot be reached.
#[derive(Debug)]
struct Word {
    to: Port,
    report: Report,
}

#[derive(Debug, Default)]
struct Inbox {
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    bytes: usize,
    drops: u64,
    reports: Vec<Report>,
    receiver: Option<Waker>,
}

impl SimNetwork {
    /// A network without open ports, whose chance follows from `seed`. A task on the present
    /// runtime drives it.
    ///
    /// # Errors
    /// [`BindError::NoRuntime`] outside a tokio runtime.
    ///
    /// # Panics
    /// If the runtime was built without timers.
    pub fn new(topology: Topology, faults: PacketFaults, seed: u64) -> Result<Self, BindError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        // The ports are part of the headers that the topology counts.
        let topology = Topology {
            overhead_bytes: topology.overhead_bytes.saturating_sub(PORTS_BYTES),
            ..topology
        };
        let shared = Arc::new(Shared {
            clock: Clock::new(),
            hosts: topology.hosts(),
            state: Mutex::new(State {
                network: Network::new(topology, faults, seed),
                reports: EventQueue::new(),
                inboxes: BTreeMap::new(),
                writers: BTreeMap::new(),
                driver: None,
                armed_until: None,
                stopped: false,
                scratch: Vec::new(),
            }),
        });
        let _inside = runtime.enter();
        drop(runtime.spawn(Driver {
            shared: Arc::downgrade(&shared),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }));
        Ok(Self { shared })
    }

    /// Opens a port of a host; 0 leaves the choice of the port to the network. To let a host begin
    /// anew, drop its link and open the port again.
    ///
    /// # Errors
    /// [`BindError::AddressInUse`] if the port is open; [`BindError::Io`] if there is no such host
    /// or no port left.
    pub fn host(&self, host: usize, port: u16) -> Result<SimLink, BindError> {
        let addr = |port| SocketAddr::new(ip_of(host), port);
        let refused = |source| BindError::Io {
            addr: addr(port),
            source,
        };
        if host >= self.shared.hosts {
            let hosts = self.shared.hosts;
            let message = format!("the network has hosts 0 to {hosts}, {hosts} excluded");
            let error = io::Error::new(io::ErrorKind::AddrNotAvailable, message);
            return Err(refused(error));
        }
        let mut state = self.shared.lock();
        let at = if port == 0 {
            EPHEMERAL
                .map(|port| (host, port))
                .find(|at| !state.inboxes.contains_key(at))
                .ok_or_else(|| refused(io::ErrorKind::AddrInUse.into()))?
        } else {
            (host, port)
        };
        if state.inboxes.contains_key(&at) {
            return Err(BindError::AddressInUse { addr: addr(port) });
        }
        state.inboxes.insert(at, Inbox::default());
        drop(state);
        Ok(SimLink {
            shared: Arc::clone(&self.shared),
            at,
        })
    }

    /// Cuts the hosts of `side` off from the others until [`SimNetwork::heal`] is called with the
    /// same `name`. Packets that are on their way still arrive.
    pub fn cut(&self, name: usize, side: &[usize]) {
        self.shared.lock().network.cut(name, side);
    }

    /// Ends a cut.
    pub fn heal(&self, name: usize) {
        self.shared.lock().network.heal(name);
    }

    /// Changes what happens to packets from now on.
    pub fn set_faults(&self, faults: PacketFaults) {
        self.shared.lock().network.set_faults(faults);
    }

    /// What happened to packets so far. Those that arrived at a closed port count as delivered.
    #[must_use]
    pub fn counts(&self) -> NetworkCounts {
        self.shared.lock().network.counts()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    /// Lets the driver see that it is over.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = state.driver.take() {
            driver.wake();
        }
    }
}

impl State {
    /// Does what is due by `now`. The wakers are to be woken without the lock.
    fn run(&mut self, now: Instant) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.network.next_at().is_some_and(|at| at <= now) {
            if let Some(arrival) = self.network.advance() {
                wakers.extend(self.arrive(arrival));
            }
        }
        while self.reports.next_at().is_some_and(|at| at <= now) {
            if let Some((_, word)) = self.reports.pop()
                && let Some(inbox) = self.inboxes.get_mut(&word.to)
            {
                wakers.extend(inbox.report(word.report));
            }
        }
        let network = &self.network;
        self.writers.retain(|(host, _), waker| {
            let waits = room_at(network, *host) > now;
            if !waits {
                wakers.push(waker.clone());
            }
            waits
        });
        wakers
    }

    fn arrive(&mut self, arrival: Arrival) -> Option<Waker> {
        let bytes = self.network.bytes(arrival.packet);
        let (from, to, packet) = split_ports(bytes)?;
        let peer = SocketAddr::new(ip_of(arrival.from), from);
        let woken = match self.inboxes.get_mut(&(arrival.to, to)) {
            Some(inbox) => inbox.push(peer, packet),
            None => {
                let word = Word {
                    to: (arrival.from, from),
                    report: Report {
                        peer: SocketAddr::new(ip_of(arrival.to), to),
                        reason: Unreachable::Port,
                        about: wire::quoted_id(packet),
                    },
                };
                self.reports.push(arrival.at + REPORT_DELAY, word);
                None
            }
        };
        self.network.release(arrival.packet);
        woken
    }

    /// When the next thing is due.
    fn next_at(&self) -> Option<Instant> {
        let writers = self.writers.keys();
        let room = writers.map(|(host, _)| room_at(&self.network, *host)).min();
        [self.network.next_at(), self.reports.next_at(), room]
            .into_iter()
            .flatten()
            .min()
    }

    /// The driver, if it has to wake earlier than it would.
    fn driver_if_late(&mut self) -> Option<Waker> {
        let next = self.next_at()?;
        if self.armed_until.is_some_and(|armed| armed <= next) {
            return None;
        }
        self.armed_until = Some(next);
        self.driver.clone()
    }

    /// Hands a packet to the uplink of its host.
    fn send(&mut self, now: Instant, from: Port, to: Port, packet: &Transmit) {
        self.scratch.clear();
        self.scratch.extend(from.1.to_be_bytes());
        self.scratch.extend(to.1.to_be_bytes());
        self.scratch.extend_from_slice(packet.header.as_slice());
        for part in packet.payload.parts() {
            self.scratch.extend_from_slice(part);
        }
        self.network
            .send(now, from.0, to.0, packet.priority, &mut self.scratch);
    }

    fn check_running(&self) -> io::Result<()> {
        if self.stopped {
            let message = "the runtime of the simulated network is gone";
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, message));
        }
        Ok(())
    }
}

/// Since when the uplink of `host` takes packets.
fn room_at(network: &Network, host: usize) -> Instant {
    network.free_at(host).before(UPLINK_BACKLOG)
}

/// Source port, destination port, the rest.
fn split_ports(bytes: &[u8]) -> Option<(u16, u16, &[u8])> {
    let (from, rest) = bytes.split_first_chunk()?;
    let (to, packet) = rest.split_first_chunk()?;
    Some((u16::from_be_bytes(*from), u16::from_be_bytes(*to), packet))
}

impl Inbox {
    /// Keeps a packet until it is received; drops it if there is no room.
    fn push(&mut self, peer: SocketAddr, packet: &[u8]) -> Option<Waker> {
        if self.bytes + packet.len() > RECEIVE_BUFFER_BYTES {
            self.drops += 1;
            return None;
        }
        self.bytes += packet.len();
        self.packets.push_back((peer, packet.to_vec()));
        self.receiver.take()
    }

    fn report(&mut self, report: Report) -> Option<Waker> {
        if self.reports.len() >= REPORTS_MAX || self.reports.contains(&report) {
            return None;
        }
        self.reports.push(report);
        self.receiver.take()
    }

    /// Moves to `batch` what fits into it.
    fn pop_into(&mut self, local: IpAddr, batch: &mut RecvBatch) {
        batch.unreachable.append(&mut self.reports);
        let mut start = batch.packets.last().map_or(0, |last| last.range.end);
        while batch.packets.len() < RecvBatch::PACKETS_MAX
            && let Some((peer, packet)) = self.packets.front()
            && let range = (start..start + packet.len())
            && let Some(room) = batch.buffer.get_mut(range.clone())
        {
            room.copy_from_slice(packet);
            start = range.end;
            batch.packets.push(PacketMeta {
                peer: *peer,
                local,
                range,
            });
            self.bytes -= packet.len();
            self.packets.pop_front();
        }
        batch.full = !self.packets.is_empty();
    }
}

impl Link for SimLink {
    fn local_addr(&self) -> SocketAddr {
        SocketAddr::new(ip_of(self.at.0), self.at.1)
    }

    fn packet_bytes_max(&self, _peer: SocketAddr) -> usize {
        PACKET_BYTES_MAX
    }

    fn send(&self, batch: &[Transmit]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        state.check_running()?;
        let now = self.shared.clock.now();
        let mut sent = 0;
        for packet in batch {
            if room_at(&state.network, self.at.0) > now {
                break;
            }
            match number_at(packet.to.ip()).filter(|host| *host < self.shared.hosts) {
                // Longer than any frame: it is lost.
                Some(_) if packet.len() > PACKET_BYTES_MAX => {}
                Some(host) => state.send(now, self.at, (host, packet.to.port()), packet),
                None => {
                    let word = Word {
                        to: self.at,
                        report: packet.report(Unreachable::Host),
                    };
                    state.reports.push(now + REPORT_DELAY, word);
                }
            }
            sent += 1;
        }
        let driver = state.driver_if_late();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(sent)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        state.check_running()?;
        if room_at(&state.network, self.at.0) <= self.shared.clock.now() {
            return Poll::Ready(Ok(()));
        }
        let old = state.writers.insert(self.at, cx.waker().clone());
        let driver = state.driver_if_late();
        drop(state);
        drop(old);
        if let Some(driver) = driver {
            driver.wake();
        }
        Poll::Pending
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        state.check_running()?;
        let Some(inbox) = state.inboxes.get_mut(&self.at) else {
            return Poll::Pending;
        };
        inbox.pop_into(ip_of(self.at.0), batch);
        if !batch.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let old = inbox.receiver.replace(cx.waker().clone());
        drop(state);
        drop(old);
        Poll::Pending
    }

    fn receive_drops(&self) -> u64 {
        let state = self.shared.lock();
        state.inboxes.get(&self.at).map_or(0, |inbox| inbox.drops)
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let gone = (
            state.inboxes.remove(&self.at),
            state.writers.remove(&self.at),
        );
        drop(state);
        // Wakers, which may run code of others, without the lock.
        drop(gone);
    }
}

/// Moves packets on at their times.
struct Driver {
    shared: Weak<Shared>,
    sleep: Pin<Box<Sleep>>,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(shared) = self.shared.upgrade() else {
                return Poll::Ready(());
            };
            let mut state = shared.lock();
            let wakers = state.run(shared.clock.now());
            let next = state.next_at();
            state.armed_until = next;
            let old = state.driver.replace(cx.waker().clone());
            drop(state);
            drop(old);
            wakers.into_iter().for_each(Waker::wake);
            let Some(next) = next else {
                return Poll::Pending;
            };
            let deadline = shared.clock.deadline(next);
            drop(shared);
            self.sleep.as_mut().reset(deadline);
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Driver {
    /// Runs last, or when the runtime is shut down.
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut state = shared.lock();
        state.stopped = true;
        let receivers = state.inboxes.values_mut();
        let mut wakers: Vec<Waker> = receivers
            .filter_map(|inbox| inbox.receiver.take())
            .collect();
        wakers.extend(std::mem::take(&mut state.writers).into_values());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}
