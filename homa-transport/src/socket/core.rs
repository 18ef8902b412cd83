//! What the lock of a shard guards: the protocol core and who waits for what of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use bytes::Bytes;
use slotmap::{Key, KeyData};

use crate::endpoint::{Endpoint, Event, RpcKey, Transmit};
use crate::error::{CloseReason, Delivery, Limit, Report, RpcError};
use crate::message::Message;
use crate::transport::{CallKey, RequestSink};
use crate::units::Instant;
use homa_protocol::slab::{SideTable, Slab};

/// Commands that callers leave to the driver before one of them sends what has come together, at
/// least: a system call for fewer packets costs more than waiting for the driver.
const TRAIN_COMMANDS_MIN: usize = 4;
/// The same at most: as many short packets as a train has.
const TRAIN_COMMANDS_MAX: usize = 64;

/// The state of a shard. Nothing in here is woken, called or dropped under the lock that belongs
/// to a user; it is handed out in [`Work`].
pub(super) struct Core {
    pub(super) endpoint: Endpoint,
    /// Calls that there are keys for.
    calls_max: usize,
    calls: Slab<CallKey, CallSlot>,
    requests: SideTable<RpcKey, Option<Waker>>,
    pub(super) sink: Option<RequestSink>,
    pub(super) closed: Option<CloseReason>,
    /// Wakes who waits for the end.
    closed_waker: Option<Waker>,
    /// Packets that the link had no room for.
    pub(super) unsent: VecDeque<Transmit>,
    /// The driver is in its turn: what callers have to send, it sends.
    pub(super) in_turn: bool,
    /// Commands of callers that left their packets to the driver since it last sent.
    pub(super) left_to_driver: usize,
    /// So many of them make a train: the next caller sends it.
    pub(super) train_commands: usize,
    /// The driver has been woken by a caller, who wants it to have a turn.
    pub(super) turn_wanted: bool,
    /// Wakes the driver.
    pub(super) driver: Option<Waker>,
    /// When the driver wakes by itself.
    pub(super) armed_until: Option<Instant>,
    pub(super) waiters_woken: u64,
    pub(super) requests_handed_over: u64,
}

/// A call of ours.
struct CallSlot {
    rpc: RpcKey,
    waker: Option<Waker>,
    outcome: Option<Result<Bytes, RpcError>>,
}

/// What is to be done after the lock is released.
#[derive(Default)]
pub(super) struct Work {
    pub(super) wakers: Vec<Waker>,
    pub(super) requests: Vec<(RpcKey, SocketAddr, Bytes)>,
    /// Outgoing messages to be dropped.
    pub(super) released: Vec<Message>,
}

impl Work {
    /// Number of those who get something to do.
    pub(super) const fn len(&self) -> usize {
        self.wakers.len() + self.requests.len()
    }
}

impl Core {
    pub(super) fn new(endpoint: Endpoint, calls_max: usize) -> Self {
        Self {
            endpoint,
            calls_max,
            calls: Slab::new(),
            requests: SideTable::new(),
            sink: None,
            closed: None,
            closed_waker: None,
            unsent: VecDeque::new(),
            in_turn: false,
            left_to_driver: 0,
            train_commands: TRAIN_COMMANDS_MAX,
            turn_wanted: false,
            driver: None,
            armed_until: None,
            waiters_woken: 0,
            requests_handed_over: 0,
        }
    }

    /// Decides anew how many commands make a train: half of the RPCs in progress, so that one half
    /// is at the peer while the other is being made here, and both ends work at once. Callers about to
    /// be woken (`ended`) have no RPC at this moment and will soon have one again.
    pub(super) fn plan_trains(&mut self, ended: usize) {
        let live = usize::try_from(self.endpoint.stats().rpcs_live).unwrap_or(usize::MAX);
        let train = live.saturating_add(ended) / 2;
        self.train_commands = train.clamp(TRAIN_COMMANDS_MIN, TRAIN_COMMANDS_MAX);
    }

    /// Asks the driver for a turn: whoever gets the waker has to use it.
    pub(super) fn want_turn(&mut self) -> Option<Waker> {
        self.turn_wanted = true;
        self.driver.clone()
    }

    /// The error of a closed socket.
    pub(super) fn check_open(&self, delivery: Delivery) -> Result<(), RpcError> {
        match &self.closed {
            None => Ok(()),
            Some(reason) => Err(RpcError::Closed {
                reason: reason.clone(),
                delivery,
            }),
        }
    }

    /// Makes a call with what `send` does to the endpoint, which gets the cookie to use.
    pub(super) fn start_call(
        &mut self,
        send: impl FnOnce(&mut Endpoint, u64) -> Result<RpcKey, RpcError>,
    ) -> Result<CallKey, RpcError> {
        if self.calls.len() >= self.calls_max {
            let (limit, option) = (self.calls_max, Limit::Shards);
            return Err(RpcError::TooManyRpcs { limit, option });
        }
        let slot = CallSlot {
            rpc: RpcKey::null(),
            waker: None,
            outcome: None,
        };
        let call = self.calls.insert(slot);
        match send(&mut self.endpoint, call.data().as_ffi()) {
            Ok(rpc) => {
                if let Some(slot) = self.calls.get_mut(call) {
                    slot.rpc = rpc;
                }
                Ok(call)
            }
            Err(error) => {
                self.calls.remove(call);
                Err(error)
            }
        }
    }

    /// The outcome of a call, or registers `waker`. Returns a waker to drop outside the lock.
    pub(super) fn poll_call(
        &mut self,
        call: CallKey,
        waker: &Waker,
    ) -> (Poll<Result<Bytes, RpcError>>, Option<Waker>) {
        let Some(slot) = self.calls.get_mut(call) else {
            return (Poll::Ready(Err(RpcError::Stale)), None);
        };
        if let Some(outcome) = slot.outcome.take() {
            let old = self.calls.remove(call).and_then(|slot| slot.waker);
            return (Poll::Ready(outcome), old);
        }
        (Poll::Pending, register(&mut slot.waker, waker))
    }

    /// Whether the peer has been heard since the call began.
    pub(super) fn peer_heard(&self, call: CallKey) -> bool {
        match self.calls.get(call) {
            Some(CallSlot {
                outcome: Some(outcome),
                ..
            }) => outcome.is_ok(),
            Some(slot) => self.endpoint.peer_heard(slot.rpc),
            None => false,
        }
    }

    /// Forgets a call. Returns its RPC, to be aborted, and what to drop outside the lock.
    pub(super) fn forget_call(&mut self, call: CallKey) -> Option<(RpcKey, Option<Waker>)> {
        self.calls.remove(call).map(|slot| (slot.rpc, slot.waker))
    }

    /// Ready if the request is no longer wanted, or registers `waker`.
    pub(super) fn poll_request_cancelled(
        &mut self,
        rpc: RpcKey,
        waker: &Waker,
    ) -> (Poll<()>, Option<Waker>) {
        match self.requests.get_mut(rpc) {
            Some(slot) if self.closed.is_none() => (Poll::Pending, register(slot, waker)),
            _ => (Poll::Ready(()), None),
        }
    }

    /// The reason why the socket is closed, or registers `waker`.
    pub(super) fn poll_closed(&mut self, waker: &Waker) -> (Poll<CloseReason>, Option<Waker>) {
        match &self.closed {
            Some(reason) => (Poll::Ready(reason.clone()), None),
            None => (Poll::Pending, register(&mut self.closed_waker, waker)),
        }
    }

    /// Takes a report to the core, unless it is about a call that is over: then it says nothing about those
    /// that have begun since, which get their own.
    pub(super) fn handle_unreachable(&mut self, report: &Report) {
        let about = report.about.filter(|id| id.is_client());
        let is_over = about.is_some_and(|id| {
            let any = report.peer.ip();
            self.endpoint.find_rpc(report.peer, any, id).is_none()
        });
        if !is_over {
            self.endpoint.handle_unreachable(report);
        }
    }

    /// Forgets a request that was answered or given up.
    pub(super) fn forget_request(&mut self, rpc: RpcKey) -> Option<Waker> {
        self.requests.remove(rpc).flatten()
    }

    /// Turns the endpoint's events into outcomes, wake-ups and requests.
    pub(super) fn collect_events(&mut self, work: &mut Work) {
        self.endpoint.take_released(&mut work.released);
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request { rpc, peer, message } => {
                    self.requests.insert(rpc, None);
                    self.requests_handed_over += 1;
                    work.requests.push((rpc, peer, message));
                }
                Event::Response { cookie, message } => self.end_call(cookie, Ok(message), work),
                Event::Failed { cookie, error } => self.end_call(cookie, Err(error), work),
                Event::Frozen => {
                    tracing::info!(trace = %self.endpoint.trace(), "FREEZE: recent packets");
                }
                Event::Cancelled { rpc } => work.wakers.extend(self.forget_request(rpc)),
            }
        }
    }

    fn end_call(&mut self, cookie: u64, outcome: Result<Bytes, RpcError>, work: &mut Work) {
        let call = CallKey::from(KeyData::from_ffi(cookie));
        let Some(slot) = self.calls.get_mut(call) else {
            return;
        };
        slot.outcome = Some(outcome);
        if let Some(waker) = slot.waker.take() {
            self.waiters_woken += 1;
            work.wakers.push(waker);
        }
    }

    /// Ends everything because of `reason`; the first reason stays. Again, it ends what is left.
    pub(super) fn close(&mut self, reason: CloseReason, work: &mut Work) -> Option<RequestSink> {
        let reason = self.closed.get_or_insert(reason).clone();
        for slot in self
            .calls
            .values_mut()
            .filter(|slot| slot.outcome.is_none())
        {
            let delivery = Delivery::Unknown;
            slot.outcome = Some(Err(RpcError::Closed {
                reason: reason.clone(),
                delivery,
            }));
            work.wakers.extend(slot.waker.take());
        }
        work.wakers.extend(self.requests.drain().flatten());
        work.wakers.extend(self.driver.take());
        work.wakers.extend(self.closed_waker.take());
        self.sink.take()
    }
}

/// Puts `waker` into its slot; returns the one that was there, to be dropped outside the lock.
fn register(slot: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    if slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
        return None;
    }
    slot.replace(waker.clone())
}
