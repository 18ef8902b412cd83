//! What the lock of a kernel socket guards: calls, requests, what waits to be sent, and who waits.
//!
//! Nothing in here calls the system, and nothing that belongs to a user is woken, called or dropped
//! under the lock: it is handed out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Waker;

use homa_protocol::slab::Slab;

use crate::calls::{Call, HasLedger, Ledger, Outcome, closed};
use crate::config::Config;
use crate::endpoint::RpcKey;
use crate::error::{CloseReason, Delivery, Limit, RpcError};
use crate::message::Message;
use crate::stats::Stats;
use crate::transport::{CallKey, RequestSink};

/// Messages up to this size may wait for room however much waits already, so that there is room to
/// say what went wrong.
const SMALL_BYTES: usize = 4_096;

/// The state of a kernel socket.
#[derive(Default)]
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) ledger: Ledger<KnownCall>,
    requests: Slab<RpcKey, RequestSlot>,
    /// Bytes of the requests that are not answered yet.
    request_bytes: usize,
    /// Messages that the module had no memory for.
    unsent: VecDeque<Unsent>,
    unsent_bytes: usize,
    /// Messages may be taken: somebody serves or has called.
    pub(super) receiving: bool,
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

/// What is known of a call of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownCall {
    peer: SocketAddr,
    /// The module's id, once it has the request.
    id: Option<u64>,
}

impl HasLedger for State {
    type Call = KnownCall;

    fn ledger(&mut self) -> &mut Ledger<KnownCall> {
        &mut self.ledger
    }
}

/// A request that the application has not answered yet.
struct RequestSlot {
    to: Answer,
    len: usize,
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
    pub(super) forgotten: Option<Call<KnownCall>>,
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Makes a call to `peer` that the module doesn't know yet.
    pub(super) fn add_call(&mut self, peer: SocketAddr) -> Result<CallKey, RpcError> {
        self.ledger.check_open(Delivery::NotSent)?;
        let call = KnownCall { peer, id: None };
        self.ledger.add_call(call, self.limits.rpcs, Limit::Rpcs)
    }

    /// The module has the request of `call`. False: nobody waits for its end any more.
    pub(super) fn call_sent(&mut self, call: CallKey, id: u64) -> bool {
        self.stats.requests_sent += 1;
        let known = self.ledger.call_mut(call);
        known.map(|known| known.id = Some(id)).is_some()
    }

    /// Forgets a call: its id, if the module has to forget it too, and what to drop.
    pub(super) fn forget_call(&mut self, call: CallKey) -> (Option<u64>, Work) {
        let mut work = Work::default();
        let Some(forgotten) = self.ledger.remove_call(call) else {
            return (None, work);
        };
        let id = forgotten.state.id;
        let unsent = |unsent: &Unsent| matches!(unsent.to, To::Server(other, _) if other == call);
        if id.is_none()
            && let Some(place) = self.unsent.iter().position(unsent)
            && let Some(unsent) = self.unsent.remove(place)
        {
            self.unsent_bytes -= unsent.message.len();
            work.messages.push(unsent);
        }
        let is_over = forgotten.outcome.is_some();
        work.forgotten = Some(forgotten);
        if is_over {
            return (None, work);
        }
        self.stats.rpcs_cancelled += 1;
        (id, work)
    }

    /// The peer of a call.
    pub(super) fn call_peer(&self, call: CallKey) -> Option<SocketAddr> {
        Some(self.ledger.call(call)?.state.peer)
    }

    /// The end of a call. Returns whom to wake, or the outcome if nobody waits for it.
    pub(super) fn end_call(
        &mut self,
        call: CallKey,
        outcome: Outcome,
    ) -> Result<Option<Waker>, Outcome> {
        let failed = outcome.is_err();
        let waker = self.ledger.end_call(call, outcome)?;
        self.stats.rpcs_failed += u64::from(failed);
        self.stats.responses_received += u64::from(!failed);
        Ok(waker)
    }

    /// Takes a request of `len` bytes, with the sink for it. `None`: there is no room, or nobody
    /// serves.
    pub(super) fn add_request(&mut self, to: Answer, len: usize) -> Option<(RpcKey, RequestSink)> {
        let Some(sink) = self.ledger.sink.clone() else {
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
        let rpc = self.requests.insert(RequestSlot { to, len });
        self.ledger.add_request(rpc);
        Some((rpc, sink))
    }

    /// Where the answer to a request goes.
    pub(super) fn answer(&self, rpc: RpcKey) -> Option<Answer> {
        Some(self.requests.get(rpc)?.to)
    }

    /// Forgets a request that was answered or given up.
    pub(super) fn forget_request(&mut self, rpc: RpcKey) -> Option<Waker> {
        let slot = self.requests.remove(rpc)?;
        self.request_bytes -= slot.len;
        self.ledger.forget_request(rpc)
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
        Ok(self.ledger.driver())
    }

    /// Takes out the message that has waited longest. What is still there at a close was never
    /// sent.
    pub(super) fn take_unsent(&mut self) -> Option<Unsent> {
        let unsent = self.unsent.pop_front()?;
        self.unsent_bytes -= unsent.message.len();
        Some(unsent)
    }

    /// Puts back what [`State::take_unsent`] yielded; hands it out if nobody wants it sent any more.
    pub(super) fn put_back(&mut self, unsent: Unsent) -> Option<Unsent> {
        let given_up = match unsent.to {
            To::Server(call, _) => self.ledger.call(call).is_none(),
            To::Client(_) => false,
        };
        if given_up || self.ledger.closed.is_some() {
            return Some(unsent);
        }
        self.unsent_bytes += unsent.message.len();
        self.unsent.push_front(unsent);
        None
    }

    /// Messages are to be taken from now on. Returns the driver if it has to begin.
    pub(super) fn begin_receiving(&mut self) -> Option<Waker> {
        if self.receiving {
            return None;
        }
        self.receiving = true;
        self.ledger.driver()
    }

    /// Ends everything because of `reason`; the first reason stays.
    pub(super) fn close(&mut self, reason: CloseReason) -> Work {
        let reason = self.ledger.closed.get_or_insert(reason).clone();
        let mut work = Work::default();
        // Others without an id may be on their way to the module at this moment.
        for unsent in &self.unsent {
            if let To::Server(call, _) = unsent.to {
                let outcome = Err(closed(&reason, Delivery::NotSent));
                if let Ok(waker) = self.ledger.end_call(call, outcome) {
                    work.wakers.extend(waker);
                }
            }
        }
        work.sink = self.ledger.close(reason, &mut work.wakers);
        self.requests.drain().for_each(drop);
        self.request_bytes = 0;
        work.messages.extend(self.unsent.drain(..));
        self.unsent_bytes = 0;
        work
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Poll, Wake};

    use bytes::Bytes;

    use super::*;

    fn state() -> State {
        State::new(Limits {
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

    fn outcome(state: &mut State, call: CallKey) -> Poll<Outcome> {
        state.ledger.poll_call(call, Waker::noop()).0
    }

    #[test]
    fn a_response_that_overtakes_the_id_of_its_call_is_kept_for_it() {
        let mut state = state();
        let call = state.add_call(peer()).unwrap();
        let response = Bytes::from_static(b"early");
        let _ = state.end_call(call, Ok(response.clone()));
        assert!(state.call_sent(call, 8));
        assert_eq!(outcome(&mut state, call), Poll::Ready(Ok(response)));
        assert_eq!(outcome(&mut state, call), Poll::Ready(Err(RpcError::Stale)));
    }

    #[test]
    fn the_end_of_a_call_wakes_who_waits_once() {
        let mut state = state();
        let count = Arc::new(Count::default());
        let call = state.add_call(peer()).unwrap();
        let waker = Waker::from(Arc::clone(&count));
        assert!(state.ledger.poll_call(call, &waker).0.is_pending());
        let woken = state.end_call(call, Ok(Bytes::new())).unwrap();
        woken.unwrap().wake();
        let unwanted = state.end_call(call, Err(RpcError::Stale)).unwrap_err();
        assert_eq!(unwanted, Err(RpcError::Stale));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(state.stats.responses_received, 1);
    }

    #[test]
    fn a_response_for_a_call_that_was_given_up_goes_to_no_other() {
        let mut state = state();
        let call = state.add_call(peer()).unwrap();
        assert!(state.call_sent(call, 8));
        assert_eq!(state.forget_call(call).0, Some(8));
        let next = state.add_call(peer()).unwrap();
        assert_ne!(next, call);
        let _unwanted = state.end_call(call, Ok(Bytes::new())).unwrap_err();
        assert!(outcome(&mut state, next).is_pending());
        assert_eq!(state.stats.rpcs_cancelled, 1);
    }

    #[test]
    fn a_call_given_up_before_it_was_sent_is_not_sent() {
        let mut state = state();
        let call = state.add_call(peer()).unwrap();
        let to = To::Server(call, peer());
        state.add_unsent(to, vec![1; 5_000].into()).unwrap();
        let (id, work) = state.forget_call(call);
        assert_eq!((id, work.messages.len()), (None, 1));
        assert!(state.take_unsent().is_none());
        assert_eq!(state.unsent_bytes, 0);
    }

    #[test]
    fn a_call_given_up_while_its_request_is_with_the_module_is_told_of_by_its_id() {
        let mut state = state();
        let call = state.add_call(peer()).unwrap();
        state
            .add_unsent(To::Server(call, peer()), vec![1; 10].into())
            .unwrap();
        let unsent = state.take_unsent().unwrap();
        let _ = state.forget_call(call);
        assert!(state.put_back(unsent).is_some(), "nobody wants it sent");
        assert!(!state.call_sent(call, 8), "the module has to forget it");
    }

    #[test]
    fn messages_wait_in_order_up_to_the_limit_and_short_ones_beyond() {
        let mut state = state();
        let to = |id| To::Client(answer(id));
        state.add_unsent(to(1), vec![1; 9_000].into()).unwrap();
        let refused = state.add_unsent(to(3), vec![1; 5_000].into()).unwrap_err();
        assert!(matches!(
            refused,
            RpcError::TooManyBytes {
                held: 9_000,
                len: 5_000,
                ..
            }
        ));
        state.add_unsent(to(5), vec![1; 4_096].into()).unwrap();
        let first = state.take_unsent().unwrap();
        assert_eq!(first.to, to(1));
        assert!(state.put_back(first).is_none());
        let order: Vec<_> = std::iter::from_fn(|| state.take_unsent())
            .map(|u| u.to)
            .collect();
        assert_eq!(order, [to(1), to(5)]);
        assert_eq!(state.unsent_bytes, 0);
    }

    #[test]
    fn calls_beyond_the_limit_are_refused() {
        let mut state = state();
        let calls: Vec<_> = (0..3).map(|_| state.add_call(peer()).unwrap()).collect();
        assert!(matches!(
            state.add_call(peer()),
            Err(RpcError::TooManyRpcs { limit: 3, .. })
        ));
        let _ = state.forget_call(calls[0]);
        assert!(state.add_call(peer()).is_ok());
    }

    #[test]
    fn requests_are_taken_as_far_as_there_is_room_and_a_sink() {
        let mut state = state();
        assert!(state.add_request(answer(1), 10).is_none());
        assert_eq!(state.stats.requests_unserved, 1);
        state.ledger.sink = Some(Arc::new(|_| {}));
        let (first, _) = state.add_request(answer(1), 900).unwrap();
        assert!(state.add_request(answer(3), 101).is_none());
        assert_eq!(state.stats.requests_refused, 1);
        assert_eq!(state.answer(first), Some(answer(1)));
        let _ = state.forget_request(first);
        assert_eq!(state.answer(first), None);
        let taken = (0..5)
            .filter(|id| state.add_request(answer(*id), 1).is_some())
            .count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn a_close_tells_calls_that_never_left_from_those_that_may_have() {
        let mut state = state();
        let [sent, sending, waiting] = [(); 3].map(|()| state.add_call(peer()).unwrap());
        assert!(state.call_sent(sent, 2));
        state
            .add_unsent(To::Server(waiting, peer()), vec![1].into())
            .unwrap();
        let work = state.close(CloseReason::RuntimeGone);
        assert_eq!(work.messages.len(), 1);
        let mut delivery = |call| match outcome(&mut state, call) {
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
            state.add_call(peer()),
            Err(RpcError::Closed { .. })
        ));
    }

    #[test]
    fn requests_are_over_for_their_handlers_after_a_close() {
        let mut state = state();
        state.ledger.sink = Some(Arc::new(|_| {}));
        let (rpc, _) = state.add_request(answer(1), 10).unwrap();
        assert!(state.ledger.poll_request(rpc, Waker::noop()).0.is_pending());
        let work = state.close(CloseReason::Closed);
        assert_eq!(work.wakers.len(), 1);
        assert!(work.sink.is_some());
        assert!(state.ledger.poll_request(rpc, Waker::noop()).0.is_ready());
        assert_eq!(state.ledger.closed, Some(CloseReason::Closed));
    }
}
