//! One port: one protocol core behind one lock, over one link.
//!
//! Callers lock the core, run it, take the packets out, unlock, and send them: no other task has
//! to run for a request to leave. While the driver is in its turn they leave the packets to it,
//! so that they go in batches.

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::callable;
use super::core::{Core, Work};
use super::key::KeyMark;
use super::link_slot::LinkSlot;
use crate::endpoint::{Endpoint, RpcKey, Transmit};
use crate::error::{CloseReason, Delivery, Report, RpcError};
use crate::link::Link;
use crate::link::clock::Clock;
use crate::link::spread::{Spread, shard_of_host, shard_of_id};
use crate::message::Message;
use crate::stats::Stats;
use crate::transport::{CallKey, RequestSink, Transport};
use crate::units::Instant;
use crate::wire::MESSAGE_BYTES_MAX;

/// Packets a caller sends itself before it leaves the rest to the driver.
const CALLER_PACKETS_MAX: usize = 64;

/// Storage for what a command takes out of the core.
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
    core: Mutex<Core>,
    link: LinkSlot,
    clock: Clock,
    /// Keys have it outside of the shard, here and in the core they don't.
    mark: KeyMark,
    siblings: OnceLock<Siblings>,
}

/// The shards of a socket that has several.
pub(super) struct Siblings {
    /// All of them, by number.
    pub(super) all: Vec<Weak<Shard>>,
    /// How packets are spread over them, if they share a port.
    pub(super) spread: Option<Spread>,
}

impl Shard {
    pub(super) fn new(
        mut endpoint: Endpoint,
        link: Arc<dyn Link>,
        clock: Clock,
        mark: KeyMark,
    ) -> Self {
        // From now on it remembers what comes.
        endpoint.handle_timeout(clock.now());
        Self {
            core: Mutex::new(Core::new(endpoint, mark.slots_max())),
            link: LinkSlot::new(link),
            clock,
            mark,
            siblings: OnceLock::new(),
        }
    }

    /// Introduces the other shards of the socket. Once.
    pub(super) fn join(&self, siblings: Siblings) {
        let known = self.siblings.set(siblings);
        debug_assert!(known.is_ok(), "a shard has the same siblings for good");
    }

    /// A key of the core as it is known outside.
    pub(super) fn marked(&self, rpc: RpcKey) -> RpcKey {
        self.mark.mark(rpc)
    }

    pub(super) const fn link(&self) -> &LinkSlot {
        &self.link
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The core. After a panic inside it the shard is closed; the driver, or whoever closes it, tells
    /// those who wait.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(|poisoned| {
            self.core.clear_poison();
            let mut core = poisoned.into_inner();
            core.closed.get_or_insert(CloseReason::Poisoned);
            core
        })
    }

    pub(super) fn closed(&self) -> Option<CloseReason> {
        self.lock().closed.clone()
    }

    /// Runs a command of the application on the core, then sends what it gave rise to.
    fn command<T>(
        &self,
        run: impl FnOnce(&mut Core, Instant) -> Result<T, RpcError>,
    ) -> Result<T, RpcError> {
        let now = self.clock.now();
        // The storage is gone while a thread ends.
        let mut taken = TAKEN.try_with(Cell::take).unwrap_or_default();
        let mut core = self.lock();
        let (result, refused) = match core.check_open(Delivery::NotSent) {
            Ok(()) => (run(&mut core, now), None),
            Err(error) => (Err(error), Some(run)),
        };
        let driver = self.take_packets(&mut core, now, &mut taken.packets);
        core.endpoint.take_released(&mut taken.released);
        drop(core);
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
        core: &mut Core,
        now: Instant,
        batch: &mut Vec<Transmit>,
    ) -> Option<Waker> {
        if core.in_turn {
            core.left_to_driver += 1;
            if core.left_to_driver < core.train_commands {
                return None;
            }
            core.left_to_driver = 0;
        }
        let mut more = !core.unsent.is_empty();
        while !more && let Some(transmit) = core.endpoint.poll_transmit(now) {
            batch.push(transmit);
            more = batch.len() >= CALLER_PACKETS_MAX;
        }
        if core.in_turn {
            return None;
        }
        let due = core.endpoint.poll_timeout();
        let earlier = due.is_some_and(|due| core.armed_until.is_none_or(|armed| due < armed));
        if more || earlier {
            core.want_turn()
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
                let mut core = self.lock();
                core.unsent.extend(batch.drain(sent..));
                let driver = core.want_turn();
                drop(core);
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
        let call = self.command(|core, now| {
            core.start_call(|endpoint, cookie| {
                endpoint.send_request(now, peer, packet_bytes, request, cookie)
            })
        })?;
        Ok(self.mark.mark(call))
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
        let owner = match (siblings.spread, report.about) {
            (None, _) => return false,
            (Some(Spread::ByAddress), _) => Some(shard_of_host(report.peer.ip(), count)),
            (Some(Spread::ById), about) => about.map(|id| shard_of_id(id, count)),
        };
        for (number, sibling) in (0..).zip(&siblings.all) {
            if owner.is_none_or(|owner| owner == number)
                && let Some(sibling) = sibling.upgrade()
                && sibling.mark != self.mark
            {
                sibling.take_report(report);
            }
        }
        owner.is_some_and(|owner| !self.mark.is(owner))
    }

    fn take_report(&self, report: &Report) {
        let mut core = self.lock();
        core.handle_unreachable(report);
        let driver = core.want_turn();
        drop(core);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    pub(super) fn serve(&self, sink: RequestSink) -> Result<(), RpcError> {
        let old = self.command(|core, _| {
            core.endpoint.set_serving(true);
            Ok(core.sink.replace(sink))
        })?;
        drop(old);
        Ok(())
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
        let mut core = self.lock();
        let sink = core.close(reason, &mut work);
        core.endpoint.close();
        while let Some(transmit) = core.endpoint.poll_transmit(now) {
            batch.push(transmit);
        }
        core.endpoint.take_released(&mut work.released);
        drop(core);
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

impl Transport for Shard {
    fn start_call(&self, peer: SocketAddr, request: Message) -> Result<CallKey, RpcError> {
        Self::start_call(self, peer, request)
    }

    fn poll_response(&self, call: CallKey, cx: &mut Context<'_>) -> Poll<Result<Bytes, RpcError>> {
        let call = self.mark.unmark(call);
        let (outcome, old) = self.lock().poll_call(call, cx.waker());
        drop(old);
        outcome
    }

    fn cancel(&self, call: CallKey) {
        let call = self.mark.unmark(call);
        let result = self.command(|core, now| {
            let forgotten = core.forget_call(call);
            if let Some((rpc, _)) = &forgotten {
                core.endpoint.abort(now, *rpc);
            }
            Ok(forgotten)
        });
        drop(result);
    }

    fn peer_heard(&self, call: CallKey) -> bool {
        let call = self.mark.unmark(call);
        self.lock().peer_heard(call)
    }

    fn cancel_reaches_server(&self) -> bool {
        true
    }

    fn serve(&self, sink: RequestSink) -> Result<(), RpcError> {
        Self::serve(self, sink)
    }

    fn respond(&self, rpc: RpcKey, response: Message) -> Result<(), RpcError> {
        let rpc = self.mark.unmark(rpc);
        let old = self.command(|core, now| {
            let peer = core.endpoint.peer_of(rpc).ok_or(RpcError::Stale)?;
            let packet_bytes = self.packet_bytes_max(peer);
            core.endpoint
                .send_response(now, rpc, packet_bytes, response)?;
            Ok(core.forget_request(rpc))
        })?;
        drop(old);
        Ok(())
    }

    fn abandon(&self, rpc: RpcKey) {
        let rpc = self.mark.unmark(rpc);
        let result = self.command(|core, now| {
            core.endpoint.abort(now, rpc);
            Ok(core.forget_request(rpc))
        });
        drop(result);
    }

    fn poll_cancelled(&self, rpc: RpcKey, cx: &mut Context<'_>) -> Poll<()> {
        let rpc = self.mark.unmark(rpc);
        let (cancelled, old) = self.lock().poll_request_cancelled(rpc, cx.waker());
        drop(old);
        cancelled
    }

    fn local_addr(&self) -> SocketAddr {
        self.link.local_addr()
    }

    fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    fn stats(&self) -> Stats {
        let counters = self.link.counters();
        let core = self.lock();
        let mut stats = core.endpoint.stats();
        stats.send_system_calls = counters.calls.send;
        stats.receive_system_calls = counters.calls.receive;
        stats.receive_drops = counters.receive_drops;
        stats.backend = self.link.backend();
        stats.waiters_woken = core.waiters_woken;
        stats.requests_handed_over = core.requests_handed_over;
        stats
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let (closed, old) = self.lock().poll_closed(cx.waker());
        drop(old);
        closed
    }

    fn close(&self) {
        Self::close(self, CloseReason::Closed);
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
