//! Limits of calls in progress for each peer and for single methods.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::overload::{Reason, Refusal};
use crate::message::status::Status;

/// Calls in progress of each peer, by address and port. A peer without calls takes no memory.
#[derive(Debug)]
pub(super) struct PeerQuota {
    limit: usize,
    running: Mutex<HashMap<SocketAddr, usize>>,
}

impl PeerQuota {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            running: Mutex::default(),
        })
    }

    /// Lets a call of `peer` in, or says why not.
    pub(super) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Result<PeerPermit, Refusal> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = running.get(&peer).copied().unwrap_or(0);
        if calls >= self.limit {
            drop(running);
            let status = over(self.limit, "a client", "concurrency_limit_per_peer");
            return Err(Refusal::new(Reason::CallsOfPeer, status));
        }
        running.insert(peer, calls + 1);
        Ok(PeerPermit {
            quota: Arc::clone(self),
            peer,
        })
    }
}

/// A call in progress of a peer.
#[derive(Debug)]
pub(super) struct PeerPermit {
    quota: Arc<PeerQuota>,
    peer: SocketAddr,
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        let running = self.quota.running.lock();
        let mut running = running.unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = running.get_mut(&self.peer) {
            *calls -= 1;
            if *calls == 0 {
                running.remove(&self.peer);
            }
        }
    }
}

/// Calls in progress of one method.
#[derive(Debug)]
pub(super) struct MethodQuota {
    limit: usize,
    running: AtomicUsize,
}

impl MethodQuota {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            running: AtomicUsize::new(0),
        })
    }

    /// Lets a call in, or says why not.
    pub(super) fn enter(self: &Arc<Self>, path: &str) -> Result<MethodPermit, Refusal> {
        let before = self.running.fetch_add(1, Ordering::AcqRel);
        let permit = MethodPermit(Arc::clone(self));
        if before >= self.limit {
            let status = over(self.limit, path, "method_concurrency_limit");
            return Err(Refusal::new(Reason::CallsOfMethod, status));
        }
        Ok(permit)
    }
}

/// A call in progress of a method.
#[derive(Debug)]
pub(super) struct MethodPermit(Arc<MethodQuota>);

impl Drop for MethodPermit {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The refusal of a call over a limit.
fn over(limit: usize, whose: &str, option: &str) -> Status {
    let text = format!("{limit} calls are in progress, the limit of {whose} (`{option}`)");
    Status::resource_exhausted(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn a_peer_has_its_limit_whatever_others_do_and_leaves_nothing() {
        let quota = PeerQuota::new(2);
        let first = quota.enter(peer(1)).unwrap();
        let second = quota.enter(peer(1)).unwrap();
        let status = quota.enter(peer(1)).unwrap_err().status;
        assert!(status.message().contains("concurrency_limit_per_peer"));
        let other = quota.enter(peer(2)).unwrap();
        drop(first);
        let third = quota.enter(peer(1)).unwrap();
        drop((second, third, other));
        assert!(quota.running.lock().unwrap().is_empty());
    }

    #[test]
    fn a_method_has_its_limit_and_is_named() {
        let quota = MethodQuota::new(1);
        let only = quota.enter("/a/B").unwrap();
        let status = quota.enter("/a/B").unwrap_err().status;
        assert!(status.message().contains("/a/B"), "{status}");
        drop(only);
        assert!(quota.enter("/a/B").is_ok());
    }
}
