//! What the lock of a shard guards: the protocol core and who waits for what of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Waker;

use bytes::Bytes;
use slotmap::Key;

use crate::calls::{HasLedger, Ledger, Outcome};
use crate::endpoint::{Endpoint, Event, RpcKey, Transmit};
use crate::error::{Limit, Report, RpcError};
use crate::message::Message;
use crate::transport::CallKey;
use crate::units::Instant;

/// Commands that callers leave to the driver before one of them sends what has come together, at
/// least: a system call for fewer packets costs more than waiting for the driver.
const BATCH_COMMANDS_MIN: usize = 4;
/// The same at most: as many short packets as one datagram holds.
const BATCH_COMMANDS_MAX: usize = 64;

/// The state of a shard. Nothing in here is woken, called or dropped under the lock that belongs
/// to a user; it is handed out in [`Work`].
pub(super) struct State {
    pub(super) endpoint: Endpoint,
    /// Calls that there are keys for.
    calls_max: usize,
    /// Of a call it has the RPC.
    pub(super) ledger: Ledger<RpcKey>,
    /// Packets that the link had no room for.
    pub(super) unsent: VecDeque<Transmit>,
    /// The driver is in a cycle, and sends what callers leave to it.
    pub(super) driver_active: bool,
    /// Commands of callers that left their packets to the driver since it last sent.
    pub(super) deferred: usize,
    /// Number of deferred commands at which a caller sends the batch itself.
    pub(super) batch_commands: usize,
    /// A caller has woken the driver for a cycle.
    pub(super) cycle_wanted: bool,
    /// When the driver wakes by itself.
    pub(super) armed_until: Option<Instant>,
}

impl HasLedger for State {
    type Call = RpcKey;

    fn ledger(&mut self) -> &mut Ledger<RpcKey> {
        &mut self.ledger
    }
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

impl State {
    pub(super) fn new(endpoint: Endpoint, calls_max: usize) -> Self {
        Self {
            endpoint,
            calls_max,
            ledger: Ledger::default(),
            unsent: VecDeque::new(),
            driver_active: false,
            deferred: 0,
            batch_commands: BATCH_COMMANDS_MAX,
            cycle_wanted: false,
            armed_until: None,
        }
    }

    /// Decides anew how many commands make a batch: half of the RPCs in progress, so that one half
    /// is at the peer while the other is being made here, and both ends work at once. Callers about to
    /// be woken (`ended`) have no RPC at this moment and will soon have one again.
    pub(super) fn plan_batches(&mut self, ended: usize) {
        let live = usize::try_from(self.endpoint.stats().rpcs_live).unwrap_or(usize::MAX);
        let batch = live.saturating_add(ended) / 2;
        self.batch_commands = batch.clamp(BATCH_COMMANDS_MIN, BATCH_COMMANDS_MAX);
    }

    /// Asks the driver for a cycle: whoever gets the waker has to use it.
    pub(super) fn want_cycle(&mut self) -> Option<Waker> {
        self.cycle_wanted = true;
        self.ledger.driver()
    }

    /// Makes a call with what `send` does to the endpoint, which gets the cookie to use.
    pub(super) fn start_call(
        &mut self,
        send: impl FnOnce(&mut Endpoint, u64) -> Result<RpcKey, RpcError>,
    ) -> Result<CallKey, RpcError> {
        let ledger = &mut self.ledger;
        let call = ledger.add_call(RpcKey::null(), self.calls_max, Limit::Shards)?;
        let sent = send(&mut self.endpoint, call.get());
        match (sent, ledger.call_mut(call)) {
            (Ok(rpc), Some(known)) => {
                *known = rpc;
                Ok(call)
            }
            (sent, _) => {
                ledger.remove_call(call);
                sent.map(|_| call)
            }
        }
    }

    /// Whether the peer has been heard since the call began.
    pub(super) fn peer_heard(&self, call: CallKey) -> bool {
        let Some(call) = self.ledger.call(call) else {
            return false;
        };
        match &call.outcome {
            Some(outcome) => outcome.is_ok(),
            None => self.endpoint.peer_heard(call.state),
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

    /// Turns the endpoint's events into outcomes, wake-ups and requests.
    pub(super) fn collect_events(&mut self, work: &mut Work) {
        self.endpoint.take_released(&mut work.released);
        while let Some(event) = self.endpoint.poll_event() {
            match event {
                Event::Request { rpc, peer, message } => {
                    self.ledger.add_request(rpc);
                    work.requests.push((rpc, peer, message));
                }
                Event::Response { cookie, message } => self.end_call(cookie, Ok(message), work),
                Event::Failed { cookie, error } => self.end_call(cookie, Err(error), work),
                Event::Frozen => {
                    tracing::info!(trace = %self.endpoint.trace(), "FREEZE: recent packets");
                }
                Event::Cancelled { rpc } => work.wakers.extend(self.ledger.forget_request(rpc)),
            }
        }
    }

    fn end_call(&mut self, cookie: u64, outcome: Outcome, work: &mut Work) {
        if let Ok(waker) = self.ledger.end_call(CallKey::new(cookie), outcome) {
            work.wakers.extend(waker);
        }
    }
}
