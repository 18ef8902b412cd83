//! Links move packets between hosts. They know nothing of the protocol.
//!
//! The driver of a `Socket` sends what the protocol core gives it with
//! [`Link::send`] (any thread, never blocking) and receives in batches with
//! [`Link::poll_recv`] (the driver task alone).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::task::{Context, Poll};

use crate::endpoint::Transmit;
use crate::error::Report;
use crate::stats::Backend;

pub mod clock;
pub mod mem;
pub mod raw;
pub mod udp;

pub(crate) mod address;
mod bpf;
mod cmsg;
mod datagram;
mod errno;
mod icmp;
pub(crate) mod kernel_module;
mod reports;
mod reservation;
#[cfg(feature = "sim")]
pub(crate) mod sim;
pub(crate) mod steering;
mod sys;
mod writable;

pub(crate) use sys::trim_heap;

/// A way to move packets.
pub trait Link: fmt::Debug + Send + Sync + 'static {
    /// Address of this end. The port is the Homa port.
    fn local_addr(&self) -> SocketAddr;

    /// Largest packet, Homa header and data together, that can be sent to `peer`, in bytes.
    fn packet_bytes_max(&self, peer: SocketAddr) -> usize;

    /// Sends the leading packets of `batch`, as many as the system takes without blocking, and
    /// returns how many are done with. Less than all means that the rest has to wait for
    /// [`Link::poll_writable`].
    ///
    /// A packet that cannot be sent because of its destination (no route, say) counts as done
    /// and is reported by the next [`Link::poll_recv`] as unreachable: the protocol recovers from
    /// lost packets, and one dead peer must not hurt the others.
    ///
    /// # Errors
    /// When the link can never send again.
    fn send(&self, batch: &[Transmit]) -> io::Result<usize>;

    /// Ready when [`Link::send`] may take packets again after it took fewer than it was given.
    ///
    /// # Errors
    /// When the link can never send again.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Receives packets and reports of unreachable peers into `batch`, which the caller has
    /// cleared, until the batch is full or nothing more is there. Ready with at least one entry,
    /// or pending with the waker registered. One task may call this.
    ///
    /// # Errors
    /// When the link can never receive again.
    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>>;

    /// What it is, for [`Stats::backend`](crate::Stats::backend).
    fn backend(&self) -> Option<Backend> {
        None
    }

    /// Whether packets come from outside of this process, so that asking for them again can be faster
    /// than waiting to be woken.
    fn can_busy_poll(&self) -> bool {
        false
    }

    /// Like [`Link::poll_recv`], but only looks: nothing is registered, and `batch` stays empty if
    /// nothing is there.
    ///
    /// # Errors
    /// When the link can never receive again.
    fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        let _ = batch;
        Ok(())
    }

    /// System calls made so far to send and to receive, if this link makes any.
    fn system_calls(&self) -> SystemCalls {
        SystemCalls::default()
    }

    /// Datagrams that the system dropped because this link's receive buffer was full, if known. One may hold
    /// several packets.
    fn receive_drops(&self) -> u64 {
        0
    }
}

/// Numbers of system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemCalls {
    /// Those that sent packets.
    pub send: u64,
    /// Those that received packets.
    pub receive: u64,
}

/// One received packet: where it came from, where it was sent to, where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketMeta {
    /// Sender: its address and Homa port.
    pub peer: SocketAddr,
    /// The local address it was sent to; replies leave from there.
    pub local: IpAddr,
    /// Its bytes in the batch's buffer.
    pub range: Range<usize>,
}

/// What one call of [`Link::poll_recv`] brought. Reused from call to call.
#[derive(Debug)]
pub struct RecvBatch {
    /// Storage of the packets.
    pub buffer: Box<[u8]>,
    /// Packets, in order of arrival.
    pub packets: Vec<PacketMeta>,
    /// It is full: more may be waiting.
    pub full: bool,
    /// Packets that could not be delivered.
    pub unreachable: Vec<Report>,
}

impl RecvBatch {
    /// Packets a batch holds at most.
    pub const PACKETS_MAX: usize = 256;
    /// Bytes a batch holds at most.
    pub const BYTES_MAX: usize = 512 * 1024;

    /// An empty batch with its storage.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: vec![0; Self::BYTES_MAX].into_boxed_slice(),
            packets: Vec::with_capacity(Self::PACKETS_MAX),
            full: false,
            unreachable: Vec::new(),
        }
    }

    /// Forgets the contents, keeps the storage.
    pub fn clear(&mut self) {
        self.packets.clear();
        self.full = false;
        self.unreachable.clear();
    }

    /// True if nothing was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.unreachable.is_empty()
    }

    /// The received packets with their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&PacketMeta, &[u8])> {
        self.packets.iter().map(|meta| {
            (
                meta,
                self.buffer.get(meta.range.clone()).unwrap_or_default(),
            )
        })
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}
