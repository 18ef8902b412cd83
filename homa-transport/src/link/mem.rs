//! A network inside the process: what `homa+mem://name` uses, and tests.
//!
//! Every link has an address of its own from the IPv6 discard-only block (RFC 6666), which no real
//! peer can have. Packets are handed over, never copied before the receiver's batch.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::task::{Context, Poll, Waker};

use super::reports::Reports;
use super::{Link, PacketMeta, RecvBatch};
use crate::endpoint::Transmit;
use crate::error::{BindError, Unreachable};
use crate::stats::Backend;

/// Largest packet, in bytes: the same as on a UDP link over loopback.
const PACKET_BYTES_MAX: usize = 8972;
/// Bytes a link holds until they are received; more is dropped.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Bytes a packet counts for beside its own.
const PACKET_OVERHEAD: usize = 256;
/// The block `100::/64`.
const DISCARD_ONLY: u128 = 0x0100 << 112;
/// Homa port of every link: addresses differ instead.
const PORT: u16 = 1;

/// One end of the in-process network, as a [`Link`]. It works on every runtime, and between
/// runtimes.
#[derive(Debug)]
pub struct MemLink {
    inbox: Arc<Inbox>,
    /// Held as long as the link lives.
    name: Option<String>,
}

#[derive(Debug)]
struct Inbox {
    addr: SocketAddr,
    queue: Mutex<Queue>,
    reports: Reports,
    drops: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<(SocketAddr, Transmit)>,
    bytes: usize,
    receiver: Option<Waker>,
}

/// All links of the process. Locked only for a look or a change, never while a queue is.
static REGISTRY: LazyLock<RwLock<Registry>> = LazyLock::new(RwLock::default);

#[derive(Debug, Default)]
struct Registry {
    names: HashMap<String, SocketAddr>,
    inboxes: HashMap<SocketAddr, Arc<Inbox>>,
    last: u64,
}

impl MemLink {
    /// A link that others find by `name`, until it is dropped.
    ///
    /// # Errors
    /// [`BindError::NameInUse`].
    pub fn listen(name: &str) -> Result<Self, BindError> {
        let mut registry = Registry::write();
        if registry.names.contains_key(name) {
            return Err(BindError::NameInUse {
                name: name.to_owned(),
            });
        }
        let inbox = registry.open();
        registry.names.insert(name.to_owned(), inbox.addr);
        Ok(Self {
            inbox,
            name: Some(name.to_owned()),
        })
    }

    /// A link without a name.
    #[must_use]
    pub fn client() -> Self {
        Self {
            inbox: Registry::write().open(),
            name: None,
        }
    }

    /// Address of the link that listens under `name`.
    #[must_use]
    pub fn resolve(name: &str) -> Option<SocketAddr> {
        Registry::read().names.get(name).copied()
    }
}

impl Drop for MemLink {
    fn drop(&mut self) {
        let mut registry = Registry::write();
        if let Some(name) = &self.name {
            registry.names.remove(name);
        }
        registry.inboxes.remove(&self.inbox.addr);
    }
}

impl Registry {
    fn read() -> RwLockReadGuard<'static, Self> {
        REGISTRY.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write() -> RwLockWriteGuard<'static, Self> {
        REGISTRY.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// An inbox with an address that nobody has had before.
    fn open(&mut self) -> Arc<Inbox> {
        self.last += 1;
        let ip = Ipv6Addr::from_bits(DISCARD_ONLY | u128::from(self.last));
        let inbox = Arc::new(Inbox {
            addr: SocketAddr::new(ip.into(), PORT),
            queue: Mutex::default(),
            reports: Reports::default(),
            drops: AtomicU64::new(0),
        });
        self.inboxes.insert(inbox.addr, Arc::clone(&inbox));
        inbox
    }
}

impl Inbox {
    fn push(&self, from: SocketAddr, packet: &Transmit) {
        let bytes = packet.len() + PACKET_OVERHEAD;
        let mut queue = self.queue();
        if packet.len() > PACKET_BYTES_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            self.drops.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += bytes;
        queue.packets.push_back((from, packet.clone()));
        let receiver = queue.receiver.take();
        drop(queue);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    /// Moves packets to `batch` as long as they fit; if there are none, has `waker` woken by the
    /// next.
    fn pop_into(&self, batch: &mut RecvBatch, waker: &Waker) {
        let mut queue = self.queue();
        let mut start = batch.packets.last().map_or(0, |last| last.range.end);
        while batch.packets.len() < RecvBatch::PACKETS_MAX {
            let Some((peer, packet)) = queue.packets.front() else {
                break;
            };
            let range = start..start + packet.len();
            if let Some(room) = batch.buffer.get_mut(range.clone()) {
                copy_out(packet, room);
                batch.packets.push(PacketMeta {
                    peer: *peer,
                    local: self.addr.ip(),
                    range: range.clone(),
                });
            } else if start > 0 {
                break;
            } else {
                // Not even an empty batch holds it.
                self.drops.fetch_add(1, Ordering::Relaxed);
            }
            start = batch.packets.last().map_or(0, |last| last.range.end);
            queue.bytes -= packet.len() + PACKET_OVERHEAD;
            queue.packets.pop_front();
        }
        batch.full = !queue.packets.is_empty();
        queue.receiver = batch.packets.is_empty().then(|| waker.clone());
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies a packet to `room`, which has its length.
fn copy_out(packet: &Transmit, mut room: &mut [u8]) {
    let header = std::iter::once(packet.header.as_slice());
    for part in header.chain(packet.payload.parts().map(|part| &part[..])) {
        let Some((place, rest)) = room.split_at_mut_checked(part.len()) else {
            debug_assert!(false, "the length of a packet is that of its parts");
            return;
        };
        place.copy_from_slice(part);
        room = rest;
    }
}

impl Link for MemLink {
    fn local_addr(&self) -> SocketAddr {
        self.inbox.addr
    }

    fn backend(&self) -> Option<Backend> {
        Some(Backend::Mem)
    }

    fn packet_bytes_max(&self, _peer: SocketAddr) -> usize {
        PACKET_BYTES_MAX
    }

    fn send(&self, batch: &[Transmit]) -> io::Result<usize> {
        let mut last: Option<Arc<Inbox>> = None;
        for packet in batch {
            if last.as_ref().is_none_or(|inbox| inbox.addr != packet.to) {
                last = Registry::read().inboxes.get(&packet.to).cloned();
            }
            match &last {
                Some(inbox) => inbox.push(self.inbox.addr, packet),
                None => self.inbox.reports.push(packet.report(Unreachable::Port)),
            }
        }
        Ok(batch.len())
    }

    fn poll_writable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        self.inbox.pop_into(batch, cx.waker());
        self.inbox.reports.take(&mut batch.unreachable);
        while batch.is_empty() {
            if self.inbox.reports.wait(cx.waker()) {
                return Poll::Pending;
            }
            self.inbox.reports.take(&mut batch.unreachable);
        }
        Poll::Ready(Ok(()))
    }

    fn receive_drops(&self) -> u64 {
        self.inbox.drops.load(Ordering::Relaxed)
    }
}
