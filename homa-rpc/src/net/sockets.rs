//! The one place that opens sockets: client sockets shared per runtime, server sockets per URI.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use homa_transport::{BindError, Config, NativeBackend, Socket, Transport, native};
use tokio::runtime::{self, Handle};

use super::uri::NetWire;

/// What a client socket can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    Native {
        backend: Option<NativeBackend>,
        shards: u32,
    },
    Udp {
        shards: u32,
    },
    Mem,
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
        socket: Arc::downgrade(&socket),
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

/// Removes a socket from the registry when the runtime that drives it ends. It does not keep the socket: one
/// that has been forgotten closes with its last user.
struct Entry {
    key: Key,
    socket: Weak<dyn Transport>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut clients = clients();
        let ours = clients
            .get(&self.key)
            .is_some_and(|known| Weak::ptr_eq(&Arc::downgrade(known), &self.socket));
        let gone = ours.then(|| clients.remove(&self.key));
        drop(clients);
        drop(gone);
    }
}

fn open_client(wire: Wire) -> Result<Arc<dyn Transport>, BindError> {
    Ok(match wire {
        Wire::Native { backend, shards } => native::client(config(shards), backend)?,
        Wire::Udp { shards } => Arc::new(Socket::udp_client(config(shards))?),
        Wire::Mem => Arc::new(Socket::mem_client(Config::default())?),
    })
}

fn config(shards: u32) -> Config {
    Config {
        shards,
        ..Config::default()
    }
}

/// A socket bound to `addr`; port 0 is left to the transport.
pub(crate) fn listen(
    wire: NetWire,
    addr: SocketAddr,
    backend: Option<NativeBackend>,
    shards: u32,
) -> Result<Arc<dyn Transport>, BindError> {
    let config = config(shards);
    match wire {
        NetWire::Native => native::listen(addr, config, backend),
        NetWire::Udp => Ok(Arc::new(Socket::udp(addr, config)?)),
    }
}

/// A socket that in-process callers reach by `name`.
pub(crate) fn listen_mem(name: &str) -> Result<Arc<dyn Transport>, BindError> {
    Ok(Arc::new(Socket::mem_listen(name, Config::default())?))
}

/// The address of the in-process listener `name`, if there is one now.
pub(crate) fn resolve_mem(name: &str) -> Option<SocketAddr> {
    Socket::mem_resolve(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_forgotten_goes_with_its_last_user() {
        let wire = Wire::Udp { shards: 3 };
        let home = Handle::current();
        let first = client(&home, wire).unwrap();
        let gone = Arc::downgrade(&first);
        forget(&first);
        drop(first);
        assert!(gone.upgrade().is_none(), "something keeps the socket open");
        let second = client(&home, wire).unwrap();
        let again = client(&home, wire).unwrap();
        assert!(Arc::ptr_eq(&second, &again), "the next one is shared");
    }

    #[test]
    fn the_end_of_a_runtime_takes_its_socket_out_of_the_registry() {
        let runtime = || {
            let mut builder = runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let (own, wire) = (runtime(), Wire::Udp { shards: 4 });
        let socket = client(own.handle(), wire).unwrap();
        let key = (own.handle().id(), wire);
        assert!(clients().contains_key(&key));
        drop(own);
        assert!(!clients().contains_key(&key));
        assert_eq!(Arc::strong_count(&socket), 1);
    }
}
