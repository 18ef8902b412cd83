//! What UDP and protocol 146 have in common: a link over datagram sockets of the system.

mod error_queue;
mod send;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use socket2::{SockAddr, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

pub(super) use self::error_queue::PacketError;
#[cfg(test)]
pub(super) use self::send::gather;
pub(super) use self::send::{PADDING_MAX, SLICES_MAX, Segments, Sent, transmit};
use super::reports::Reports;
use super::writable::WritableWait;
use super::{Link, RecvBatch, SystemCalls, sys};
use crate::endpoint::Transmit;
use crate::stats::Backend;

/// Errors in a row after which receiving makes a pause for other tasks.
const RECEIVE_ERRORS_MAX: usize = 64;

/// A socket of a link.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    fd: AsyncFd<Socket>,
    writable: WritableWait,
    /// The last packet found the queue of the network device full.
    pub(super) device_full: AtomicBool,
}

impl DatagramSocket {
    pub(super) fn new(socket: Socket, runtime: &Handle) -> io::Result<Self> {
        // PRIORITY, because an error alone makes no socket readable to tokio.
        let interest = Interest::READABLE | Interest::PRIORITY;
        Ok(Self {
            fd: sys::register(socket, interest)?,
            writable: WritableWait::new(runtime.clone()),
            device_full: AtomicBool::new(false),
        })
    }

    pub(super) fn socket(&self) -> &Socket {
        self.fd.get_ref()
    }
}

/// What every such link keeps.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) local: SocketAddr,
    pub(super) reports: Reports,
    pub(super) send_calls: AtomicU64,
    receive_calls: AtomicU64,
    /// Packets dropped because they were cut off.
    pub(super) truncated: AtomicU64,
}

impl Common {
    pub(super) fn new(local: SocketAddr) -> Self {
        Self {
            local,
            reports: Reports::default(),
            send_calls: AtomicU64::new(0),
            receive_calls: AtomicU64::new(0),
            truncated: AtomicU64::new(0),
        }
    }
}

/// Why receiving ended.
#[derive(PartialEq, Eq)]
enum Filled {
    /// There may be more.
    Full,
    /// There was nothing more.
    Drained,
}

/// What one system call has brought.
pub(super) enum Received {
    /// Packets, and there may be more.
    Some,
    /// Packets, and there are no more.
    Last,
    /// Nothing was asked for: the batch has no room.
    NoRoom,
}

/// What such links differ in. All of them are [`Link`]s.
pub(super) trait DatagramLink: fmt::Debug + Send + Sync + 'static {
    /// What it is.
    const BACKEND: Backend;

    fn common(&self) -> &Common;

    fn sockets(&self) -> &[DatagramSocket];

    /// The socket by which `to`, a canonical address, is reached.
    fn socket_to(&self, to: SocketAddr) -> Option<&DatagramSocket>;

    /// `to` as the socket's system calls want it.
    fn name(&self, to: SocketAddr) -> SockAddr;

    /// The longest packet that the way to `peer` takes, in bytes.
    fn path_bytes_max(&self, peer: SocketAddr) -> usize;

    /// The packets at the head of `batch` that the system takes as one datagram.
    fn segments(&self, batch: &[Transmit]) -> Segments;

    /// The system did not take several packets as one datagram. They go one by one.
    fn on_segments_refused(&self, error: &io::Error);

    /// Whether `packet` is known to be too long for its way.
    fn is_too_long(&self, to: SocketAddr, packet: &Transmit) -> bool;

    /// The system says that a packet to `to` is too long.
    fn on_too_long(&self, to: SocketAddr);

    /// Sends a packet that is too long for its way.
    fn send_too_long(
        &self,
        socket: &DatagramSocket,
        to: SocketAddr,
        packet: &Transmit,
    ) -> io::Result<Sent>;

    /// Receives into `batch` by one system call.
    fn receive_once(&self, socket: &DatagramSocket, batch: &mut RecvBatch) -> io::Result<Received>;

    /// Deals with an entry of the error queue.
    fn on_error(&self, error: &PacketError<'_>);

    /// Empties the error queue of `socket`. True: an error in it may have made a system call fail that had
    /// nothing to do with it.
    fn collect_errors(&self, socket: &DatagramSocket) -> bool {
        error_queue::collect(socket.socket(), |error| self.on_error(error))
    }
}

fn fill<L: DatagramLink>(
    link: &L,
    socket: &DatagramSocket,
    batch: &mut RecvBatch,
) -> io::Result<Filled> {
    let mut errors = 0;
    loop {
        match link.receive_once(socket, batch) {
            Ok(Received::NoRoom) => return Ok(Filled::Full),
            Ok(received) => {
                let calls = &link.common().receive_calls;
                calls.fetch_add(1, Ordering::Relaxed);
                if matches!(received, Received::Last) {
                    // What comes from now on, packet or error, makes the socket readable anew.
                    return Ok(Filled::Drained);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Filled::Drained),
            Err(error) if is_fatal_to_receiving(&error) => return Err(error),
            Err(_) if errors < RECEIVE_ERRORS_MAX => {
                errors += 1;
                link.collect_errors(socket);
            }
            Err(_) => return Ok(Filled::Full),
        }
    }
}

fn is_fatal_to_receiving(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL | libc::ENOTCONN)
    )
}

impl<L: DatagramLink> Link for L {
    fn local_addr(&self) -> SocketAddr {
        self.common().local
    }

    fn backend(&self) -> Option<Backend> {
        Some(L::BACKEND)
    }

    fn packet_bytes_max(&self, peer: SocketAddr) -> usize {
        self.path_bytes_max(peer)
    }

    fn send(&self, batch: &[Transmit]) -> io::Result<usize> {
        send::send(self, batch)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for socket in self.sockets() {
            let device_full = socket.device_full.load(Ordering::Relaxed);
            ready!(socket.writable.poll(cx, socket.socket(), device_full))?;
            // Errors still in the queue would make the socket look writable again and again.
            self.collect_errors(socket);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        let reports = &self.common().reports;
        loop {
            reports.take(&mut batch.unreachable);
            let (mut all_pending, mut full) = (true, false);
            for socket in self.sockets() {
                let Poll::Ready(mut readable) = socket.fd.poll_read_ready(cx)? else {
                    continue;
                };
                all_pending = false;
                let before = batch.packets.len();
                let filled = fill(self, socket, batch)?;
                if batch.packets.len() == before {
                    // Nothing to read: so it was an error, whether or not a system call has failed.
                    self.collect_errors(socket);
                }
                match filled {
                    Filled::Full => full = true,
                    Filled::Drained => readable.clear_ready(),
                }
            }
            reports.take(&mut batch.unreachable);
            batch.full = full;
            if !batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if full {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if all_pending && reports.wait(cx.waker()) {
                return Poll::Pending;
            }
        }
    }

    fn can_busy_poll(&self) -> bool {
        true
    }

    fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        for socket in self.sockets() {
            batch.full |= fill(self, socket, batch)? == Filled::Full;
        }
        self.common().reports.take(&mut batch.unreachable);
        Ok(())
    }

    fn system_calls(&self) -> SystemCalls {
        let common = self.common();
        SystemCalls {
            send: common.send_calls.load(Ordering::Relaxed),
            receive: common.receive_calls.load(Ordering::Relaxed),
        }
    }

    fn receive_drops(&self) -> u64 {
        let drops =
            |socket: &DatagramSocket| u64::from(sys::receive_drops(socket.socket()).unwrap_or(0));
        let by_system: u64 = self.sockets().iter().map(drops).sum();
        by_system + self.common().truncated.load(Ordering::Relaxed)
    }
}

/// Warns once of a receive buffer that is much smaller than `wanted`.
pub(super) fn warn_of_small_buffer(got: usize, wanted: usize) {
    static ONCE: Once = Once::new();
    if got < wanted / 2 {
        ONCE.call_once(|| {
            tracing::warn!(
                wanted_bytes = wanted,
                got_bytes = got,
                "the system limits receive buffers, so packets may be lost; \
                 raise net.core.rmem_max"
            );
        });
    }
}
