//! After a burst its memory goes back to the system.
//!
//! The tables of the protocol free what they no longer need, and so do calls and handlers. But the
//! allocator of glibc keeps freed memory that lies below something still in use, for good: a server that
//! had been flooded held 327 MB instead of 5.

/// Has the allocator give back what it holds, on a thread of the runtime that may block: it takes some
/// milliseconds for hundreds of megabytes. Where the allocator is another one, nothing happens.
pub(super) fn give_back() {
    tracing::debug!("a burst is over: the allocator is asked to give memory back");
    drop(tokio::task::spawn_blocking(crate::link::trim_heap));
}
