//! RPC frames as no client makes them, by `homa-rpc/WIRE.md`.

use super::random::Random;

/// Bytes of a frame before its sections.
const HEADER_BYTES: usize = 64;
const PATH: &[u8] = b"/bench.Bench/Echo";
/// The message `body: "hostile"`.
const MESSAGE: &[u8] = b"\x0a\x07hostile";
const CALL: u8 = 1;
/// MESSAGE, END, SINGLE.
const UNARY: u16 = 0x0023;
/// MESSAGE, FRAGMENT, SINGLE: a piece of the one message.
const PIECE: u16 = 0x0029;
/// Offset of the total length of a message of which a frame has a piece.
const TOTAL_AT: usize = 36;
/// Bytes of a piece at most: the frame fits one packet.
const PIECE_BYTES_MAX: usize = 1_200;
/// Length of a message that comes in pieces, in bytes: the default limit at most.
const TOTAL: std::ops::RangeInclusive<usize> = 1 << 20..=4 << 20;
/// Offsets of the lengths of sections that have four bytes.
const LENGTHS_AT: [usize; 5] = [44, 48, 52, 56, 60];
/// Lengths that lie where readers go wrong.
const LENGTHS: [u32; 6] = [
    1,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0xffff_ffbf,
    65_537,
];

/// A good CALL with this initial metadata.
fn call(call_id: u64, metadata: &[u8]) -> Vec<u8> {
    call_with(UNARY, call_id, metadata, MESSAGE)
}

/// A CALL with the first piece of a message.
pub(super) fn first_piece(random: &mut Random) -> Vec<u8> {
    let len = 1 + random.below(PIECE_BYTES_MAX);
    let piece = random.bytes(len);
    let mut frame = call_with(PIECE, random.next(), b"", &piece);
    let total = TOTAL.start() + random.below(TOTAL.end() - TOTAL.start());
    if let Some(field) = frame.get_mut(TOTAL_AT..TOTAL_AT + 4) {
        field.copy_from_slice(&u32::try_from(total).unwrap_or(u32::MAX).to_be_bytes());
    }
    frame
}

fn call_with(flags: u16, call_id: u64, metadata: &[u8], message: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, CALL];
    frame.extend(flags.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(call_id.to_be_bytes());
    frame.extend([0; 24]);
    frame.extend(u16::try_from(PATH.len()).unwrap_or_default().to_be_bytes());
    frame.extend([0; 2]);
    for length in [metadata.len(), 0, 0, 0, message.len()] {
        frame.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
    debug_assert_eq!(frame.len(), HEADER_BYTES);
    frame.extend(PATH);
    frame.extend(metadata);
    frame.extend(message);
    frame
}

/// Pairs that say they are longer than they are, or that there is no end of.
fn metadata(random: &mut Random) -> Vec<u8> {
    match random.below(3) {
        0 => b"\0\x01\xff\xff\xff\xffkv".to_vec(),
        1 => b"\0\x01\0\0\0\0k".repeat(600),
        _ => random.bytes(40),
    }
}

/// A frame that is wrong somewhere, or made of nothing but chance.
pub(super) fn hostile(random: &mut Random) -> Vec<u8> {
    let id = random.next();
    let good = call(id, b"");
    match random.below(7) {
        0 => {
            let mut frame = good;
            random.flip_bits(&mut frame);
            frame
        }
        1 => {
            let mut frame = good;
            frame.truncate(1 + random.below(HEADER_BYTES + PATH.len()));
            frame
        }
        2 => {
            let len = 1 + random.below(600);
            [good, random.bytes(len)].concat()
        }
        3 => {
            let mut frame = good;
            let at = random.pick(&LENGTHS_AT).copied().unwrap_or_default();
            let length = random.pick(&LENGTHS).copied().unwrap_or_default();
            if let Some(field) = frame.get_mut(at..at + 4) {
                field.copy_from_slice(&length.to_be_bytes());
            }
            frame
        }
        4 => {
            let mut frame = good;
            // PART, PULL, CANCEL, replies, and kinds that there are not; another version at times.
            let (kind, version) = (random.byte(), 1 + u8::from(random.below(4) == 0));
            if let Some(start) = frame.get_mut(..2) {
                start.copy_from_slice(&[version, kind]);
            }
            frame
        }
        5 => call(id, &metadata(random)),
        _ => {
            let len = 1 + random.below(1_300);
            random.bytes(len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_never_empty_and_fit_one_packet_or_two() {
        let mut random = Random::new(5);
        for _ in 0..10_000 {
            let len = hostile(&mut random).len();
            assert!((1..=5_000).contains(&len), "{len}");
        }
    }

    #[test]
    fn a_first_piece_says_that_more_follows() {
        let mut random = Random::new(6);
        for _ in 0..1_000 {
            let frame = first_piece(&mut random);
            assert_eq!(&frame[..4], [1, 1, 0, 0x29]);
            let total = u32::from_be_bytes(frame[36..40].try_into().unwrap()) as usize;
            let piece = frame.len() - HEADER_BYTES - PATH.len();
            assert!((1..=PIECE_BYTES_MAX).contains(&piece), "{piece}");
            assert!(piece < total && TOTAL.contains(&total), "{total}");
        }
    }

    #[test]
    fn a_good_call_is_as_the_specification_has_it() {
        let frame = call(0x1122_3344_5566_7788, b"\0\x01\0\0\0\x01kv");
        assert_eq!(&frame[..4], [1, 1, 0, 0x23]);
        assert_eq!(&frame[8..16], 0x1122_3344_5566_7788_u64.to_be_bytes());
        assert_eq!(&frame[40..48], [0, 17, 0, 0, 0, 0, 0, 8]);
        assert_eq!(&frame[64..81], PATH);
        assert_eq!(&frame[frame.len() - MESSAGE.len()..], MESSAGE);
    }
}
