//! A message to send: a list of byte slices that is never joined.

use bytes::Bytes;

/// The bytes of one Homa message, as one or several slices.
///
/// A message made of several slices (a header and a payload, say) is sent without copying them
/// together. Empty slices are dropped on the way in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    first: Bytes,
    rest: Vec<Bytes>,
    len: usize,
}

impl Message {
    /// A message without bytes. It can be filled, not sent: Homa has no empty messages.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: Bytes::new(),
            rest: Vec::new(),
            len: 0,
        }
    }

    /// Appends a slice, without copying it.
    pub fn push(&mut self, part: Bytes) {
        if part.is_empty() {
            return;
        }
        self.len = self.len.saturating_add(part.len());
        if self.first.is_empty() {
            self.first = part;
        } else {
            self.rest.push(part);
        }
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True if there is no byte in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices, in order; none of them is empty.
    pub fn parts(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first)
            .filter(|first| !first.is_empty())
            .chain(&self.rest)
    }

    /// The bytes `[start, end)` as a message that shares the memory of this one.
    ///
    /// # Panics
    /// If the range does not lie within the message.
    #[must_use]
    pub fn slice(&self, start: usize, end: usize) -> Self {
        assert!(
            start <= end && end <= self.len,
            "{start}..{end} is not within 0..{}",
            self.len
        );
        let mut out = Self::new();
        let mut base = 0;
        for part in self.parts() {
            let part_end = base + part.len();
            if part_end > start && base < end {
                out.push(part.slice(start.max(base) - base..end.min(part_end) - base));
            }
            if part_end >= end {
                break;
            }
            base = part_end;
        }
        out
    }

    /// The bytes in one piece; copies only if there is more than one slice.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut joined = Vec::with_capacity(self.len);
        for part in self.parts() {
            joined.extend_from_slice(part);
        }
        joined.into()
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        let len = bytes.len();
        Self {
            first: bytes,
            rest: Vec::new(),
            len,
        }
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Message {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl FromIterator<Bytes> for Message {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let mut message = Self::new();
        for part in parts {
            message.push(part);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_parts() -> Message {
        ["abc", "", "defg", "h"]
            .into_iter()
            .map(|part| Bytes::from_static(part.as_bytes()))
            .collect()
    }

    #[test]
    fn slice_crosses_parts_without_copying() {
        let message = three_parts();
        assert_eq!(message.len(), 8);
        assert_eq!(message.parts().count(), 3);
        for start in 0..=8 {
            for end in start..=8 {
                let slice = message.slice(start, end);
                assert_eq!(slice.len(), end - start);
                assert_eq!(slice.into_bytes(), "abcdefgh".as_bytes()[start..end]);
            }
        }
    }

    #[test]
    fn one_part_is_taken_out_without_a_copy() {
        let bytes = Bytes::from(vec![1, 2, 3]);
        let pointer = bytes.as_ptr();
        assert_eq!(Message::from(bytes).into_bytes().as_ptr(), pointer);
    }

    #[test]
    #[should_panic(expected = "is not within")]
    fn slice_beyond_the_end_panics() {
        let _ = three_parts().slice(3, 9);
    }
}
