//! The one place that opens sockets: client sockets shared per runtime, server sockets per URI.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use homa_transport::{BindError, Transport};
use tokio::runtime::{self, Handle};

/// What a client socket can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    UdpV4,
    UdpV6,
    Mem,
}

impl Wire {
    /// The wire that reaches a UDP address.
    pub(crate) const fn to(peer: SocketAddr) -> Self {
        match peer {
            SocketAddr::V4(_) => Self::UdpV4,
            SocketAddr::V6(_) => Self::UdpV6,
        }
    }
}

type Key = (runtime::Id, Wire);

static CLIENTS: LazyLock<Mutex<HashMap<Key, Arc<dyn Transport>>>> = LazyLock::new(Mutex::default);

fn clients() -> MutexGuard<'static, HashMap<Key, Arc<dyn Transport>>> {
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The client socket of the runtime of `home` for `wire`; opened if there is none yet.
pub(crate) fn client(home: &Handle, wire: Wire) -> Result<Arc<dyn Transport>, BindError> {
    let key = (home.id(), wire);
    let mut clients = clients();
    if let Some(socket) = clients.get(&key) {
        return Ok(Arc::clone(socket));
    }
    let _inside = home.enter();
    let socket = open_client(wire)?;
    clients.insert(key, Arc::clone(&socket));
    drop(clients);
    // Ids of runtimes are used again, so the entry has to go when its runtime does: tasks are
    // dropped then, this one with its guard.
    let entry = Entry {
        key,
        socket: Arc::clone(&socket),
    };
    home.spawn(async move {
        let _entry = entry;
        std::future::pending::<()>().await;
    });
    Ok(socket)
}

/// Makes later calls open another socket instead of `socket`, which has failed.
pub(crate) fn forget(socket: &Arc<dyn Transport>) {
    let gone: Vec<_> = {
        let mut clients = clients();
        clients
            .extract_if(|_, known| Arc::ptr_eq(known, socket))
            .collect()
    };
    // Dropped here, outside the lock: dropping a socket runs its code.
    drop(gone);
}

/// Removes a socket from the registry when the runtime that drives it ends.
struct Entry {
    key: Key,
    socket: Arc<dyn Transport>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut clients = clients();
        let ours = clients
            .get(&self.key)
            .is_some_and(|known| Arc::ptr_eq(known, &self.socket));
        let gone = ours.then(|| clients.remove(&self.key));
        drop(clients);
        drop(gone);
    }
}

fn open_client(wire: Wire) -> Result<Arc<dyn Transport>, BindError> {
    match wire {
        Wire::UdpV4 => listen_udp((Ipv4Addr::UNSPECIFIED, 0).into()),
        Wire::UdpV6 => listen_udp((Ipv6Addr::UNSPECIFIED, 0).into()),
        Wire::Mem => Err(BindError::NoRuntime),
    }
}

/// A socket bound to `addr`; port 0 is the system's choice.
pub(crate) fn listen_udp(_addr: SocketAddr) -> Result<Arc<dyn Transport>, BindError> {
    Err(BindError::NoRuntime)
}

/// A socket that in-process callers reach by `name`.
pub(crate) fn listen_mem(_name: &str) -> Result<Arc<dyn Transport>, BindError> {
    Err(BindError::NoRuntime)
}

/// The address of the in-process listener `name`, if there is one now.
pub(crate) fn resolve_mem(_name: &str) -> Option<SocketAddr> {
    None
}
