//! The checksum of a frame, for wires whose packets have none.

use super::{EXTENSION_HEAD_LEN, FrameError};

/// Type of the extension.
pub(super) const TYPE: u16 = 1;

/// Bytes of its value: a CRC32C, big-endian, of all bytes of the frame but these.
pub(super) const VALUE_LEN: usize = 4;

/// Bytes of the whole extension.
pub(super) const LEN: u16 = 8;

/// What stands in front of the value.
const HEAD: [u8; EXTENSION_HEAD_LEN] = [0, 1, 0, 4];

/// The extension for a frame that has `before` in front of it and `after` behind it.
pub(super) fn extension<'a>(
    before: [&'a [u8]; 2],
    after: impl IntoIterator<Item = &'a [u8]>,
) -> [u8; EXTENSION_HEAD_LEN + VALUE_LEN] {
    let [header, path] = before;
    let parts = [header, path, &HEAD].into_iter().chain(after);
    let crc = parts.fold(0, crc32c::crc32c_append);
    let [a, b, c, d] = HEAD;
    let [e, f, g, h] = crc.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Compares the checksum at `at`, the place of its value, with the bytes of the frame.
pub(super) fn check(frame: &[u8], at: usize) -> Result<(), FrameError> {
    let Some((before, rest)) = frame.split_at_checked(at) else {
        return Err(FrameError::Section("checksum"));
    };
    let Some((value, after)) = rest.split_first_chunk() else {
        return Err(FrameError::Section("checksum"));
    };
    let said = u32::from_be_bytes(*value);
    let have = crc32c::crc32c_append(crc32c::crc32c(before), after);
    if said == have {
        Ok(())
    } else {
        Err(FrameError::Damaged { said, have })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: RFC 3720 (iSCSI), B.4: CRC32C of 32 bytes of zeros, of ones, and of 0 to 31.
    #[test]
    fn it_is_the_crc_of_iscsi() {
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c::crc32c(&[0; 32]).swap_bytes(), 0xaa36_918a);
        assert_eq!(crc32c::crc32c(&[0xff; 32]).swap_bytes(), 0x43ab_a862);
        assert_eq!(crc32c::crc32c(&rising).swap_bytes(), 0x4e79_dd46);
    }

    #[test]
    fn it_covers_all_bytes_but_its_own_whatever_they_are_made_of() {
        let whole: Vec<u8> = (0..=255).cycle().take(2_000).collect();
        for (header, path, sections) in [(64, 20, 30), (64, 0, 0), (0, 0, 1_999)] {
            let (before, after) = whole.split_at(header + path);
            let (sections, message) = after.split_at(sections.min(after.len()));
            let extension = extension([&before[..header], &before[header..]], [sections, message]);
            let good = [before, &extension, after].concat();
            let at = before.len() + EXTENSION_HEAD_LEN;
            assert_eq!(check(&good, at), Ok(()));
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(check(&bad, at).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_place_outside_of_the_frame_is_no_panic() {
        for at in [0, 1, 2, 9, usize::MAX] {
            assert!(check(&[1, 2, 3, 4], at).is_err(), "{at}");
        }
    }
}
