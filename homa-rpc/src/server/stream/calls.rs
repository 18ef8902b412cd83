//! The calls of several frames of one server, found by client and call id.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Call;
use super::pending::{Key, Pending};

/// Calls whose frames are taken.
pub(in crate::server) struct Calls {
    calls: Mutex<HashMap<Key, Arc<Call>>>,
    pending: Mutex<Pending>,
}

impl Calls {
    /// None yet. Their requests may hold `bytes_limit` bytes.
    pub(in crate::server) fn new(bytes_limit: usize) -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::default(),
            pending: Mutex::new(Pending::new(bytes_limit)),
        })
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request of a call holds `held` bytes now; `total` is the length of a message of which it has a part.
    /// Returns calls for which there is no room, which are to be [ended](Self::end).
    pub(super) fn hold(&self, key: Key, held: usize, total: Option<usize>) -> Vec<Key> {
        self.pending().hold(key, held, total)
    }

    /// Ends calls for which there is no room.
    pub(super) fn end(&self, without_room: Vec<Key>) {
        for (peer, call_id) in without_room {
            if let Some(call) = self.find(peer, call_id) {
                call.run_out_of_room();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Call>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call that a frame is for.
    pub(in crate::server) fn find(&self, peer: SocketAddr, call_id: u64) -> Option<Arc<Call>> {
        self.lock().get(&(peer, call_id)).cloned()
    }

    /// Takes frames for `call` from now on. `None` if there is another one of this name.
    pub(in crate::server) fn register(
        self: &Arc<Self>,
        peer: SocketAddr,
        call_id: u64,
        call: &Arc<Call>,
    ) -> Option<Registered> {
        let key = (peer, call_id);
        match self.lock().entry(key) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(place) => place.insert(Arc::clone(call)),
        };
        Some(Registered {
            key,
            calls: Arc::clone(self),
        })
    }
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls")
            .field("len", &self.lock().len())
            .finish()
    }
}

/// A call whose frames are taken until this is dropped.
pub(in crate::server) struct Registered {
    key: Key,
    calls: Arc<Calls>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut calls = self.calls.lock();
        let call = calls.remove(&self.key);
        if calls.capacity() > 4 * calls.len() + 64 {
            calls.shrink_to_fit();
        }
        drop(calls);
        if let Some(call) = call {
            call.close();
        }
        self.calls.pending().close(self.key);
    }
}
