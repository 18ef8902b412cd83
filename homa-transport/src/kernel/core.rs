//! What the lock of a kernel socket guards: calls, requests, what waits to be sent, and who waits.
//!
//! Nothing in here calls the system, and nothing that belongs to a user is woken, called or dropped
//! under the lock: it is handed out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use bytes::Bytes;
use slotmap::{Key, KeyData};

use crate::config::Config;
use crate::endpoint::RpcKey;
use crate::error::{CloseReason, Delivery, Limit, RpcError};
use crate::message::Message;
use crate::stats::Stats;
use crate::transport::{CallKey, RequestSink};
use homa_protocol::slab::Slab;

/// Messages up to this size may wait for room however much waits already, so that there is room to
/// say what went wrong.
const SMALL_BYTES: usize = 4_096;

/// The state of a kernel socket.
#[derive(Default)]
pub(super) struct Core {
    pub(super) limits: Limits,
    calls: Slab<CallKey, CallSlot>,
    requests: Slab<RpcKey, RequestSlot>,
    /// Bytes of the requests that are not answered yet.
    request_bytes: usize,
    /// Messages that the module had no memory for.
    unsent: VecDeque<Unsent>,
    unsent_bytes: usize,
    /// Messages may be taken: somebody serves or has called.
    pub(super) receiving: bool,
    pub(super) sink: Option<RequestSink>,
    pub(super) closed: Option<CloseReason>,
    closed_waker: Option<Waker>,
    /// Wakes the driver.
    driver: Option<Waker>,
    pub(super) stats: Stats,
}

/// The settings that this backend obeys.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    rpcs: usize,
    inbound_bytes: usize,
    outbound_bytes: usize,
}

impl Limits {
    pub(super) const fn of(config: &Config) -> Self {
        Self {
            rpcs: config.rpcs_max,
            inbound_bytes: config.inbound_bytes_max,
            outbound_bytes: config.outbound_bytes_max,
        }
    }
}

/// A call of ours.
pub(super) struct CallSlot {
    peer: SocketAddr,
    /// The module's id, once it has the request.
    id: Option<u64>,
    waker: Option<Waker>,
    outcome: Option<Result<Bytes, RpcError>>,
}

impl CallSlot {
    /// Ends the call with `error` unless it has ended.
    fn end(&mut self, error: RpcError, work: &mut Work) {
        if self.outcome.is_none() {
            self.outcome = Some(Err(error));
            work.wakers.extend(self.waker.take());
        }
    }
}

/// A request that the application has not answered yet.
struct RequestSlot {
    to: Answer,
    len: usize,
    waker: Option<Waker>,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
}

/// A message that waits for memory of the module's.
#[derive(Clone, Debug)]
pub(super) struct Unsent {
    pub(super) to: To,
    pub(super) message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Server(CallKey, SocketAddr),
    Client(Answer),
}

/// What is to be done after the lock is released: wakers to wake, and things to drop.
#[derive(Default)]
pub(super) struct Work {
    pub(super) wakers: Vec<Waker>,
    pub(super) messages: Vec<Unsent>,
    pub(super) sink: Option<RequestSink>,
}

impl Core {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// The error of a closed socket.
    pub(super) fn check_open(&self, delivery: Delivery) -> Result<(), RpcError> {
        match &self.closed {
            None => Ok(()),
            Some(reason) => Err(closed(reason, delivery)),
        }
    }

    /// Makes a call to `peer` that the module doesn't know yet.
    pub(super) fn add_call(&mut self, peer: SocketAddr) -> Result<CallKey, RpcError> {
        self.check_open(Delivery::NotSent)?;
        if self.calls.len() >= self.limits.rpcs {
            return Err(RpcError::TooManyRpcs {
                limit: self.limits.rpcs,
                option: Limit::Rpcs,
            });
        }
        Ok(self.calls.insert(CallSlot {
            peer,
            id: None,
            waker: None,
            outcome: None,
        }))
    }

    /// The module has the request of `call`. False: nobody waits for its end any more.
    pub(super) fn call_sent(&mut self, call: CallKey, id: u64) -> bool {
        self.stats.requests_sent += 1;
        match self.calls.get_mut(call) {
            Some(slot) => {
                slot.id = Some(id);
                true
            }
            None => false,
        }
    }

    /// A call could not be sent. Returns what to drop outside the lock.
    pub(super) fn remove_call(&mut self, call: CallKey) -> Option<CallSlot> {
        self.calls.remove(call)
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

    /// Forgets a call: its id, if the module has to forget it too, and what to drop.
    pub(super) fn forget_call(&mut self, call: CallKey) -> (Option<u64>, Work) {
        let mut work = Work::default();
        let Some(slot) = self.calls.remove(call) else {
            return (None, work);
        };
        let unsent = |unsent: &Unsent| matches!(unsent.to, To::Server(other, _) if other == call);
        if slot.id.is_none()
            && let Some(place) = self.unsent.iter().position(unsent)
            && let Some(unsent) = self.unsent.remove(place)
        {
            self.unsent_bytes -= unsent.message.len();
            work.messages.push(unsent);
        }
        work.wakers.extend(slot.waker);
        if slot.outcome.is_some() {
            return (None, work);
        }
        self.stats.rpcs_cancelled += 1;
        (slot.id, work)
    }

    /// The peer of the call that the module names by `cookie`.
    pub(super) fn call_peer(&self, cookie: u64) -> Option<SocketAddr> {
        Some(self.calls.get(call_of(cookie))?.peer)
    }

    /// The end of the call that the module names by `cookie`, if anyone still waits for it. Returns
    /// who does, and what to drop.
    pub(super) fn end_call(
        &mut self,
        cookie: u64,
        outcome: Result<Bytes, RpcError>,
    ) -> (Option<Waker>, Option<Result<Bytes, RpcError>>) {
        let failed = outcome.is_err();
        let Some(slot) = self.calls.get_mut(call_of(cookie)) else {
            return (None, Some(outcome));
        };
        if slot.outcome.is_some() {
            return (None, Some(outcome));
        }
        slot.outcome = Some(outcome);
        let waker = slot.waker.take();
        self.stats.waiters_woken += u64::from(waker.is_some());
        if failed {
            self.stats.rpcs_failed += 1;
        } else {
            self.stats.responses_received += 1;
        }
        (waker, None)
    }

    /// Takes a request of `len` bytes, with the sink for it. `None`: there is no room, or nobody
    /// serves.
    pub(super) fn add_request(&mut self, to: Answer, len: usize) -> Option<(RpcKey, RequestSink)> {
        let Some(sink) = self.sink.clone() else {
            self.stats.requests_unserved += 1;
            return None;
        };
        let bytes = self.request_bytes.saturating_add(len);
        if self.requests.len() >= self.limits.rpcs || bytes > self.limits.inbound_bytes {
            self.stats.requests_refused += 1;
            return None;
        }
        self.request_bytes = bytes;
        self.stats.requests_received += 1;
        self.stats.requests_handed_over += 1;
        let slot = RequestSlot {
            to,
            len,
            waker: None,
        };
        Some((self.requests.insert(slot), sink))
    }

    /// Where the answer to a request goes.
    pub(super) fn answer(&self, rpc: RpcKey) -> Option<Answer> {
        Some(self.requests.get(rpc)?.to)
    }

    /// Forgets a request that was answered or given up.
    pub(super) fn forget_request(&mut self, rpc: RpcKey) -> Option<Waker> {
        let slot = self.requests.remove(rpc)?;
        self.request_bytes -= slot.len;
        slot.waker
    }

    /// Ready if the request is no longer there, or registers `waker`. The module doesn't say when a
    /// client gives up.
    pub(super) fn poll_request_gone(
        &mut self,
        rpc: RpcKey,
        waker: &Waker,
    ) -> (Poll<()>, Option<Waker>) {
        match self.requests.get_mut(rpc) {
            Some(slot) if self.closed.is_none() => {
                (Poll::Pending, register(&mut slot.waker, waker))
            }
            _ => (Poll::Ready(()), None),
        }
    }

    /// Whether messages wait: then later ones do too.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Messages that wait.
    pub(super) fn unsent_count(&self) -> usize {
        self.unsent.len()
    }

    /// Lets a message wait for memory. Returns the driver to wake.
    pub(super) fn add_unsent(
        &mut self,
        to: To,
        message: Message,
    ) -> Result<Option<Waker>, RpcError> {
        let (len, held) = (message.len(), self.unsent_bytes);
        if held.saturating_add(len) > self.limits.outbound_bytes && len > SMALL_BYTES {
            return Err(RpcError::TooManyBytes {
                len,
                held,
                option: Limit::OutboundBytes,
            });
        }
        self.unsent_bytes = held.saturating_add(len);
        self.unsent.push_back(Unsent { to, message });
        Ok(self.driver.clone())
    }

    /// Takes out the message that has waited longest. What is still there at a close was never
    /// sent.
    pub(super) fn take_unsent(&mut self) -> Option<Unsent> {
        let unsent = self.unsent.pop_front()?;
        self.unsent_bytes -= unsent.message.len();
        Some(unsent)
    }

    /// Puts back what [`Core::take_unsent`] yielded; hands it out if nobody wants it sent any more.
    pub(super) fn put_back(&mut self, unsent: Unsent) -> Option<Unsent> {
        let given_up = match unsent.to {
            To::Server(call, _) => !self.calls.contains_key(call),
            To::Client(_) => false,
        };
        if given_up || self.closed.is_some() {
            return Some(unsent);
        }
        self.unsent_bytes += unsent.message.len();
        self.unsent.push_front(unsent);
        None
    }

    /// Notes who drives. Returns a waker to drop outside the lock.
    pub(super) fn register_driver(&mut self, waker: &Waker) -> Option<Waker> {
        register(&mut self.driver, waker)
    }

    /// Messages are to be taken from now on. Returns the driver if it has to begin.
    pub(super) fn begin_receiving(&mut self) -> Option<Waker> {
        if self.receiving {
            return None;
        }
        self.receiving = true;
        self.driver.clone()
    }

    /// The reason why the socket is closed, or registers `waker`.
    pub(super) fn poll_closed(&mut self, waker: &Waker) -> (Poll<CloseReason>, Option<Waker>) {
        match &self.closed {
            Some(reason) => (Poll::Ready(reason.clone()), None),
            None => (Poll::Pending, register(&mut self.closed_waker, waker)),
        }
    }

    /// Ends everything because of `reason`; the first reason stays.
    pub(super) fn close(&mut self, reason: CloseReason) -> Work {
        let reason = self.closed.get_or_insert(reason).clone();
        let mut work = Work::default();
        // Others without an id may be on their way to the module at this moment.
        for unsent in &self.unsent {
            if let To::Server(call, _) = unsent.to
                && let Some(slot) = self.calls.get_mut(call)
            {
                slot.end(closed(&reason, Delivery::NotSent), &mut work);
            }
        }
        for slot in self.calls.values_mut() {
            slot.end(closed(&reason, Delivery::Unknown), &mut work);
        }
        let requests = self.requests.drain().filter_map(|(_, slot)| slot.waker);
        work.wakers.extend(requests);
        self.request_bytes = 0;
        work.wakers.extend(self.driver.take());
        work.wakers.extend(self.closed_waker.take());
        work.messages.extend(self.unsent.drain(..));
        self.unsent_bytes = 0;
        work.sink = self.sink.take();
        work
    }
}

fn closed(reason: &CloseReason, delivery: Delivery) -> RpcError {
    RpcError::Closed {
        reason: reason.clone(),
        delivery,
    }
}

/// The cookie by which the module names a call.
pub(super) fn cookie_of(call: CallKey) -> u64 {
    call.data().as_ffi()
}

fn call_of(cookie: u64) -> CallKey {
    CallKey::from(KeyData::from_ffi(cookie))
}

/// Puts `waker` into its slot; returns the one that was there, to be dropped outside the lock.
fn register(slot: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    if slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
        return None;
    }
    slot.replace(waker.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    fn core() -> Core {
        Core::new(Limits {
            rpcs: 3,
            inbound_bytes: 1_000,
            outbound_bytes: 10_000,
        })
    }

    fn peer() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 4000))
    }

    fn answer(id: u64) -> Answer {
        Answer { id, peer: peer() }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn outcome(core: &mut Core, call: CallKey) -> Poll<Result<Bytes, RpcError>> {
        core.poll_call(call, Waker::noop()).0
    }

    #[test]
    fn a_response_that_overtakes_the_id_of_its_call_is_kept_for_it() {
        let mut core = core();
        let call = core.add_call(peer()).unwrap();
        let response = Bytes::from_static(b"early");
        let _ = core.end_call(cookie_of(call), Ok(response.clone()));
        assert!(core.call_sent(call, 8));
        assert_eq!(outcome(&mut core, call), Poll::Ready(Ok(response)));
        assert_eq!(outcome(&mut core, call), Poll::Ready(Err(RpcError::Stale)));
    }

    #[test]
    fn the_end_of_a_call_wakes_who_waits_once() {
        let mut core = core();
        let count = Arc::new(Count::default());
        let call = core.add_call(peer()).unwrap();
        let waker = Waker::from(Arc::clone(&count));
        assert!(core.poll_call(call, &waker).0.is_pending());
        let (woken, _) = core.end_call(cookie_of(call), Ok(Bytes::new()));
        woken.unwrap().wake();
        let (again, unwanted) = core.end_call(cookie_of(call), Err(RpcError::Stale));
        assert!(again.is_none() && unwanted.is_some());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(core.stats.responses_received, 1);
    }

    #[test]
    fn a_response_for_a_call_that_was_given_up_goes_to_no_other() {
        let mut core = core();
        let call = core.add_call(peer()).unwrap();
        assert!(core.call_sent(call, 8));
        assert_eq!(core.forget_call(call).0, Some(8));
        let next = core.add_call(peer()).unwrap();
        assert_ne!(cookie_of(next), cookie_of(call));
        assert!(core.end_call(cookie_of(call), Ok(Bytes::new())).0.is_none());
        assert!(outcome(&mut core, next).is_pending());
        assert_eq!(core.stats.rpcs_cancelled, 1);
    }

    #[test]
    fn a_call_given_up_before_it_was_sent_is_not_sent() {
        let mut core = core();
        let call = core.add_call(peer()).unwrap();
        let to = To::Server(call, peer());
        core.add_unsent(to, vec![1; 5_000].into()).unwrap();
        let (id, work) = core.forget_call(call);
        assert_eq!((id, work.messages.len()), (None, 1));
        assert!(core.take_unsent().is_none());
        assert_eq!(core.unsent_bytes, 0);
    }

    #[test]
    fn a_call_given_up_while_its_request_is_with_the_module_is_told_of_by_its_id() {
        let mut core = core();
        let call = core.add_call(peer()).unwrap();
        core.add_unsent(To::Server(call, peer()), vec![1; 10].into())
            .unwrap();
        let unsent = core.take_unsent().unwrap();
        let _ = core.forget_call(call);
        assert!(core.put_back(unsent).is_some(), "nobody wants it sent");
        assert!(!core.call_sent(call, 8), "the module has to forget it");
    }

    #[test]
    fn messages_wait_in_order_up_to_the_limit_and_short_ones_beyond() {
        let mut core = core();
        let to = |id| To::Client(answer(id));
        core.add_unsent(to(1), vec![1; 9_000].into()).unwrap();
        let refused = core.add_unsent(to(3), vec![1; 5_000].into()).unwrap_err();
        assert!(matches!(
            refused,
            RpcError::TooManyBytes {
                held: 9_000,
                len: 5_000,
                ..
            }
        ));
        core.add_unsent(to(5), vec![1; 4_096].into()).unwrap();
        let first = core.take_unsent().unwrap();
        assert_eq!(first.to, to(1));
        assert!(core.put_back(first).is_none());
        let order: Vec<_> = std::iter::from_fn(|| core.take_unsent())
            .map(|u| u.to)
            .collect();
        assert_eq!(order, [to(1), to(5)]);
        assert_eq!(core.unsent_bytes, 0);
    }

    #[test]
    fn calls_beyond_the_limit_are_refused() {
        let mut core = core();
        let calls: Vec<_> = (0..3).map(|_| core.add_call(peer()).unwrap()).collect();
        assert!(matches!(
            core.add_call(peer()),
            Err(RpcError::TooManyRpcs { limit: 3, .. })
        ));
        let _ = core.forget_call(calls[0]);
        assert!(core.add_call(peer()).is_ok());
    }

    #[test]
    fn requests_are_taken_as_far_as_there_is_room_and_a_sink() {
        let mut core = core();
        assert!(core.add_request(answer(1), 10).is_none());
        assert_eq!(core.stats.requests_unserved, 1);
        core.sink = Some(Arc::new(|_| {}));
        let (first, _) = core.add_request(answer(1), 900).unwrap();
        assert!(core.add_request(answer(3), 101).is_none());
        assert_eq!(core.stats.requests_refused, 1);
        assert_eq!(core.answer(first), Some(answer(1)));
        let _ = core.forget_request(first);
        assert_eq!(core.answer(first), None);
        let taken = (0..5)
            .filter(|id| core.add_request(answer(*id), 1).is_some())
            .count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn a_close_tells_calls_that_never_left_from_those_that_may_have() {
        let mut core = core();
        let [sent, sending, waiting] = [(); 3].map(|()| core.add_call(peer()).unwrap());
        assert!(core.call_sent(sent, 2));
        core.add_unsent(To::Server(waiting, peer()), vec![1].into())
            .unwrap();
        let work = core.close(CloseReason::RuntimeGone);
        assert_eq!(work.messages.len(), 1);
        let mut delivery = |call| match outcome(&mut core, call) {
            Poll::Ready(Err(RpcError::Closed {
                reason: CloseReason::RuntimeGone,
                delivery,
            })) => delivery,
            other => panic!("{other:?}"),
        };
        assert_eq!(delivery(sent), Delivery::Unknown);
        assert_eq!(delivery(sending), Delivery::Unknown);
        assert_eq!(delivery(waiting), Delivery::NotSent);
        assert!(matches!(
            core.add_call(peer()),
            Err(RpcError::Closed { .. })
        ));
    }

    #[test]
    fn requests_are_over_for_their_handlers_after_a_close() {
        let mut core = core();
        core.sink = Some(Arc::new(|_| {}));
        let (rpc, _) = core.add_request(answer(1), 10).unwrap();
        assert!(core.poll_request_gone(rpc, Waker::noop()).0.is_pending());
        let work = core.close(CloseReason::Closed);
        assert_eq!(work.wakers.len(), 1);
        assert!(work.sink.is_some());
        assert!(core.poll_request_gone(rpc, Waker::noop()).0.is_ready());
        assert_eq!(core.closed, Some(CloseReason::Closed));
    }
}
