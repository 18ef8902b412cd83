//! The link of a shard, until the shard is closed: then it goes, and with it the port, though handles,
//! responders and the driver may hold the shard for longer.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::link::{Link, SystemCalls};
use crate::stats::Backend;

/// A link that is there until it is released.
pub(super) struct LinkSlot {
    local: SocketAddr,
    backend: Option<Backend>,
    link: RwLock<Option<Arc<dyn Link>>>,
    /// Of a link that is gone.
    last: OnceLock<LinkCounters>,
}

/// What a link has counted.
#[derive(Clone, Copy, Default)]
pub(super) struct LinkCounters {
    pub(super) calls: SystemCalls,
    pub(super) receive_drops: u64,
}

impl LinkCounters {
    fn of(link: &dyn Link) -> Self {
        Self {
            calls: link.system_calls(),
            receive_drops: link.receive_drops(),
        }
    }
}

impl LinkSlot {
    pub(super) fn new(link: Arc<dyn Link>) -> Self {
        Self {
            local: link.local_addr(),
            backend: link.backend(),
            link: RwLock::new(Some(link)),
            last: OnceLock::new(),
        }
    }

    pub(super) const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(super) const fn backend(&self) -> Option<Backend> {
        self.backend
    }

    /// Runs `use_link`, which must not lock the core, nor close the shard: who closes it waits for it
    /// here. `None` if the link is gone.
    pub(super) fn with<T>(&self, use_link: impl FnOnce(&dyn Link) -> T) -> Option<T> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        link.as_deref().map(use_link)
    }

    pub(super) fn counters(&self) -> LinkCounters {
        let last = || self.last.get().copied().unwrap_or_default();
        self.with(LinkCounters::of).unwrap_or_else(last)
    }

    /// Lets go of the link, once those who use it at this moment are done; none of them waits for
    /// anything. When this returns, whoever called it, the port is free, unless somebody outside of the
    /// socket holds the link too.
    pub(super) fn release(&self) {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(gone) = link.take() {
            let _first = self.last.set(LinkCounters::of(&*gone));
            // Under the lock, so that another call waits for it.
            drop(gone);
        }
    }
}

impl fmt::Debug for LinkSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkSlot").field(&self.local).finish()
    }
}
