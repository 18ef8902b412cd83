//! What a frame holds of a message or a stream.

use bytes::Bytes;
use homa_transport::Message;

use super::FrameError;
use super::header::{Header, flag};

/// Length of what stands in front of each item: one byte that says whether it is compressed, and its length.
pub(crate) const ITEM_HEAD_LEN: usize = 5;

/// The message section of a frame. `B` is [`Bytes`] in frames that came, [`Message`] in those to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Content<B = Bytes> {
    /// There is none.
    #[default]
    None,
    /// A whole message.
    Message(B),
    /// A run of whole stream items, each behind its head.
    Items(B),
    /// A piece of a message that does not fit into one frame.
    Fragment {
        piece: B,
        /// Where the piece begins in the message.
        offset: u32,
        /// Length of the whole message.
        total: u32,
    },
}

impl Content {
    /// What the section `bytes` of a frame with this header holds.
    pub(super) fn read(header: &Header, bytes: Bytes) -> Result<Self, FrameError> {
        if header.flags & flag::COMPRESSED != 0 || header.encoding != 0 {
            return Err(FrameError::Unsupported("a message encoding"));
        }
        let is_fragment = header.flags & flag::FRAGMENT != 0;
        if !is_fragment && (header.fragment_offset != 0 || header.total_len != 0) {
            return Err(FrameError::Content(
                "the fields of a fragment and no FRAGMENT",
            ));
        }
        let flags = header.flags & (flag::MESSAGE | flag::ITEMS | flag::FRAGMENT);
        match (flags, bytes.is_empty()) {
            (0, true) => Ok(Self::None),
            (0, false) => Err(FrameError::Content("a message and no MESSAGE")),
            (flag::MESSAGE, _) => Ok(Self::Message(bytes)),
            (flag::ITEMS_OF_MESSAGE, false) => Ok(Self::Items(bytes)),
            (flag::FRAGMENT_OF_MESSAGE, false) => {
                Self::check_fragment(header)?;
                Ok(Self::Fragment {
                    piece: bytes,
                    offset: header.fragment_offset,
                    total: header.total_len,
                })
            }
            (flag::ITEMS_OF_MESSAGE | flag::FRAGMENT_OF_MESSAGE, true) => {
                Err(FrameError::Content("items or a fragment of no bytes"))
            }
            _ => Err(FrameError::Content(
                "ITEMS or FRAGMENT without MESSAGE, or both",
            )),
        }
    }

    fn check_fragment(header: &Header) -> Result<(), FrameError> {
        let end = u64::from(header.fragment_offset) + u64::from(header.message_len);
        if end > u64::from(header.total_len) {
            return Err(FrameError::Fragment {
                end,
                total: header.total_len,
            });
        }
        Ok(())
    }

    /// The message of a run that is one item, uncompressed.
    pub(crate) fn single_item(self) -> Result<Bytes, Self> {
        let Self::Items(mut run) = self else {
            return Err(self);
        };
        match run.split_first_chunk::<ITEM_HEAD_LEN>() {
            Some(([0, len @ ..], item)) if u32::from_be_bytes(*len) as usize == item.len() => {
                Ok(run.split_off(ITEM_HEAD_LEN))
            }
            _ => Err(Self::Items(run)),
        }
    }

    /// The bytes that count against credit: those of stream items with their heads, as they are or would be.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Message(message) => ITEM_HEAD_LEN + message.len(),
            Self::Items(items) => items.len(),
            Self::Fragment { piece, .. } => piece.len(),
        }
    }
}

#[cfg(any(test, feature = "fuzz"))]
impl Content {
    /// The same, to be sent.
    pub(crate) fn to_send(&self) -> Content<Message> {
        match self.clone() {
            Self::None => Content::None,
            Self::Message(bytes) => Content::Message(bytes.into()),
            Self::Items(bytes) => Content::Items(bytes.into()),
            Self::Fragment {
                piece,
                offset,
                total,
            } => Content::Fragment {
                piece: piece.into(),
                offset,
                total,
            },
        }
    }

    /// The bytes of the section.
    pub(crate) fn section(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Message(bytes) | Self::Items(bytes) | Self::Fragment { piece: bytes, .. } => {
                bytes
            }
        }
    }
}

impl Content<Message> {
    /// The bytes that count against credit, as in [`Content::cost`].
    pub(crate) const fn cost_to_send(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Message(message) => ITEM_HEAD_LEN + message.len(),
            Self::Items(items) => items.len(),
            Self::Fragment { piece, .. } => piece.len(),
        }
    }

    /// Bytes of the same message that come behind this piece.
    pub(crate) fn following(&self) -> u64 {
        match self {
            Self::Fragment {
                piece,
                offset,
                total,
            } => u64::from(*total).saturating_sub(u64::from(*offset) + piece.len() as u64),
            _ => 0,
        }
    }

    /// A piece behind the first one of its message.
    pub(crate) const fn is_later_piece(&self) -> bool {
        matches!(self, Self::Fragment { offset: 1.., .. })
    }

    /// Puts what the header says of this into `header`, but for the length of the section.
    pub(super) const fn describe(&self, header: &mut Header) {
        header.flags |= match self {
            Self::None => 0,
            Self::Message(_) => flag::MESSAGE,
            Self::Items(_) => flag::ITEMS_OF_MESSAGE,
            Self::Fragment { offset, total, .. } => {
                header.fragment_offset = *offset;
                header.total_len = *total;
                flag::FRAGMENT_OF_MESSAGE
            }
        };
    }

    /// Length of the section.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Message(bytes) | Self::Items(bytes) | Self::Fragment { piece: bytes, .. } => {
                bytes.len()
            }
        }
    }

    /// The section.
    pub(super) fn into_section(self) -> Message {
        match self {
            Self::None => Message::new(),
            Self::Message(bytes) | Self::Items(bytes) | Self::Fragment { piece: bytes, .. } => {
                bytes
            }
        }
    }
}
