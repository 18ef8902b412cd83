//! From a URI to a socket and an address.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use homa_transport::{CloseReason, Delivery, NativeBackend, RpcError, Stats, Transport};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::channel::ChannelError;
use crate::error::not_sent;
use crate::sockets::{self, Wire};
use crate::status::{Code, Status};
use crate::uri::{Host, NetWire, Target};

/// A socket and whom to call on it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) socket: Arc<dyn Transport>,
    pub(super) peer: SocketAddr,
}

/// Finds and remembers the routes of one channel.
#[derive(Debug)]
pub(super) struct Routes {
    target: Target,
    /// Chosen by the user; else the runtime's shared one.
    socket: Option<Arc<dyn Transport>>,
    native_backend: Option<NativeBackend>,
    shards: u32,
    /// The runtime of the first call.
    home: OnceLock<Handle>,
    /// The route in use; for `homa+mem` only its socket counts.
    current: RwLock<Option<Current>>,
    /// One look-up at a time. Holds the addresses not tried yet and how the last look-up failed.
    lookup: tokio::sync::Mutex<Lookup>,
}

#[derive(Clone, Debug)]
struct Current {
    route: Route,
    /// A call has got an answer there. Until then calls to a host name go on to its next address.
    proven: bool,
}

#[derive(Debug, Default)]
struct Lookup {
    untried: VecDeque<SocketAddr>,
    failed: Option<(Instant, String)>,
}

impl Routes {
    pub(super) fn new(
        target: Target,
        socket: Option<Arc<dyn Transport>>,
        native_backend: Option<NativeBackend>,
        shards: u32,
    ) -> Self {
        Self {
            target,
            socket,
            native_backend,
            shards,
            home: OnceLock::new(),
            current: RwLock::new(None),
            lookup: tokio::sync::Mutex::default(),
        }
    }

    /// The route, if it can be had at once; `None` if a name has to be looked up first, or its
    /// address has not answered yet.
    pub(super) fn now(&self) -> Result<Option<Route>, Status> {
        match (&self.target, self.current()) {
            (Target::Net { wire, host, port }, current) => match (host, current) {
                (Host::Address(_), Some(current)) => Ok(Some(current.route)),
                (Host::Address(ip), None) => {
                    let peer = SocketAddr::new(*ip, *port);
                    self.open(peer, self.wire(*wire)).map(Some)
                }
                (Host::Name(_), current) => Ok(current
                    .filter(|current| current.proven)
                    .map(|current| current.route)),
            },
            (Target::Mem { name }, current) => {
                let Some(peer) = sockets::resolve_mem(name) else {
                    let text = format!("nobody in this process listens on {}", self.target);
                    return Err(Status::unavailable(text).with_delivery(Delivery::NotSent));
                };
                match current {
                    Some(Current { route, .. }) => Ok(Some(Route { peer, ..route })),
                    None => self.open(peer, Wire::Mem).map(Some),
                }
            }
        }
    }

    fn current(&self) -> Option<Current> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Counters of the socket in use.
    pub(super) fn stats(&self) -> Stats {
        match (&self.socket, self.current()) {
            (Some(socket), _) => socket.stats(),
            (None, Some(current)) => current.route.socket.stats(),
            (None, None) => Stats::default(),
        }
    }

    /// The route to the next address of the host name, which is looked up if none is left.
    pub(super) async fn look_up(&self) -> Result<Route, Status> {
        let Target::Net {
            wire,
            host: Host::Name(name),
            port,
        } = &self.target
        else {
            return Err(Status::internal("this target needs no look-up"));
        };
        let begun = Instant::now();
        let mut lookup = self.lookup.lock().await;
        if let Some(current) = self.current() {
            return Ok(current.route);
        }
        if lookup.untried.is_empty() {
            // Those who waited for a look-up that failed don't each repeat it.
            if let Some((at, text)) = &lookup.failed
                && *at >= begun
            {
                return Err(Status::unavailable(text.clone()).with_delivery(Delivery::NotSent));
            }
            let found = tokio::net::lookup_host((name.as_str(), *port)).await;
            let reason = match found {
                Ok(addresses) => {
                    lookup.untried.extend(addresses);
                    "it has no address".to_owned()
                }
                Err(error) => error.to_string(),
            };
            if lookup.untried.is_empty() {
                let text = format!("cannot resolve host {name:?} of {}: {reason}", self.target);
                lookup.failed = Some((Instant::now(), text.clone()));
                return Err(Status::unavailable(text).with_delivery(Delivery::NotSent));
            }
        }
        match lookup.untried.pop_front() {
            Some(peer) => self.open(peer, self.wire(*wire)),
            None => Err(Status::internal("an address list ran empty")),
        }
    }

    const fn wire(&self, wire: NetWire) -> Wire {
        let shards = self.shards;
        match wire {
            NetWire::Native => Wire::Native {
                backend: self.native_backend,
                shards,
            },
            NetWire::Udp => Wire::Udp { shards },
        }
    }

    /// Opens or finds the socket and remembers the route.
    fn open(&self, peer: SocketAddr, wire: Wire) -> Result<Route, Status> {
        let socket = match &self.socket {
            Some(socket) => Arc::clone(socket),
            None => sockets::client(self.home()?, wire)
                .map_err(|error| not_sent(Code::Unavailable, ChannelError::Socket(error)))?,
        };
        let route = Route { socket, peer };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Current {
            route: route.clone(),
            proven: false,
        });
        Ok(route)
    }

    /// The runtime this channel belongs to: the current one, the first time.
    pub(super) fn home(&self) -> Result<&Handle, Status> {
        if let Some(home) = self.home.get() {
            return Ok(home);
        }
        let current = Handle::try_current()
            .map_err(|_| not_sent(Code::Unavailable, ChannelError::NoRuntime))?;
        Ok(self.home.get_or_init(|| current))
    }

    /// Remembers that a call got an answer on this route.
    pub(super) fn worked(&self, route: &Route) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = current.as_mut()
            && current.route.peer == route.peer
        {
            current.proven = true;
        }
    }

    /// Draws the consequences of a failed call for later ones. True if there is another address
    /// to try at once.
    pub(super) fn failed(&self, route: &Route, error: &RpcError) -> bool {
        match error {
            RpcError::Closed { reason, .. } if self.socket.is_none() => {
                // The runtime's end is final for this channel, other failures of the socket not.
                if *reason != CloseReason::RuntimeGone {
                    sockets::forget(&route.socket);
                    self.leave(route);
                }
                false
            }
            RpcError::TimedOut { .. }
            | RpcError::Unreachable { .. }
            | RpcError::BadAddress { .. }
                if matches!(
                    &self.target,
                    Target::Net {
                        host: Host::Name(_),
                        ..
                    }
                ) =>
            {
                self.leave(route);
                // A look-up under way may bring something new as well.
                self.current().is_some()
                    || self
                        .lookup
                        .try_lock()
                        .map_or(true, |lookup| !lookup.untried.is_empty())
            }
            _ => false,
        }
    }

    /// No longer uses `route`, unless another one has taken its place already.
    fn leave(&self, route: &Route) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| {
            current.route.peer == route.peer && Arc::ptr_eq(&current.route.socket, &route.socket)
        }) {
            *current = None;
        }
    }
}
