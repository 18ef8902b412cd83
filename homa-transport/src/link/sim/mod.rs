//! The simulated network as links: sockets, and all that is built on them, run on it in tokio's
//! time.

mod driver;
mod state;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use homa_sim::{
    EventQueue, Network, NetworkCounts, PacketFaults, REPORT_DELAY, Topology, ip_of, number_at,
};

use self::driver::Driver;
use self::state::{Inbox, State, Word, room_at};
use crate::endpoint::Transmit;
use crate::error::{BindError, Unreachable};
use crate::link::clock::Clock;
use crate::link::{Link, RecvBatch};

/// Largest packet, Homa header included, in bytes: an Ethernet frame less IPv4 and UDP headers.
const PACKET_BYTES_MAX: usize = 1_472;
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
