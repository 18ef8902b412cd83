//! CANCEL frames: which calls they can end, and those that overtook their CALL.

use std::collections::{HashMap, HashSet, VecDeque};
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
/// The same of one client, so that none makes the server forget those of the others by itself.
const TOMBSTONES_OF_CLIENT_MAX: usize = 1024;

/// Calls of clients that cancel by frame. (Others are cancelled by the transport.)
#[derive(Debug, Default)]
pub(super) struct Cancellations {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    running: HashMap<Key, oneshot::Sender<()>>,
    tombstones: Tombstones,
}

/// Calls that were cancelled before they came.
#[derive(Debug, Default)]
struct Tombstones {
    calls: HashSet<Key>,
    /// When they are to be forgotten, oldest first; some may be forgotten already.
    order: VecDeque<(Instant, Key)>,
    /// Those of each client, oldest first.
    of_client: HashMap<SocketAddr, VecDeque<u64>>,
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
        inner.tombstones.forget_old(Instant::now());
        if inner.tombstones.calls.contains(&key) || inner.running.contains_key(&key) {
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
        if let Some(running) = inner.running.remove(&key) {
            drop(inner);
            // Fails if the call has just ended.
            let _ended = running.send(());
            return;
        }
        inner.tombstones.insert(Instant::now(), key);
    }
}

impl Tombstones {
    fn insert(&mut self, now: Instant, key: Key) {
        self.forget_old(now);
        if self.order.len() >= TOMBSTONES_MAX {
            self.forget_oldest();
        }
        if !self.calls.insert(key) {
            return;
        }
        self.order.push_back((now, key));
        let (client, call_id) = key;
        let of_client = self.of_client.entry(client).or_default();
        of_client.push_back(call_id);
        if of_client.len() > TOMBSTONES_OF_CLIENT_MAX
            && let Some(oldest) = of_client.pop_front()
        {
            self.calls.remove(&(client, oldest));
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((since, _)) = self.order.front()
            && now.duration_since(*since) > TOMBSTONE_AGE_MAX
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, key)) = self.order.pop_front() else {
            return;
        };
        let (client, call_id) = key;
        self.calls.remove(&key);
        if let Some(of_client) = self.of_client.get_mut(&client) {
            if of_client.front() == Some(&call_id) {
                of_client.pop_front();
            }
            if of_client.is_empty() {
                self.of_client.remove(&client);
            }
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
    async fn one_client_makes_the_server_forget_its_own_tombstones_only() {
        let all = Arc::new(Cancellations::default());
        all.cancel(peer(2), 7);
        for id in 0..2 * TOMBSTONES_OF_CLIENT_MAX as u64 {
            all.cancel(peer(1), id);
        }
        assert!(all.begin(peer(2), 7).is_none());
        assert!(all.begin(peer(1), 0).is_some(), "its oldest is forgotten");
        let newest = 2 * TOMBSTONES_OF_CLIENT_MAX as u64 - 1;
        assert!(all.begin(peer(1), newest).is_none());
    }

    #[tokio::test]
    async fn tombstones_are_bounded_and_leave_nothing() {
        tokio::time::pause();
        let all = Arc::new(Cancellations::default());
        for id in 0..3 * TOMBSTONES_MAX as u64 {
            let port = u16::try_from(id % 1_000).unwrap();
            all.cancel(peer(port), id);
        }
        assert_eq!(all.lock().tombstones.calls.len(), TOMBSTONES_MAX);
        assert_eq!(all.lock().tombstones.order.len(), TOMBSTONES_MAX);
        tokio::time::advance(TOMBSTONE_AGE_MAX + Duration::from_millis(1)).await;
        drop(all.begin(peer(9), 1));
        let inner = all.lock();
        assert!(inner.running.is_empty());
        assert!(inner.tombstones.calls.is_empty() && inner.tombstones.of_client.is_empty());
    }
}
