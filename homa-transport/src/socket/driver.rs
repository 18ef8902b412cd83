//! The task that drives a shard: receives, runs timers, sends what callers left to it.
//!
//! A cycle: send what is waiting, receive one batch, hand it to the core, run timers if the receive
//! queue is empty, send, wake those whose outcome has come and hand over requests. If anyone was
//! woken, the driver yields before it receives again, since a task woken on this worker runs only
//! then; the cycle ends after that, so that what those tasks send goes in one batch.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::busy_poll::BusyPoll;
use super::memory;
use super::overload::OverloadLog;
use super::shard::Shard;
use super::state::Work;
use crate::calls::{driver_dropped, request_of};
use crate::endpoint::Transmit;
use crate::error::CloseReason;
use crate::link::RecvBatch;
use crate::transport::{Incoming, Responder};
use crate::units::Instant;

/// Turns in one poll before other tasks get their chance.
const CYCLES_MAX: usize = 16;
/// Batches in a row that did not empty the receive queue, after which timers run all the same.
const BUSY_BATCHES_MAX: usize = 64;
/// How long timers wait at least while the link takes no packets.
const LINK_FULL_PAUSE: Duration = Duration::from_millis(1);
/// Packets sent between two looks at what has arrived.
const SEND_PACKETS_MAX: usize = 256;
/// Bytes sent between two looks at what has arrived: a datagram of long packets, and no more, since what
/// would be left over is a datagram of its own.
const SEND_BYTES_MAX: usize = 65_507;

/// How much of what may be sent has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flushed {
    All,
    More,
}

/// Drives a shard until it is closed.
pub(super) struct Driver {
    shard: Arc<Shard>,
    received: RecvBatch,
    batch: Vec<Transmit>,
    work: Work,
    sleep: Pin<Box<Sleep>>,
    armed_until: Option<Instant>,
    busy_batches: usize,
    polling: BusyPoll,
    overload: OverloadLog,
}

impl Driver {
    /// # Panics
    /// If the runtime was built without timers.
    pub(super) fn new(shard: Arc<Shard>, polling: BusyPoll) -> Self {
        Self {
            shard,
            received: RecvBatch::new(),
            batch: Vec::new(),
            work: Work::default(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed_until: None,
            busy_batches: 0,
            polling,
            overload: OverloadLog::new(),
        }
    }

    /// Notes who to wake. False: the shard is closed.
    fn begin(&self, cx: &Context<'_>) -> bool {
        let mut state = self.shard.lock();
        if let Some(reason) = state.ledger.closed.clone() {
            drop(state);
            self.shard.close(reason);
            return false;
        }
        state.driver_active = true;
        state.cycle_wanted = false;
        let old = state.ledger.register_driver(cx.waker());
        drop(state);
        drop(old);
        true
    }

    /// Asks the link without waiting, in a window of busy polling. False: a cycle is due.
    fn poll_link(&mut self) -> std::io::Result<bool> {
        let received = &mut self.received;
        let looked = self.shard.link().with(|link| link.try_recv(received));
        looked.transpose()?;
        if !self.received.is_empty() {
            self.polling.found();
            return Ok(false);
        }
        let state = self.shard.lock();
        if state.cycle_wanted || state.ledger.closed.is_some() {
            return Ok(false);
        }
        drop(state);
        Ok(self.polling.found_nothing(self.shard.clock().now()))
    }

    /// Sends one batch of what may be sent: short messages that come up meanwhile must not wait for
    /// more than that.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<Flushed>> {
        let now = self.shard.clock().now();
        let mut state = self.shard.lock();
        state.deferred = 0;
        let waiting = state.unsent.len().min(SEND_PACKETS_MAX);
        self.batch.extend(state.unsent.drain(..waiting));
        let (mut bytes, mut longest) = (0, 0);
        let mut flushed = Flushed::More;
        while self.batch.len() < SEND_PACKETS_MAX && bytes + longest <= SEND_BYTES_MAX {
            let Some(transmit) = state.endpoint.poll_transmit(now) else {
                flushed = Flushed::All;
                break;
            };
            bytes += transmit.len();
            longest = longest.max(transmit.len());
            self.batch.push(transmit);
        }
        drop(state);
        if self.batch.is_empty() {
            return Poll::Ready(Ok(flushed));
        }
        let sent = self.shard.link().with(|link| link.send(&self.batch));
        // Once the link is gone, what is left is lost.
        let sent = sent.transpose()?.unwrap_or(self.batch.len());
        let full = sent < self.batch.len();
        if full {
            let mut state = self.shard.lock();
            for transmit in self.batch.drain(sent..).rev() {
                state.unsent.push_front(transmit);
            }
        }
        self.batch.clear();
        if full {
            let writable = self.shard.link().with(|link| link.poll_writable(cx));
            ready!(writable.unwrap_or(Poll::Pending))?;
            flushed = Flushed::More;
        }
        Poll::Ready(Ok(flushed))
    }

    /// Receives one batch and gives it to the state. Ready if something came.
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let received = if self.received.is_empty() {
            self.received.clear();
            let received = &mut self.received;
            let polled = self.shard.link().with(|link| link.poll_recv(cx, received));
            // Whoever took the link away wakes the driver.
            polled.unwrap_or(Poll::Pending)
        } else {
            // Busy polling has found something.
            Poll::Ready(Ok(()))
        };
        if let Poll::Ready(Err(error)) = received {
            return Poll::Ready(Err(error));
        }
        let full = self.received.full;
        self.busy_batches = if full { self.busy_batches + 1 } else { 0 };
        let shard = &self.shard;
        let reports = &mut self.received.unreachable;
        reports.retain(|report| !shard.pass_on(report));
        let now = self.shard.clock().now();
        let mut state = self.shard.lock();
        for (meta, packet) in self.received.iter() {
            state
                .endpoint
                .handle_packet(now, meta.peer, meta.local, packet);
        }
        for report in &self.received.unreachable {
            state.handle_unreachable(report);
        }
        // Timers only when nothing waits to be received: our own delay is not the peer's silence.
        if (!full || self.busy_batches >= BUSY_BATCHES_MAX)
            && state.endpoint.poll_timeout().is_some_and(|due| due <= now)
        {
            state.endpoint.handle_timeout(now);
        }
        state.collect_events(&mut self.work);
        state.plan_batches(self.work.wakers.len());
        let burst_over = state.endpoint.take_burst_over();
        drop(state);
        if burst_over {
            memory::give_back();
        }
        if self.overload.is_due(now) {
            let stats = shard.stats();
            self.overload.look(now, shard.link().local_addr(), stats);
        }
        self.received.clear();
        received
    }

    /// Wakes those who wait and hands over the requests. True if there was anyone.
    fn deliver(&mut self) -> bool {
        self.work.released.clear();
        if self.work.len() == 0 {
            return false;
        }
        if self.work.len() == 1 {
            // Nothing would come together: who is woken sends by itself.
            self.shard.lock().driver_active = false;
        }
        self.work.wakers.drain(..).for_each(Waker::wake);
        if self.work.requests.is_empty() {
            return true;
        }
        let sink = self.shard.lock().ledger.sink.clone();
        for (rpc, peer, message) in self.work.requests.drain(..) {
            let responder = Responder::new(Arc::clone(&self.shard) as _, request_of(rpc));
            if let Some(sink) = &sink {
                sink(Incoming {
                    peer,
                    message,
                    responder,
                });
            }
        }
        true
    }

    /// Ends the cycle if nothing is left to do, and sets the timer. False: there is more to send.
    fn park(&mut self, cx: &mut Context<'_>, link_full: bool) -> bool {
        let mut state = self.shard.lock();
        let now = self.shard.clock().now();
        if !link_full {
            if let Some(transmit) = state.endpoint.poll_transmit(now) {
                state.unsent.push_back(transmit);
                return false;
            }
            state.driver_active = false;
            if self.polling.begin(now) {
                // Comes back before any timer matters.
                state.armed_until = Some(Instant::from_nanos(0));
                return true;
            }
        }
        let mut due = state.endpoint.poll_timeout();
        if link_full {
            // What the pacer would send by now has to wait for the link.
            due = due.map(|due| due.max(now + LINK_FULL_PAUSE));
        }
        state.armed_until = due;
        drop(state);
        self.arm(cx, due)
    }

    /// Sets the timer to `due`. False if that has passed.
    fn arm(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> bool {
        let Some(due) = due else {
            self.armed_until = None;
            return true;
        };
        let deadline = self.shard.clock().deadline(due);
        if self.armed_until != Some(due) {
            self.sleep.as_mut().reset(deadline);
            self.armed_until = Some(due);
        }
        self.sleep.as_mut().poll(cx).is_pending()
    }

    fn cycles(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.polling.is_open() && self.poll_link()? {
            yield_to_all(cx);
            return Poll::Pending;
        }
        for _ in 0..CYCLES_MAX {
            if !self.begin(cx) {
                return Poll::Ready(Ok(()));
            }
            let before = self.flush(cx)?;
            let received = self.receive(cx)?;
            let after = if before.is_pending() {
                Poll::Pending
            } else {
                self.flush(cx)?
            };
            if self.deliver() {
                break;
            }
            let idle = received.is_pending() && after != Poll::Ready(Flushed::More);
            if idle && self.park(cx, after.is_pending()) {
                if self.polling.is_open() {
                    yield_to_all(cx);
                }
                return Poll::Pending;
            }
        }
        // Yields by waking itself: the task goes to the back of the queue, from where another
        // worker can take it, even if what was woken here blocks this one.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Comes back when no other task is ready and the runtime has looked at its sockets and timers.
/// Unlike waking ourselves, it does not call other workers for help.
fn yield_to_all(cx: &mut Context<'_>) {
    let yielding = pin!(tokio::task::yield_now());
    let pending = yielding.poll(cx);
    debug_assert!(pending.is_pending(), "it is ready when polled again");
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.cycles(cx)) {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, "the link of a Homa socket failed");
                self.shard.close(CloseReason::LinkFailed(error.to_string()));
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Driver {
    /// Runs last, or when the runtime is shut down.
    fn drop(&mut self) {
        self.shard.close(driver_dropped());
    }
}
