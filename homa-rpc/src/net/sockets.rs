//! The one place that opens sockets: client sockets shared per runtime, server sockets per URI.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use homa_transport::{BindError, Config, NativeBackend, Socket, Transport, native};
use tokio::runtime::{self, Handle};

use super::uri::Wire;

/// What a client socket is: the same for all channels of a runtime that want the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) wire: Wire,
    /// What speaks `homa://`, if the user has chosen.
    pub(crate) backend: Option<NativeBackend>,
    pub(crate) config: Arc<Config>,
}

struct Client {
    runtime: runtime::Id,
    kind: Kind,
    socket: Arc<dyn Transport>,
}

/// Few: a process has few runtimes, and few kinds of sockets.
static CLIENTS: Mutex<Vec<Client>> = Mutex::new(Vec::new());

fn clients() -> MutexGuard<'static, Vec<Client>> {
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The client socket of the runtime of `home` of this kind; opened if there is none yet.
pub(crate) fn client(home: &Handle, kind: &Kind) -> Result<Arc<dyn Transport>, BindError> {
    let mut clients = clients();
    let known = clients
        .iter()
        .find(|known| known.runtime == home.id() && known.kind == *kind);
    if let Some(known) = known {
        return Ok(Arc::clone(&known.socket));
    }
    let _inside = home.enter();
    let socket = open_client(kind)?;
    clients.push(Client {
        runtime: home.id(),
        kind: kind.clone(),
        socket: Arc::clone(&socket),
    });
    drop(clients);
    // Ids of runtimes are used again, so the entry has to go when its runtime does: tasks are
    // dropped then, this one with its guard.
    let entry = Entry(Arc::downgrade(&socket));
    home.spawn(async move {
        let _entry = entry;
        std::future::pending::<()>().await;
    });
    Ok(socket)
}

/// Makes later calls open another socket instead of `socket`, which has failed.
pub(crate) fn forget(socket: &Arc<dyn Transport>) {
    remove(|known| Arc::ptr_eq(known, socket));
}

fn remove(is_it: impl Fn(&Arc<dyn Transport>) -> bool) {
    let gone: Vec<_> = clients()
        .extract_if(.., |known| is_it(&known.socket))
        .collect();
    // Dropped here, outside the lock: dropping a socket runs its code.
    drop(gone);
}

/// Removes a socket from the registry when the runtime that drives it ends. It does not keep the socket: one
/// that has been forgotten closes with its last user.
struct Entry(Weak<dyn Transport>);

impl Drop for Entry {
    fn drop(&mut self) {
        remove(|known| Weak::ptr_eq(&Arc::downgrade(known), &self.0));
    }
}

fn open_client(kind: &Kind) -> Result<Arc<dyn Transport>, BindError> {
    let config = Config::clone(&kind.config);
    Ok(match kind.wire {
        Wire::Homa => native::client(config, kind.backend)?,
        Wire::Udp => Arc::new(Socket::udp_client(config)?),
        Wire::Mem => Arc::new(Socket::mem_client(unsharded(config))?),
    })
}

/// Within the process there is one shard, whatever number other wires have.
fn unsharded(config: Config) -> Config {
    Config {
        shards: 1,
        ..config
    }
}

/// A socket bound to `addr`; port 0 is left to the transport.
pub(crate) fn listen(
    wire: Wire,
    addr: SocketAddr,
    backend: Option<NativeBackend>,
    config: &Config,
) -> Result<Arc<dyn Transport>, BindError> {
    let config = config.clone();
    match wire {
        Wire::Homa => native::listen(addr, config, backend),
        Wire::Udp | Wire::Mem => Ok(Arc::new(Socket::udp(addr, config)?)),
    }
}

/// A socket that in-process callers reach by `name`.
pub(crate) fn listen_mem(name: &str, config: &Config) -> Result<Arc<dyn Transport>, BindError> {
    let config = unsharded(config.clone());
    Ok(Arc::new(Socket::mem_listen(name, config)?))
}

/// The address of the in-process listener `name`, if there is one now.
pub(crate) fn resolve_mem(name: &str) -> Option<SocketAddr> {
    Socket::mem_resolve(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind that no other test uses.
    fn udp(shards: u32) -> Kind {
        Kind {
            wire: Wire::Udp,
            backend: None,
            config: Arc::new(Config {
                shards,
                ..Config::default()
            }),
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_forgotten_goes_with_its_last_user() {
        let home = Handle::current();
        let first = client(&home, &udp(3)).unwrap();
        let gone = Arc::downgrade(&first);
        forget(&first);
        drop(first);
        assert!(gone.upgrade().is_none(), "something keeps the socket open");
        let second = client(&home, &udp(3)).unwrap();
        let again = client(&home, &udp(3)).unwrap();
        assert!(Arc::ptr_eq(&second, &again), "the next one is shared");
        let other = client(&home, &udp(2)).unwrap();
        assert!(!Arc::ptr_eq(&second, &other), "with other settings");
    }

    #[test]
    fn the_end_of_a_runtime_takes_its_socket_out_of_the_registry() {
        let runtime = || {
            let mut builder = runtime::Builder::new_current_thread();
            builder.enable_all().build().unwrap()
        };
        let own = runtime();
        let socket = client(own.handle(), &udp(4)).unwrap();
        let is_known = || {
            let clients = clients();
            clients
                .iter()
                .any(|known| Arc::ptr_eq(&known.socket, &socket))
        };
        assert!(is_known());
        drop(own);
        assert!(!is_known());
        assert_eq!(Arc::strong_count(&socket), 1);
    }
}
