//! The buffer region of a socket: which pages the module has lent us, and how they get back.
//!
//! The module puts messages into pages and names them; they are ours until a later receive call
//! hands them back, each exactly once. [`Bpages`] is that ownership: dropped, its pages wait in the
//! [`Region`] for the next receive call. At most half of the region is ever lent to the application; a
//! message beyond that is copied out, and its pages go back at once. Hence an application that keeps
//! what it received cannot stall the socket, and dropping a message needs to wake nobody.
//!
//! Source: homa_pool.c.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use socket2::Socket;

use super::mmap::Mmap;
use super::{MESSAGE_PAGES_MAX, PAGE_BYTES, ReceiveArgs};

/// What a socket receives into.
#[derive(Debug)]
pub(in crate::kernel) struct Region {
    memory: Mmap,
    /// Offsets to hand back.
    returned: Mutex<Vec<u32>>,
    /// Pages that the application holds.
    lent: AtomicUsize,
}

/// A socket and its region, which stay together.
#[derive(Debug)]
pub(in crate::kernel) struct Port {
    // Dropped first: the module doesn't write to the region after that.
    socket: Socket,
    region: Arc<Region>,
}

impl Port {
    /// Gives `socket` the region, of which it can have one only.
    pub(in crate::kernel) fn new(socket: Socket, region: Arc<Region>) -> io::Result<Self> {
        super::set_region(&socket, &region.memory)
            .map_err(|error| super::explained(&socket, &error))?;
        Ok(Self { socket, region })
    }

    pub(in crate::kernel) const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Takes a message, or the end of a call, off the socket. Never blocks: `WouldBlock` if there is
    /// none.
    pub(in crate::kernel) fn receive(&self) -> io::Result<Received> {
        let mut args = self.region.receive_args();
        match super::receive(&self.socket, &mut args) {
            Ok((len, peer)) => self.region.received(len, peer, &args),
            Err(error) => self.region.failed(error, &args),
        }
    }

    /// Whether so many pages wait to be handed back that a receive call is due for them alone.
    pub(in crate::kernel) fn returns_fill_a_call(&self) -> bool {
        self.region.returned().len() >= MESSAGE_PAGES_MAX
    }
}

impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What a receive call brought.
#[derive(Debug)]
pub(in crate::kernel) enum Received {
    /// A request: answer `id`.
    Request {
        id: u64,
        peer: SocketAddr,
        message: Bpages,
    },
    /// The response to the call with this cookie.
    Response { cookie: u64, message: Bpages },
    /// The call with this cookie has failed.
    Failed { cookie: u64, error: io::Error },
}

impl Received {
    /// Bytes of the message, if it is one.
    pub(in crate::kernel) const fn len(&self) -> usize {
        match self {
            Self::Request { message, .. } | Self::Response { message, .. } => message.len,
            Self::Failed { .. } => 0,
        }
    }
}

impl Region {
    /// Reserves address space for `bytes`, rounded up to whole pages.
    pub(in crate::kernel) fn new(bytes: usize) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            memory: Mmap::map(bytes.next_multiple_of(PAGE_BYTES))?,
            returned: Mutex::default(),
            lent: AtomicUsize::new(0),
        }))
    }

    fn received(
        self: &Arc<Self>,
        len: usize,
        peer: Option<SocketAddr>,
        args: &ReceiveArgs,
    ) -> io::Result<Received> {
        let message = Bpages::new(self, len, args)?;
        if args.id & 1 == 0 {
            let cookie = args.completion_cookie;
            return Ok(Received::Response { cookie, message });
        }
        let peer = peer.ok_or_else(|| invalid("a request came without an address".to_owned()))?;
        let id = args.id;
        Ok(Received::Request { id, peer, message })
    }

    fn failed(&self, error: io::Error, args: &ReceiveArgs) -> io::Result<Received> {
        // The module takes pages before anything else and then sets the count to 0; if a call did not
        // get that far they are still ours. Source: homa_plumbing.c, `homa_recvmsg`.
        let unreturned = args.page_offsets.iter().take(args.page_count as usize);
        self.returned().extend(unreturned);
        if args.id != 0 && args.id & 1 == 0 {
            let cookie = args.completion_cookie;
            return Ok(Received::Failed { cookie, error });
        }
        Err(error)
    }

    /// The arguments of a receive call, with pages to hand back.
    fn receive_args(&self) -> ReceiveArgs {
        let mut args = ReceiveArgs::default();
        let mut returned = self.returned();
        for slot in &mut args.page_offsets {
            let Some(offset) = returned.pop() else { break };
            *slot = offset;
            args.page_count += 1;
        }
        args
    }

    fn returned(&self) -> MutexGuard<'_, Vec<u32>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `pages` as lent; false if that would be too many.
    fn lend(&self, pages: usize) -> bool {
        let max = self.memory.len() / PAGE_BYTES / 2;
        self.lent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lent| {
                lent.checked_add(pages).filter(|&lent| lent <= max)
            })
            .is_ok()
    }
}

/// A message in the region, and the right to read it.
#[derive(Debug)]
pub(in crate::kernel) struct Bpages {
    region: Arc<Region>,
    offsets: [u32; MESSAGE_PAGES_MAX],
    count: usize,
    /// Bytes of the message.
    len: usize,
}

impl Bpages {
    /// Takes over the pages that `args` names for a message of `len` bytes, after a look whether that
    /// can be.
    fn new(region: &Arc<Region>, len: usize, args: &ReceiveArgs) -> io::Result<Self> {
        let count = args.page_count as usize;
        let pages = Self {
            region: Arc::clone(region),
            offsets: args.page_offsets,
            count: count.min(MESSAGE_PAGES_MAX),
            len,
        };
        let within = |(offset, bytes)| region.memory.len().checked_sub(offset) >= Some(bytes);
        if len == 0
            || count > MESSAGE_PAGES_MAX
            || len.div_ceil(PAGE_BYTES) != count
            || !pages.pieces().all(within)
        {
            return Err(invalid(format!(
                "a message of {len} bytes cannot lie at {:?}",
                pages.pieces().collect::<Vec<_>>()
            )));
        }
        Ok(pages)
    }

    /// Offset and length of each piece of the message: full pages and a rest.
    fn pieces(&self) -> impl Iterator<Item = (usize, usize)> {
        let offsets = self.offsets.iter().take(self.count);
        offsets.enumerate().map(|(i, &offset)| {
            let left = self.len.saturating_sub(i * PAGE_BYTES);
            (offset as usize, left.min(PAGE_BYTES))
        })
    }

    /// Where the message starts, if it is in one piece.
    fn contiguous(&self) -> Option<usize> {
        let mut pieces = self.pieces();
        let (start, len) = pieces.next()?;
        let mut end = start + len;
        for (offset, len) in pieces {
            if offset != end {
                return None;
            }
            end += len;
        }
        Some(start)
    }

    fn read(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: `self` holds the pages of one message that the module has delivered, and hands them
        // back when it is dropped; callers name bytes of that message. The module doesn't write
        // delivered pages.
        unsafe { self.region.memory.bytes(offset, len) }
    }

    /// The message. Lent from the region if it is in one piece, fills at least half of the pages that
    /// it keeps, and not too many are lent already; else a copy.
    pub(in crate::kernel) fn into_bytes(self) -> Bytes {
        let fills = self.len * 2 >= self.count * PAGE_BYTES;
        match self.contiguous() {
            Some(start) if fills && self.region.lend(self.count) => {
                Bytes::from_owner(BorrowedBpages { pages: self, start })
            }
            _ => self.copied(),
        }
    }

    fn copied(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.len);
        for (offset, len) in self.pieces() {
            bytes.extend_from_slice(self.read(offset, len));
        }
        bytes.into()
    }
}

impl Drop for Bpages {
    fn drop(&mut self) {
        let offsets = self.offsets.iter().take(self.count);
        self.region.returned().extend(offsets);
    }
}

/// A message in one piece that the application reads in place.
struct BorrowedBpages {
    pages: Bpages,
    start: usize,
}

impl AsRef<[u8]> for BorrowedBpages {
    fn as_ref(&self) -> &[u8] {
        self.pages.read(self.start, self.pages.len)
    }
}

impl Drop for BorrowedBpages {
    fn drop(&mut self) {
        let pages = &self.pages;
        pages.region.lent.fetch_sub(pages.count, Ordering::Relaxed);
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    const PAGE: u32 = 1 << 16;

    fn region(pages: usize) -> Arc<Region> {
        Region::new(pages * PAGE_BYTES).unwrap()
    }

    fn args(id: u64, offsets: &[u32]) -> ReceiveArgs {
        let mut args = ReceiveArgs {
            id,
            completion_cookie: 7,
            page_count: u32::try_from(offsets.len()).unwrap(),
            ..ReceiveArgs::default()
        };
        args.page_offsets[..offsets.len()].copy_from_slice(offsets);
        args
    }

    fn pages(region: &Arc<Region>, len: usize, offsets: &[u32]) -> Bpages {
        Bpages::new(region, len, &args(2, offsets)).unwrap()
    }

    /// Writes as the module would.
    fn fill(region: &Region, offset: usize, bytes: &[u8]) {
        let start = ptr::with_exposed_provenance_mut::<u8>(region.memory.start());
        assert!(offset + bytes.len() <= region.memory.len());
        // SAFETY: within the mapping, and no test lends the bytes it writes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(offset), bytes.len()) };
    }

    fn returned(region: &Region) -> Vec<u32> {
        let mut offsets = region.returned().clone();
        offsets.sort_unstable();
        offsets
    }

    #[test]
    fn scattered_pages_are_joined_in_order_and_go_back_at_once() {
        let region = region(8);
        let message: Vec<u8> = (0..150_000)
            .map(|i| u8::try_from(i % 251).unwrap())
            .collect();
        let offsets = [3 * PAGE, PAGE, 5 * PAGE + 100];
        for (offset, piece) in offsets.iter().zip(message.chunks(PAGE_BYTES)) {
            fill(&region, *offset as usize, piece);
        }
        let bytes = pages(&region, message.len(), &offsets).into_bytes();
        assert_eq!(bytes, message);
        assert_eq!(returned(&region), [PAGE, 3 * PAGE, 5 * PAGE + 100]);
    }

    #[test]
    fn a_message_in_one_piece_is_lent_and_goes_back_when_its_last_slice_is_dropped() {
        let region = region(8);
        fill(&region, 2 * PAGE_BYTES + 99_999, b"x");
        let bytes = pages(&region, 100_000, &[2 * PAGE, 3 * PAGE]).into_bytes();
        let slice = bytes.slice(99_999..);
        drop(bytes);
        assert_eq!(slice, "x".as_bytes());
        assert!(returned(&region).is_empty());
        drop(slice);
        assert_eq!(returned(&region), [2 * PAGE, 3 * PAGE]);
        assert_eq!(region.lent.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_small_message_does_not_keep_the_page_it_shares() {
        let region = region(8);
        fill(&region, 500, b"small");
        let bytes = pages(&region, 5, &[500]).into_bytes();
        assert_eq!(returned(&region), [500]);
        fill(&region, 500, b"other");
        assert_eq!(bytes, "small".as_bytes());
    }

    #[test]
    fn no_more_than_half_of_the_region_is_lent_however_much_is_kept() {
        let region = region(8);
        let kept: Vec<Bytes> = (0..8)
            .map(|page| pages(&region, PAGE_BYTES, &[page * PAGE]).into_bytes())
            .collect();
        assert_eq!(region.lent.load(Ordering::Relaxed), 4);
        assert_eq!(returned(&region), [4, 5, 6, 7].map(|page| page * PAGE));
        drop(kept);
        assert_eq!(region.lent.load(Ordering::Relaxed), 0);
        assert_eq!(returned(&region).len(), 8);
    }

    #[test]
    fn pages_go_back_sixteen_a_call_and_each_once() {
        let region = region(64);
        for page in 0..20 {
            drop(pages(&region, PAGE_BYTES, &[page * PAGE]));
        }
        assert_eq!(region.returned().len(), 20);
        let first = region.receive_args();
        assert_eq!(first.page_count, 16);
        assert_eq!(region.returned().len(), 4);
        let second = region.receive_args();
        assert_eq!(second.page_count, 4);
        let mut all = [&first.page_offsets[..], &second.page_offsets[..4]].concat();
        all.sort_unstable();
        assert_eq!(all, (0..20).map(|page| page * PAGE).collect::<Vec<_>>());
        assert_eq!(region.receive_args(), ReceiveArgs::default());
    }

    #[test]
    fn pages_of_a_call_that_did_not_reach_the_module_stay_to_be_handed_back() {
        let region = region(8);
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(region.failed(refused(), &args(0, &[PAGE])).is_err());
        assert_eq!(returned(&region), [PAGE]);
        // The module has taken them and found nothing to deliver.
        assert!(region.failed(refused(), &args(0, &[])).is_err());
        assert_eq!(returned(&region), [PAGE]);
    }

    #[test]
    fn a_failed_call_is_told_from_a_failed_receive_by_its_id() {
        let region = region(8);
        let timed_out = || io::Error::from_raw_os_error(libc::ETIMEDOUT);
        match region.failed(timed_out(), &args(4, &[])).unwrap() {
            Received::Failed { cookie: 7, error } => {
                assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
            }
            other => panic!("{other:?}"),
        }
        assert!(region.failed(timed_out(), &args(0, &[])).is_err());
    }

    #[test]
    fn odd_ids_are_requests_and_even_ones_responses() {
        let region = region(8);
        let peer = Some(SocketAddr::from(([10, 0, 0, 1], 40_000)));
        let received = |id| region.received(10, peer, &args(id, &[0])).unwrap();
        assert!(matches!(received(5), Received::Request { id: 5, .. }));
        assert!(matches!(received(6), Received::Response { cookie: 7, .. }));
        assert!(region.received(10, None, &args(5, &[0])).is_err());
    }

    #[test]
    fn a_message_outside_the_region_or_of_another_size_is_refused() {
        let region = region(4);
        let refused = |len, offsets: &[u32]| Bpages::new(&region, len, &args(2, offsets)).is_err();
        assert!(refused(0, &[]));
        assert!(refused(PAGE_BYTES + 1, &[0]));
        assert!(refused(10, &[0, PAGE]));
        assert!(refused(10, &[4 * PAGE - 9]));
        assert!(refused(10, &[u32::MAX]));
        let mut many = args(2, &[0; MESSAGE_PAGES_MAX]);
        many.page_count = u32::MAX;
        assert!(Bpages::new(&region, 1_000_000, &many).is_err());
        assert!(!refused(10, &[4 * PAGE - 10]));
    }

    #[test]
    fn memory_is_read_only_within_its_bounds() {
        let memory = Mmap::map(2 * PAGE_BYTES).unwrap();
        // SAFETY: nobody writes this memory.
        let bytes = |offset, len| unsafe { memory.bytes(offset, len) };
        assert_eq!(bytes(PAGE_BYTES, PAGE_BYTES).len(), PAGE_BYTES);
        assert!(bytes(PAGE_BYTES, PAGE_BYTES + 1).is_empty());
        assert!(bytes(usize::MAX, 2).is_empty());
    }
}
