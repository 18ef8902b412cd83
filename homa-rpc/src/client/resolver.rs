//! From a URI to a socket and an address.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use homa_transport::{CloseReason, Delivery, RpcError, Stats, Transport};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::message::not_sent;
use crate::message::status::{Code, Status};
use crate::net::ChannelError;
use crate::net::sockets::{self, Kind};
use crate::net::uri::{Place, Uri, Wire};

/// A call given up after this time without a sign of life counts against its route. It is twice the time after
/// which a transport asks a server whether it has the call.
const SILENCE: Duration = Duration::from_millis(10);
/// Number of shorter ones in a row that count as one of these.
const SHORT_SILENCES: u32 = 3;

/// Addresses of one host that a call tries at most.
pub(super) const ADDRESSES_MAX: usize = 8;

/// The number of no route.
const NO_ROUTE: u64 = u64::MAX;

/// A socket, and the peer to call on it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) socket: Arc<dyn Transport>,
    pub(super) peer: SocketAddr,
    /// Resolver of a channel are numbered, so that an old call speaks only about its own.
    pub(super) number: u64,
}

/// Finds and remembers the routes of one channel.
#[derive(Debug)]
pub(super) struct Resolver {
    target: Uri,
    /// Chosen by the user; else the runtime's shared one of this kind.
    socket: Option<Arc<dyn Transport>>,
    kind: Kind,
    /// The runtime of the first call.
    home: OnceLock<Handle>,
    /// The route in use; for `homa+mem` only its socket counts.
    current: RwLock<Option<Current>>,
    /// One look-up at a time. Holds the addresses not tried yet and how the last look-up failed.
    lookup: tokio::sync::Mutex<Lookup>,
    next_number: AtomicU64,
    /// Number of the route on which Homa tells the server of cancelled calls, or [`NO_ROUTE`].
    told_of_cancels: AtomicU64,
    /// Calls in a row that were given up after less than [`SILENCE`] without a sign of life.
    short_silences: AtomicU32,
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

impl Resolver {
    pub(super) fn new(target: Uri, socket: Option<Arc<dyn Transport>>, kind: Kind) -> Self {
        Self {
            target,
            socket,
            kind,
            home: OnceLock::new(),
            current: RwLock::new(None),
            lookup: tokio::sync::Mutex::default(),
            next_number: AtomicU64::new(0),
            told_of_cancels: AtomicU64::new(NO_ROUTE),
            short_silences: AtomicU32::new(0),
        }
    }

    /// Whether there may be other addresses than the one in use.
    pub(super) const fn has_name(&self) -> bool {
        matches!(self.target.place(), Place::Host { .. })
    }

    /// Whether servers differ in how they learn that a call was cancelled: those of the kernel module by a
    /// frame only.
    pub(super) const fn cancels_differ(&self) -> bool {
        matches!(self.target.wire(), Wire::Homa)
    }

    /// Whether calls on `route` have to be cancelled by a frame.
    pub(super) fn needs_cancel_frame(&self, route: &Route) -> bool {
        !route.socket.cancel_reaches_server()
            || (self.cancels_differ()
                && self.told_of_cancels.load(Ordering::Relaxed) != route.number)
    }

    /// A reply on the route of this number says whether its server is told by Homa of cancelled calls.
    pub(super) fn cancels_are_told(&self, number: u64, told: bool) {
        // Hardly ever there is something to write.
        if (self.told_of_cancels.load(Ordering::Relaxed) == number) != told {
            let number = if told { number } else { NO_ROUTE };
            self.told_of_cancels.store(number, Ordering::Relaxed);
        }
    }

    /// The route, if it can be had at once; `None` if a name has to be looked up first, or its
    /// address has not answered yet.
    pub(super) fn now(&self) -> Result<Option<Route>, Status> {
        match (self.target.place(), self.current()) {
            (Place::Address(_), Some(current)) => Ok(Some(current.route)),
            (Place::Address(addr), None) => self.open(*addr).map(Some),
            (Place::Host { .. }, current) => Ok(current
                .filter(|current| current.proven)
                .map(|current| current.route)),
            (Place::Process { name }, current) => {
                let Some(peer) = sockets::resolve_mem(name) else {
                    let text = format!("nobody in this process listens on {}", self.target);
                    return Err(Status::unavailable(text).with_delivery(Delivery::NotSent));
                };
                match current {
                    Some(Current { route, .. }) => Ok(Some(Route { peer, ..route })),
                    None => self.open(peer).map(Some),
                }
            }
        }
    }

    fn current(&self) -> Option<Current> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Puts addresses where a look-up leaves what it finds.
    #[cfg(test)]
    pub(super) async fn pretend_found(&self, addresses: &[SocketAddr]) {
        self.lookup.lock().await.untried.extend(addresses);
    }

    /// The route in use, whether or not it has proved itself.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> Option<Route> {
        self.current().map(|current| current.route)
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
        let Place::Host { name, port } = self.target.place() else {
            return Err(Status::internal("this target needs no look-up"));
        };
        let begun = Instant::now();
        let mut lookup = self.lookup.lock().await;
        if let Some(current) = self.current() {
            return Ok(current.route);
        }
        if lookup.untried.is_empty() {
            // Calls that waited for a failed look-up do not each repeat it.
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
            Some(peer) => self.open(peer),
            None => Err(Status::internal("an address list ran empty")),
        }
    }

    /// Opens or finds the socket and remembers the route.
    fn open(&self, peer: SocketAddr) -> Result<Route, Status> {
        let socket = match &self.socket {
            Some(socket) => Arc::clone(socket),
            None => sockets::client(self.home()?, &self.kind)
                .map_err(|error| not_sent(Code::Unavailable, ChannelError::Socket(error)))?,
        };
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let route = Route {
            socket,
            peer,
            number,
        };
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

    /// Notes that a call got an answer.
    pub(super) fn answered(&self) {
        // Hardly ever there is something to write.
        if self.short_silences.load(Ordering::Relaxed) > 0 {
            self.short_silences.store(0, Ordering::Relaxed);
        }
    }

    /// Remembers that a call got an answer on this route.
    pub(super) fn worked(&self, route: &Route) {
        self.answered();
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
            | RpcError::Stalled { .. }
            | RpcError::Unreachable { .. }
            | RpcError::BadAddress { .. }
            | RpcError::System { .. }
                if self.has_name() =>
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

    /// A call was given up, `lasted` after it began, and nothing had come from its peer since then: the
    /// next call goes to the next address of the name, or looks it up again.
    pub(super) fn given_up_in_silence(&self, route: &Route, lasted: Duration) {
        let short = lasted < SILENCE;
        if short && self.short_silences.fetch_add(1, Ordering::Relaxed) + 1 < SHORT_SILENCES {
            return;
        }
        self.short_silences.store(0, Ordering::Relaxed);
        if self.leave(route) {
            tracing::debug!(peer = %route.peer, "no sign of life: calls try another address");
        }
    }

    /// No longer uses `route`, unless another one has taken its place already.
    fn leave(&self, route: &Route) -> bool {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_current = |current: &mut Current| current.route.number == route.number;
        current.take_if(is_current).is_some()
    }
}
