//! A bad network for UDP, in userspace: a relay that loses, doubles and delays datagrams.
//!
//! It needs no privileges. A client calls the relay's address instead of the server's; each client has a
//! socket of its own towards the server, which tells clients apart by their addresses as seen.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::network::Disturbance;

/// Clients that a relay serves at most; datagrams of others are dropped.
const CLIENTS_MAX: usize = 64;
/// Datagrams held back at a time; others go at once.
const HELD_MAX: usize = 1_024;
/// Longest delay of a late datagram.
const LATE_MAX: Duration = Duration::from_millis(200);
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A relay, as long as it is not dropped.
#[derive(Debug)]
pub struct UdpRelay {
    addr: SocketAddr,
    counters: Arc<Counters>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Counters {
    lost: AtomicU64,
    doubled: AtomicU64,
    late: AtomicU64,
}

/// What a relay has done to datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbed {
    /// Datagrams lost.
    pub lost: u64,
    /// Datagrams sent twice.
    pub doubled: u64,
    /// Datagrams, or second copies of some, sent late.
    pub late: u64,
}

impl UdpRelay {
    /// Starts a relay to `server`, on a loopback address, that does one thing to datagrams to it and
    /// another to those back. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// If its socket cannot be opened.
    pub async fn start(
        server: SocketAddr,
        there: Disturbance,
        back: Disturbance,
        seed: u64,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = socket.local_addr()?;
        let counters: Arc<Counters> = Arc::default();
        let way = Way {
            disturbance: there,
            random: Arc::new(Mutex::new(seed)),
            held: Arc::new(Semaphore::new(HELD_MAX)),
            counters: Arc::clone(&counters),
        };
        let way_back = Way {
            disturbance: back,
            ..way.clone()
        };
        let task = tokio::spawn(relay(Arc::new(socket), server, way, way_back));
        Ok(Self {
            addr,
            counters,
            task: task.abort_handle(),
        })
    }

    /// The address to call.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has done so far.
    #[must_use]
    pub fn disturbed(&self) -> Disturbed {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Disturbed {
            lost: read(&self.counters.lost),
            doubled: read(&self.counters.doubled),
            late: read(&self.counters.late),
        }
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes what comes from clients, until it is aborted.
async fn relay(clients: Arc<UdpSocket>, server: SocketAddr, way: Way, way_back: Way) {
    let mut sockets: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    // Dropped with this task, so they end with it.
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error is that of an earlier datagram.
        let Ok((len, client)) = clients.recv_from(&mut buffer).await else {
            continue;
        };
        let socket = match sockets.get(&client) {
            Some(socket) => Arc::clone(socket),
            None if sockets.len() < CLIENTS_MAX => {
                let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else {
                    continue;
                };
                let socket = Arc::new(socket);
                sockets.insert(client, Arc::clone(&socket));
                let (from, to) = (Arc::clone(&socket), Arc::clone(&clients));
                answers.spawn(relay_answers(from, to, client, way_back.clone()));
                socket
            }
            None => continue,
        };
        let datagram = buffer.get(..len).unwrap_or_default();
        way.pass(&socket, server, datagram).await;
    }
}

async fn relay_answers(
    server: Arc<UdpSocket>,
    clients: Arc<UdpSocket>,
    client: SocketAddr,
    way: Way,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        if let Ok((len, _)) = server.recv_from(&mut buffer).await {
            let datagram = buffer.get(..len).unwrap_or_default();
            way.pass(&clients, client, datagram).await;
        }
    }
}

/// What happens to datagrams on their way.
#[derive(Clone, Debug)]
struct Way {
    disturbance: Disturbance,
    random: Arc<Mutex<u64>>,
    held: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl Way {
    async fn pass(&self, socket: &Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) {
        let Disturbance {
            lost_permille,
            doubled_permille,
            late_permille,
        } = self.disturbance;
        if self.happens(lost_permille) {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let copies = if self.happens(doubled_permille) {
            self.counters.doubled.fetch_add(1, Ordering::Relaxed);
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.happens(late_permille) && self.hold(socket, to, datagram) {
                continue;
            }
            // A closed port is for the client to find out.
            let _ = socket.send_to(datagram, to).await;
        }
    }

    /// Sends a datagram later; false if there is no room for it.
    fn hold(&self, socket: &Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) -> bool {
        let Ok(room) = Arc::clone(&self.held).try_acquire_owned() else {
            return false;
        };
        self.counters.late.fetch_add(1, Ordering::Relaxed);
        let share = self.draw() % 1_000 + 1;
        let delay = LATE_MAX.mul_f64(f64::from(share) / 1_000.0);
        let (socket, datagram) = (Arc::clone(socket), datagram.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = socket.send_to(&datagram, to).await;
            drop(room);
        });
        true
    }

    fn happens(&self, permille: u32) -> bool {
        self.draw() % 1_000 < permille
    }

    /// The next number. Source: splitmix64, Steele et al., "Fast splittable pseudorandom number
    /// generators", OOPSLA 2014.
    fn draw(&self) -> u32 {
        let mut state = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = *state;
        drop(state);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((word ^ (word >> 31)) >> 32).unwrap_or_default()
    }
}
