//! Memory that a socket of the module receives into.

use std::io;
use std::ptr::{self, NonNull};

/// Memory that the module writes and we read.
#[derive(Debug)]
pub(super) struct Mmap {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to no thread, and nothing here writes it.
unsafe impl Send for Mmap {}
// SAFETY: as above.
unsafe impl Sync for Mmap {}

impl Mmap {
    /// Reserves `len` bytes of address space; memory is taken when it is written.
    pub(super) fn map(len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping, at an address of the system's choice.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast()) {
            Some(address) if start != libc::MAP_FAILED => Ok(Self {
                start: address,
                len,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Address of the first byte, as a number for the module.
    pub(super) fn start(&self) -> usize {
        self.start.as_ptr().expose_provenance()
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The bytes `[offset, offset + len)`; empty if they do not lie within.
    ///
    /// # Safety
    /// Nobody may write them as long as the result is used: they belong to a message that the module
    /// has delivered and that was not handed back.
    pub(super) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return &[];
        }
        // SAFETY: within the mapping, which lives as long as `self` and begins as zeros; the caller
        // sees to it that these bytes are not written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), len) }
    }
}

impl Drop for Mmap {
    fn drop(&mut self) {
        // SAFETY: our mapping. Whoever uses its bytes holds `self`, and the module writes to it only
        // within a receive call, whose caller holds it too.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert_eq!(result, 0, "a mapping of ours can be unmapped");
    }
}
