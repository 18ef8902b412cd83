//! A message to send: a list of byte slices that is never joined.

use bytes::Bytes;

/// The bytes of one Homa message, as one or several slices.
///
/// A message made of several slices (a header and a payload, say) is sent without copying them
/// together. Empty slices are dropped on the way in.
///
/// A message can be a part of a longer whole: [`Message::with_following`] and [`Message::scheduled`] say how it
/// is to be sent then. The protocol in userspace heeds both, on every wire. The kernel module has no means for
/// either: it sends such a message like any other, and ranks what it receives by the length of each message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    first: Bytes,
    rest: Vec<Bytes>,
    len: usize,
    following: u32,
    scheduled: bool,
}

impl Message {
    /// A message without bytes. It can be filled, not sent: Homa has no empty messages.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            first: Bytes::new(),
            rest: Vec::new(),
            len: 0,
            following: 0,
            scheduled: false,
        }
    }

    /// Says that the message is a part of a longer whole of which `bytes` are still to come in later
    /// messages. It is ranked by what is left of the whole, so that many parts do not overtake what is shorter
    /// than all of them. From 4 GiB on more makes no difference.
    #[must_use]
    pub fn with_following(mut self, bytes: u64) -> Self {
        self.following = u32::try_from(bytes).unwrap_or(u32::MAX);
        self
    }

    /// Bytes of the same whole that are still to come after this message: see [`Message::with_following`].
    #[must_use]
    pub const fn following(&self) -> u32 {
        self.following
    }

    /// Lets the message go by grants: of a long one only the first packet is sent unasked, by which the
    /// receiver learns of it. So many parts of one whole, sent side by side, do not overrun its downlink.
    #[must_use]
    pub const fn scheduled(mut self) -> Self {
        self.scheduled = true;
        self
    }

    /// Whether it goes by grants: see [`Message::scheduled`].
    #[must_use]
    pub const fn is_scheduled(&self) -> bool {
        self.scheduled
    }

    /// A message that is a copy of `parts`, joined.
    ///
    /// Unlike a `Vec`, whose [`Bytes`] allocate again when they are first cloned or split, a short
    /// message takes one allocation in all.
    #[must_use]
    pub fn copy_of(parts: &[&[u8]]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        match len {
            0..=128 => Short::<128>::copy_of(parts),
            129..=256 => Short::<256>::copy_of(parts),
            257..=512 => Short::<512>::copy_of(parts),
            513..=1024 => Short::<1024>::copy_of(parts),
            _ => Bytes::from(parts.concat()),
        }
        .into()
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

    /// The bytes `[start, end)` as a message that shares the memory of this one, and is a whole by itself.
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

/// Bytes that lie beside the counter of their owners.
struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Short<N> {
    /// As many of `parts` as `N` bytes can hold.
    fn copy_of(parts: &[&[u8]]) -> Bytes {
        let (mut bytes, mut len) = ([0; N], 0);
        let mut free = bytes.as_mut_slice();
        for part in parts {
            let Some((to, rest)) = std::mem::take(&mut free).split_at_mut_checked(part.len())
            else {
                break;
            };
            to.copy_from_slice(part);
            free = rest;
            len += part.len();
        }
        Bytes::from_owner(Self { bytes, len })
    }
}

impl<const N: usize> AsRef<[u8]> for Short<N> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        let len = bytes.len();
        Self {
            first: bytes,
            len,
            ..Self::new()
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
    fn a_copy_has_the_bytes_of_all_parts_whatever_its_length() {
        for len in [0, 1, 127, 128, 129, 256, 257, 512, 513, 1024, 1025, 5000] {
            let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            let (first, second) = bytes.split_at(len / 3);
            let copy = Message::copy_of(&[first, &[], second]);
            assert_eq!(copy.len(), len);
            assert_eq!(copy.slice(len / 2, len).into_bytes(), bytes[len / 2..]);
            assert_eq!(copy.into_bytes(), bytes);
        }
    }

    #[test]
    fn what_is_said_of_a_part_stays_with_it_and_not_with_its_slices() {
        let mut part = Message::new().with_following(70_000).scheduled();
        part.push(Bytes::from_static(b"abc"));
        assert_eq!((part.following(), part.is_scheduled()), (70_000, true));
        let slice = part.slice(0, 3);
        assert_eq!((slice.following(), slice.is_scheduled()), (0, false));
        assert_eq!(part.with_following(u64::MAX).following(), u32::MAX);
    }

    #[test]
    #[should_panic(expected = "is not within")]
    fn slice_beyond_the_end_panics() {
        let _ = three_parts().slice(3, 9);
    }
}
