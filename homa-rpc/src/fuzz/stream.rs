//! Bytes as what happens to a call of several frames: to both of its ends, or to one whose peer does anything.

mod hostile;
mod pair;

use bytes::{BufMut, Bytes, BytesMut};
use homa_transport::Message;
use homa_transport::sim::fuzz::Source;

use crate::frame::Content;

/// Content that fits into a frame, in bytes: short, so that few bytes make many frames.
const CONTENT_MAX: usize = 200_000;

/// What waits for a reader, at most: a window and a frame.
const BUFFERED_MAX: usize = (1 << 21) + 1_000_000;

/// Does what the bytes say to a call of several frames, at both ends or at one of them. Nothing may be lost,
/// doubled or cut, and what is held stays within its bounds.
///
/// # Panics
/// If not.
pub fn stream(data: &[u8]) {
    let mut source = Source::new(data);
    match source.byte() % 4 {
        0 => hostile::to_server(&mut source),
        1 => hostile::to_client(&mut source),
        _ => pair::run(&mut source),
    }
}

/// Where the counters of a call begin.
fn start(source: &mut Source<'_>) -> u32 {
    source.pick([0, 0, u32::MAX, u32::MAX - 3, u32::MAX - 70_000, 1 << 31])
}

/// The length of an item.
fn item_len(source: &mut Source<'_>) -> usize {
    match source.byte() % 16 {
        0 => source.below(150_000),
        1 => source.pick([32_762, 32_763, 32_764, 65_531, 65_532, 131_072]),
        2..=4 => 0,
        5..=8 => usize::from(source.short()) % 3_000,
        _ => usize::from(source.byte()),
    }
}

/// An item of so many bytes that are all `byte`, behind its head.
fn put_item(out: &mut BytesMut, len: usize, byte: u8) {
    out.put_u8(0);
    out.put_u32(u32::try_from(len).unwrap());
    out.put_bytes(byte, len);
}

/// What arrives of what is sent.
fn received(content: Content<Message>) -> Content {
    match content {
        Content::None => Content::None,
        Content::Message(message) => Content::Message(message.into_bytes()),
        Content::Items(run) => Content::Items(run.into_bytes()),
        Content::Fragment {
            piece,
            offset,
            total,
        } => Content::Fragment {
            piece: piece.into_bytes(),
            offset,
            total,
        },
    }
}

/// The bytes that a reader gets, as items.
#[derive(Default)]
struct Items {
    partial: BytesMut,
}

impl Items {
    /// The items that are whole with these bytes.
    fn push(&mut self, chunk: &[u8]) -> Vec<Bytes> {
        self.partial.extend_from_slice(chunk);
        let mut items = Vec::new();
        while let Some(head) = self.partial.first_chunk::<5>() {
            let len = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
            if self.partial.len() < 5 + len {
                break;
            }
            items.push(self.partial.split_to(5 + len).split_off(5).freeze());
        }
        items
    }

    /// Nothing is left of an item that is not whole.
    fn is_whole(&self) -> bool {
        self.partial.is_empty()
    }
}
