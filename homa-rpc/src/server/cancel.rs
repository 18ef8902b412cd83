//! CANCEL frames: which calls they can end, and those that overtook their CALL.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// A call, as the server names it: client and call id.
type Key = (SocketAddr, u64);

/// How long a CANCEL without its CALL is remembered.
const TOMBSTONE_AGE_MAX: Duration = Duration::from_secs(10);

/// CANCEL frames without their CALL that are remembered; beyond, the oldest are forgotten.
const TOMBSTONES_MAX: usize = 4096;

/// Calls of clients that cancel by frame. (Others are cancelled by the transport.)
#[derive(Debug, Default)]
pub(super) struct Cancellations {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    running: HashMap<Key, oneshot::Sender<()>>,
    /// Oldest first.
    tombstones: VecDeque<(Instant, Key)>,
}

impl Cancellations {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has come. `None` if it was cancelled before, or if a call of this name runs
    /// already.
    pub(super) fn begin(self: &Arc<Self>, peer: SocketAddr, call_id: u64) -> Option<Cancellable> {
        let key = (peer, call_id);
        let mut inner = self.lock();
        inner.forget_old();
        if inner.tombstones.iter().any(|(_, dead)| *dead == key) || inner.running.contains_key(&key)
        {
            return None;
        }
        let (sender, cancelled) = oneshot::channel();
        inner.running.insert(key, sender);
        Some(Cancellable {
            key,
            cancelled,
            all: Arc::clone(self),
        })
    }

    /// A CANCEL frame has come.
    pub(super) fn cancel(&self, peer: SocketAddr, call_id: u64) {
        let key = (peer, call_id);
        let mut inner = self.lock();
        inner.forget_old();
        if let Some(running) = inner.running.remove(&key) {
            drop(inner);
            // Fails if the call has just ended.
            let _ended = running.send(());
            return;
        }
        if inner.tombstones.len() >= TOMBSTONES_MAX {
            inner.tombstones.pop_front();
        }
        inner.tombstones.push_back((Instant::now(), key));
    }
}

impl Inner {
    fn forget_old(&mut self) {
        let now = Instant::now();
        while let Some((since, _)) = self.tombstones.front()
            && now.duration_since(*since) > TOMBSTONE_AGE_MAX
        {
            self.tombstones.pop_front();
        }
    }
}

/// A running call that a CANCEL frame can end.
#[derive(Debug)]
pub(super) struct Cancellable {
    key: Key,
    /// Yields when the frame has come.
    pub(super) cancelled: oneshot::Receiver<()>,
    all: Arc<Cancellations>,
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.all.lock().running.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[tokio::test]
    async fn a_running_call_is_cancelled_by_its_own_client_only() {
        let all = Arc::new(Cancellations::default());
        let mut call = all.begin(peer(1), 7).unwrap();
        all.cancel(peer(2), 7);
        all.cancel(peer(1), 8);
        assert!(call.cancelled.try_recv().is_err());
        all.cancel(peer(1), 7);
        (&mut call.cancelled).await.unwrap();
    }

    #[tokio::test]
    async fn a_cancel_that_overtakes_its_call_leaves_a_tombstone_for_a_while() {
        tokio::time::pause();
        let all = Arc::new(Cancellations::default());
        all.cancel(peer(1), 7);
        assert!(all.begin(peer(1), 7).is_none());
        assert!(all.begin(peer(2), 7).is_some());
        tokio::time::advance(TOMBSTONE_AGE_MAX + Duration::from_millis(1)).await;
        assert!(all.begin(peer(1), 7).is_some());
    }

    #[tokio::test]
    async fn tombstones_are_bounded_and_ended_calls_leave_nothing() {
        let all = Arc::new(Cancellations::default());
        for id in 0..=TOMBSTONES_MAX as u64 {
            all.cancel(peer(1), id);
        }
        assert_eq!(all.lock().tombstones.len(), TOMBSTONES_MAX);
        assert!(all.begin(peer(1), 0).is_some(), "the oldest is forgotten");
        drop(all.begin(peer(9), 1));
        assert!(all.lock().running.is_empty());
    }
}
