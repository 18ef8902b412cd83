//! One port: one protocol core behind one lock, over one link.
//!
//! Callers lock the core, run it, take the packets out, unlock, and send them: no other task has
//! to run for a request to leave. While the driver is in its cycle they leave the packets to it,
//! so that they go in batches.

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use super::key::ShardKey;
use super::link_slot::LinkSlot;
use super::state::{State, Work};
use crate::calls::{Locked, Outcome, rpc_of};
use crate::endpoint::{Endpoint, Transmit};
use crate::error::{CloseReason, Delivery, Report, RpcError};
use crate::link::Link;
use crate::link::address::callable;
use crate::link::clock::Clock;
use crate::link::steering::{Steering, shard_of_host, shard_of_id};
use crate::message::Message;
use crate::stats::Stats;
use crate::transport::{CallKey, RequestKey, RequestSink, Respond};
use crate::units::Instant;
use crate::wire::MESSAGE_BYTES_MAX;

/// Packets a caller sends itself before it leaves the rest to the driver.
const CALLER_PACKETS_MAX: usize = 64;

/// Storage for what a command takes out of the state.
#[derive(Default)]
struct Taken {
    packets: Vec<Transmit>,
    released: Vec<Message>,
}

thread_local! {
    /// Kept from call to call, so that a command does not allocate.
    static TAKEN: Cell<Taken> = const {
        Cell::new(Taken {
            packets: Vec::new(),
            released: Vec::new(),
        })
    };
}

/// A port and its protocol state, or its part of a port that several share.
pub(super) struct Shard {
    state: Locked<State>,
    link: LinkSlot,
    clock: Clock,
    /// Outside of the shard it is part of a call's key.
    key: ShardKey,
    siblings: OnceLock<Siblings>,
}

/// The shards of a socket that has several.
pub(super) struct Siblings {
    /// All of them, by number.
    pub(super) all: Vec<Weak<Shard>>,
    /// How packets are spread over them, if they share a port.
    pub(super) steering: Option<Steering>,
}

impl Shard {
    pub(super) fn new(
        mut endpoint: Endpoint,
        link: Arc<dyn Link>,
        clock: Clock,
        key: ShardKey,
    ) -> Self {
        // From now on it remembers what comes.
        endpoint.handle_timeout(clock.now());
        Self {
            state: Locked::new(State::new(endpoint, key.calls_max())),
            link: LinkSlot::new(link),
            clock,
            key,
            siblings: OnceLock::new(),
        }
    }

    /// Introduces the other shards of the socket. Once.
    pub(super) fn join(&self, siblings: Siblings) {
        let known = self.siblings.set(siblings);
        debug_assert!(known.is_ok(), "a shard has the same siblings for good");
    }

    pub(super) const fn link(&self) -> &LinkSlot {
        &self.link
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn closed(&self) -> Option<CloseReason> {
        self.state.closed()
    }

    /// Runs a command of the application on the core, then sends what it gave rise to.
    fn command<T>(
        &self,
        run: impl FnOnce(&mut State, Instant) -> Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        let now = self.clock.now();
        // The storage is gone while a thread ends.
        let mut taken = TAKEN.try_with(Cell::take).unwrap_or_default();
        let mut state = self.lock();
        let (result, refused) = match state.ledger.check_open(Delivery::NotSent) {
            Ok(()) => (run(&mut state, now), None),
            Err(error) => (Err(error), Some(run)),
        };
        let driver = self.take_packets(&mut state, now, &mut taken.packets);
        state.endpoint.take_released(&mut taken.released);
        drop(state);
        // What belongs to the application is dropped here, without the lock.
        drop(refused);
        taken.released.clear();
        if let Some(driver) = driver {
            driver.wake();
        }
        self.send(&mut taken.packets);
        let _ended = TAKEN.try_with(|storage| storage.set(taken));
        result
    }

    /// Takes the packets that a caller sends itself. Returns the driver's waker if it has to do
    /// something: send the rest, or wake earlier than it would.
    fn take_packets(
        &self,
        state: &mut State,
        now: Instant,
        batch: &mut Vec<Transmit>,
    ) -> Option<Waker> {
        if state.driver_active {
            state.deferred += 1;
            if state.deferred < state.batch_commands {
                return None;
            }
            state.deferred = 0;
        }
        let mut more = !state.unsent.is_empty();
        while !more && let Some(transmit) = state.endpoint.poll_transmit(now) {
            batch.push(transmit);
            more = batch.len() >= CALLER_PACKETS_MAX;
        }
        if state.driver_active {
            return None;
        }
        let due = state.endpoint.poll_timeout();
        let earlier = due.is_some_and(|due| state.armed_until.is_none_or(|armed| due < armed));
        if more || earlier {
            state.want_cycle()
        } else {
            None
        }
    }

    /// Sends `batch` and leaves it empty. What the link has no room for is left to the driver.
    pub(super) fn send(&self, batch: &mut Vec<Transmit>) {
        if batch.is_empty() {
            return;
        }
        match self.link.with(|link| link.send(batch)) {
            None => {}
            Some(Ok(sent)) if sent >= batch.len() => {}
            Some(Ok(sent)) => {
                let mut state = self.lock();
                state.unsent.extend(batch.drain(sent..));
                let driver = state.want_cycle();
                drop(state);
                if let Some(driver) = driver {
                    driver.wake();
                }
            }
            Some(Err(error)) => self.close(CloseReason::LinkFailed(error.to_string())),
        }
        batch.clear();
    }

    pub(super) fn start_call(
        &self,
        peer: SocketAddr,
        request: Message,
    ) -> Result<CallKey, RpcError> {
        let peer = callable(peer)?;
        let packet_bytes = self.packet_bytes_max(peer);
        let call = self.command(|state, now| {
            state.start_call(|endpoint, cookie| {
                endpoint.send_request(now, peer, packet_bytes, request, cookie)
            })
        })?;
        Ok(self.key.encode(call))
    }

    /// Anything will do once the link is gone: the shard is closed.
    fn packet_bytes_max(&self, peer: SocketAddr) -> usize {
        let bytes = self.link.with(|link| link.packet_bytes_max(peer));
        bytes.unwrap_or(MESSAGE_BYTES_MAX)
    }

    /// Takes the report that a peer is unreachable to the shard that it is about, if that is another one:
    /// the system gives reports about a shared port to any of its sockets. One that does not say what it is
    /// about goes to all. True if it is not about this one.
    pub(super) fn pass_on(&self, report: &Report) -> bool {
        let Some(siblings) = self.siblings.get() else {
            return false;
        };
        let count = u32::try_from(siblings.all.len()).unwrap_or(u32::MAX);
        let owner = match (siblings.steering, report.about) {
            (None, _) => return false,
            (Some(Steering::ByAddress), _) => Some(shard_of_host(report.peer.ip(), count)),
            (Some(Steering::ById), about) => about.map(|id| shard_of_id(id, count)),
        };
        for (number, sibling) in (0..).zip(&siblings.all) {
            if owner.is_none_or(|owner| owner == number)
                && let Some(sibling) = sibling.upgrade()
                && sibling.key != self.key
            {
                sibling.take_report(report);
            }
        }
        owner.is_some_and(|owner| !self.key.is(owner))
    }

    fn take_report(&self, report: &Report) {
        let mut state = self.lock();
        state.handle_unreachable(report);
        let driver = state.want_cycle();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    pub(super) fn serve(&self, sink: RequestSink) -> Result<(), RpcError> {
        let old = self.command(|state, _| {
            state.endpoint.set_serving(true);
            Ok(state.ledger.sink.replace(sink))
        })?;
        drop(old);
        Ok(())
    }

    pub(super) fn poll_response(&self, call: CallKey, cx: &Context<'_>) -> Poll<Outcome> {
        self.state.poll_response(self.key.decode(call), cx)
    }

    pub(super) fn cancel(&self, call: CallKey) {
        let call = self.key.decode(call);
        let result = self.command(|state, now| {
            let forgotten = state.ledger.remove_call(call);
            if let Some(call) = &forgotten {
                state.endpoint.abort(now, call.state);
            }
            Ok(forgotten)
        });
        drop(result);
    }

    pub(super) fn peer_heard(&self, call: CallKey) -> bool {
        self.lock().peer_heard(self.key.decode(call))
    }

    pub(super) fn stats(&self) -> Stats {
        let counters = self.link.counters();
        let state = self.lock();
        let mut stats = state.endpoint.stats();
        stats.send_system_calls = counters.calls.send;
        stats.receive_system_calls = counters.calls.receive;
        stats.receive_drops = counters.receive_drops;
        stats.backend = self.link.backend();
        stats.waiters_woken = state.ledger.waiters_woken;
        stats.requests_handed_over = state.ledger.requests_handed_over;
        stats
    }

    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<CloseReason> {
        self.state.poll_closed(cx)
    }

    /// Closes the socket: calls in progress fail, peers are told, the driver ends, the port is free; and the
    /// same at the other shards, since without this one part of the peers would meet silence.
    pub(super) fn close(&self, reason: CloseReason) {
        self.close_alone(reason.clone());
        let siblings = self.siblings.get().into_iter();
        for sibling in siblings.flat_map(|siblings| &siblings.all) {
            if let Some(sibling) = sibling.upgrade() {
                if sibling.closed().is_none() {
                    sibling.close_alone(reason.clone());
                }
                sibling.link.release();
            }
        }
    }

    fn close_alone(&self, reason: CloseReason) {
        let mut work = Work::default();
        let mut batch = Vec::new();
        let now = self.clock.now();
        let mut state = self.lock();
        let sink = state.ledger.close(reason, &mut work.wakers);
        state.endpoint.close();
        while let Some(transmit) = state.endpoint.poll_transmit(now) {
            batch.push(transmit);
        }
        state.endpoint.take_released(&mut work.released);
        drop(state);
        work.released.clear();
        // Best effort: peers find out by themselves if this does not reach them.
        let _ = self.link.with(|link| link.send(&batch));
        self.link.release();
        drop(sink);
        for waker in work.wakers {
            waker.wake();
        }
    }
}

impl Respond for Shard {
    fn respond(&self, request: RequestKey, response: Message) -> Result<(), RpcError> {
        let rpc = rpc_of(request);
        let old = self.command(|state, now| {
            let peer = state.endpoint.peer_of(rpc).ok_or(RpcError::Stale)?;
            let packet_bytes = self.packet_bytes_max(peer);
            state
                .endpoint
                .send_response(now, rpc, packet_bytes, response)?;
            Ok(state.ledger.forget_request(rpc))
        })?;
        drop(old);
        Ok(())
    }

    fn abandon(&self, request: RequestKey) {
        let rpc = rpc_of(request);
        let result = self.command(|state, now| {
            state.endpoint.abort(now, rpc);
            Ok(state.ledger.forget_request(rpc))
        });
        drop(result);
    }

    fn poll_cancelled(&self, request: RequestKey, cx: &mut Context<'_>) -> Poll<()> {
        self.state.poll_cancelled(request, cx)
    }

    fn receiving_from(&self, peer: SocketAddr) -> bool {
        self.lock().endpoint.receiving_from(peer)
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
