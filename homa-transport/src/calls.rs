//! The ledger of a socket, the same for every backend: calls in progress, requests in service, the sink,
//! the end of it all, and who waits for which of these.
//!
//! Nothing that belongs to a user is woken, called or dropped under the lock. Methods of [`Ledger`] hand
//! it out; those of [`Locked`] drop it after they have unlocked.

use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use homa_protocol::slab::{SideTable, Slab};
use slotmap::{Key, KeyData};

use crate::endpoint::RpcKey;
use crate::error::{CloseReason, Delivery, Limit, RpcError};
use crate::transport::{CallKey, RequestKey, RequestSink};

slotmap::new_key_type! {
    struct CallSlot;
}

/// How a call has ended.
pub(crate) type Outcome = Result<Bytes, RpcError>;

/// What a socket keeps of its calls and requests. `C` is what its backend knows of a call.
pub(crate) struct Ledger<C> {
    calls: Slab<CallSlot, Call<C>>,
    requests: SideTable<RpcKey, Option<Waker>>,
    /// Takes requests, if anyone serves.
    pub(crate) sink: Option<RequestSink>,
    /// Why the socket no longer works.
    pub(crate) closed: Option<CloseReason>,
    closed_waker: Option<Waker>,
    driver: Option<Waker>,
    /// Callers woken since the start.
    pub(crate) waiters_woken: u64,
    /// Requests given to the sink since the start.
    pub(crate) requests_handed_over: u64,
}

/// A call in progress, or ended and not yet asked for.
pub(crate) struct Call<C> {
    /// What the backend knows of it.
    pub(crate) state: C,
    /// How it has ended.
    pub(crate) outcome: Option<Outcome>,
    waker: Option<Waker>,
}

impl<C> Default for Ledger<C> {
    fn default() -> Self {
        Self {
            calls: Slab::new(),
            requests: SideTable::new(),
            sink: None,
            closed: None,
            closed_waker: None,
            driver: None,
            waiters_woken: 0,
            requests_handed_over: 0,
        }
    }
}

impl<C> Ledger<C> {
    /// The error of a closed socket.
    pub(crate) fn check_open(&self, delivery: Delivery) -> Result<(), RpcError> {
        match &self.closed {
            None => Ok(()),
            Some(reason) => Err(closed(reason, delivery)),
        }
    }

    /// Adds a call, of which there may be `limit`, as `option` says.
    pub(crate) fn add_call(
        &mut self,
        state: C,
        limit: usize,
        option: Limit,
    ) -> Result<CallKey, RpcError> {
        if self.calls.len() >= limit {
            return Err(RpcError::TooManyRpcs { limit, option });
        }
        let slot = self.calls.insert(Call {
            state,
            outcome: None,
            waker: None,
        });
        Ok(CallKey::new(slot.data().as_ffi()))
    }

    /// A call that nobody has given up.
    pub(crate) fn call(&self, call: CallKey) -> Option<&Call<C>> {
        self.calls.get(slot(call))
    }

    /// What the backend knows of such a call.
    pub(crate) fn call_mut(&mut self, call: CallKey) -> Option<&mut C> {
        Some(&mut self.calls.get_mut(slot(call))?.state)
    }

    /// Forgets a call. It is to be dropped outside the lock.
    pub(crate) fn remove_call(&mut self, call: CallKey) -> Option<Call<C>> {
        self.calls.remove(slot(call))
    }

    /// Ends a call. Returns whom to wake; the outcome if nobody waits for it any more, or it has another.
    pub(crate) fn end_call(
        &mut self,
        call: CallKey,
        outcome: Outcome,
    ) -> Result<Option<Waker>, Outcome> {
        match self.calls.get_mut(slot(call)) {
            Some(call) if call.outcome.is_none() => {
                call.outcome = Some(outcome);
                self.waiters_woken += u64::from(call.waker.is_some());
                Ok(call.waker.take())
            }
            _ => Err(outcome),
        }
    }

    /// A request goes to the sink.
    pub(crate) fn add_request(&mut self, rpc: RpcKey) {
        self.requests.insert(rpc, None);
        self.requests_handed_over += 1;
    }

    /// Forgets a request that was answered or given up. Returns who waits for its end.
    pub(crate) fn forget_request(&mut self, rpc: RpcKey) -> Option<Waker> {
        self.requests.remove(rpc).flatten()
    }

    /// Notes who drives. Returns a waker to drop outside the lock.
    pub(crate) fn register_driver(&mut self, waker: &Waker) -> Option<Waker> {
        register(&mut self.driver, waker)
    }

    /// Wakes the driver.
    pub(crate) fn driver(&self) -> Option<Waker> {
        self.driver.clone()
    }

    /// Ends everything because of `reason`; the first reason stays. Again, it ends what is left. Calls in
    /// progress fail with an unknown delivery. Adds whom to wake, and returns the sink to be dropped.
    pub(crate) fn close(
        &mut self,
        reason: CloseReason,
        wakers: &mut Vec<Waker>,
    ) -> Option<RequestSink> {
        let reason = self.closed.get_or_insert(reason);
        for call in self.calls.values_mut() {
            if call.outcome.is_none() {
                call.outcome = Some(Err(closed(reason, Delivery::Unknown)));
                wakers.extend(call.waker.take());
            }
        }
        wakers.extend(self.requests.drain().flatten());
        wakers.extend(self.driver.take());
        wakers.extend(self.closed_waker.take());
        self.sink.take()
    }

    /// The outcome of a call, or registers `waker`. Returns a waker to drop outside the lock.
    pub(crate) fn poll_call(
        &mut self,
        call: CallKey,
        waker: &Waker,
    ) -> (Poll<Outcome>, Option<Waker>) {
        let slot = slot(call);
        let Some(call) = self.calls.get_mut(slot) else {
            return (Poll::Ready(Err(RpcError::Stale)), None);
        };
        match call.outcome.take() {
            None => (Poll::Pending, register(&mut call.waker, waker)),
            Some(outcome) => {
                let old = self.calls.remove(slot).and_then(|call| call.waker);
                (Poll::Ready(outcome), old)
            }
        }
    }

    /// Ready if the request is no longer there, or registers `waker`, likewise.
    pub(crate) fn poll_request(&mut self, rpc: RpcKey, waker: &Waker) -> (Poll<()>, Option<Waker>) {
        match self.requests.get_mut(rpc) {
            Some(slot) if self.closed.is_none() => (Poll::Pending, register(slot, waker)),
            _ => (Poll::Ready(()), None),
        }
    }

    fn poll_closed(&mut self, waker: &Waker) -> (Poll<CloseReason>, Option<Waker>) {
        match &self.closed {
            Some(reason) => (Poll::Ready(reason.clone()), None),
            None => (Poll::Pending, register(&mut self.closed_waker, waker)),
        }
    }
}

/// What a lock guards that a ledger is a part of.
pub(crate) trait HasLedger {
    /// What the backend knows of a call.
    type Call;

    /// The ledger.
    fn ledger(&mut self) -> &mut Ledger<Self::Call>;
}

/// The state of a socket behind its lock, with what users ask of the ledger in it.
#[derive(Debug)]
pub(crate) struct Locked<S>(Mutex<S>);

impl<S: HasLedger> Locked<S> {
    pub(crate) const fn new(state: S) -> Self {
        Self(Mutex::new(state))
    }

    /// The state. After a panic inside it the socket is closed; the driver, or whoever closes it, tells
    /// those who wait.
    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(|poisoned| {
            self.0.clear_poison();
            let mut state = poisoned.into_inner();
            state.ledger().closed.get_or_insert(CloseReason::Poisoned);
            state
        })
    }

    /// The reason why the socket is closed.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.lock().ledger().closed.clone()
    }

    /// The outcome of a call, once. See [`Transport::poll_response`](crate::Transport::poll_response).
    pub(crate) fn poll_response(&self, call: CallKey, cx: &Context<'_>) -> Poll<Outcome> {
        let (outcome, _old) = self.lock().ledger().poll_call(call, cx.waker());
        outcome
    }

    /// Ready if the request is no longer there. See [`Respond`](crate::transport::Respond).
    pub(crate) fn poll_cancelled(&self, request: RequestKey, cx: &Context<'_>) -> Poll<()> {
        let (gone, _old) = self
            .lock()
            .ledger()
            .poll_request(rpc_of(request), cx.waker());
        gone
    }

    /// Ready with the reason when the socket is closed.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<CloseReason> {
        let (closed, _old) = self.lock().ledger().poll_closed(cx.waker());
        closed
    }
}

/// Why a socket ends whose driver is dropped at this moment.
pub(crate) fn driver_dropped() -> CloseReason {
    if std::thread::panicking() {
        CloseReason::Poisoned
    } else {
        CloseReason::RuntimeGone
    }
}

pub(crate) fn closed(reason: &CloseReason, delivery: Delivery) -> RpcError {
    RpcError::Closed {
        reason: reason.clone(),
        delivery,
    }
}

/// A request as users know it.
pub(crate) fn request_of(rpc: RpcKey) -> RequestKey {
    RequestKey::new(rpc.data().as_ffi())
}

/// The reverse of [`request_of`].
pub(crate) fn rpc_of(request: RequestKey) -> RpcKey {
    KeyData::from_ffi(request.get()).into()
}

fn slot(call: CallKey) -> CallSlot {
    KeyData::from_ffi(call.get()).into()
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

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl HasLedger for Ledger<u32> {
        type Call = u32;

        fn ledger(&mut self) -> &mut Self {
            self
        }
    }

    fn add(ledger: &mut Ledger<u32>, state: u32) -> CallKey {
        ledger.add_call(state, 2, Limit::Rpcs).unwrap()
    }

    #[test]
    fn a_key_names_its_call_only() {
        let mut ledger = Ledger::default();
        let first = add(&mut ledger, 1);
        assert_eq!(ledger.remove_call(first).unwrap().state, 1);
        let second = add(&mut ledger, 2);
        assert_ne!(first, second);
        assert!(ledger.call(first).is_none());
        let unwanted = ledger.end_call(first, Ok(Bytes::from_static(b"late")));
        assert!(unwanted.is_err(), "nobody waits for it");
        assert!(ledger.poll_call(second, Waker::noop()).0.is_pending());
        assert_eq!(*ledger.call_mut(second).unwrap(), 2);
        add(&mut ledger, 3);
        let refused = ledger.add_call(4, 2, Limit::Rpcs).unwrap_err();
        assert!(matches!(refused, RpcError::TooManyRpcs { limit: 2, .. }));
    }

    #[test]
    fn the_first_reason_ends_what_is_left_and_wakes_each_who_waits_once() {
        let mut ledger = Ledger::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let [ended, waiting] = [1, 2].map(|state| add(&mut ledger, state));
        ledger.end_call(ended, Ok(Bytes::new())).unwrap();
        assert!(ledger.poll_call(waiting, &waker).0.is_pending());
        assert!(ledger.poll_closed(&waker).0.is_pending());
        for reason in [CloseReason::RuntimeGone, CloseReason::Closed] {
            let mut wakers = Vec::new();
            ledger.close(reason, &mut wakers);
            wakers.into_iter().for_each(Waker::wake);
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        let outcome = |ledger: &mut Ledger<u32>, call| ledger.poll_call(call, Waker::noop()).0;
        assert_eq!(outcome(&mut ledger, ended), Poll::Ready(Ok(Bytes::new())));
        let error = closed(&CloseReason::RuntimeGone, Delivery::Unknown);
        assert_eq!(outcome(&mut ledger, waiting), Poll::Ready(Err(error)));
        assert_eq!(
            outcome(&mut ledger, waiting),
            Poll::Ready(Err(RpcError::Stale))
        );
        assert!(ledger.check_open(Delivery::NotSent).is_err());
    }

    #[test]
    fn a_panic_under_the_lock_closes_the_socket() {
        let locked = Arc::new(Locked::new(Ledger::<u32>::default()));
        let inside = Arc::clone(&locked);
        let panicked = std::thread::spawn(move || {
            let _guard = inside.lock();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(locked.closed(), Some(CloseReason::Poisoned));
        let closed = locked.poll_closed(&Context::from_waker(Waker::noop()));
        assert_eq!(closed, Poll::Ready(CloseReason::Poisoned));
    }
}
