//! Packets: bytes to typed views and back. No state.

/// The bytes of one header, held inline.
#[derive(Clone, Copy, Debug)]
pub struct HeaderBytes {
    bytes: [u8; 80],
    len: u8,
}

impl HeaderBytes {
    /// The header.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}
