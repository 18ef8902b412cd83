//! Extensions: optional parts of a frame, which a receiver may skip if it does not know them.

use std::ops::Range;

use super::{EXTENSION_HEAD_LEN, FrameError, checksum};

/// Bit of an extension's type that says: do not go on without understanding this.
const MUST_UNDERSTAND: u16 = 0x8000;

/// Goes over the extensions of `frame`, which are its bytes `section`: each is skipped, unless it is the
/// checksum, which must be right, or must be understood. `promised` if the frame says that there is a
/// checksum.
pub(super) fn check(frame: &[u8], section: Range<usize>, promised: bool) -> Result<(), FrameError> {
    let mut at = section.start;
    let mut found = None;
    while at < section.end {
        let value_at = at + EXTENSION_HEAD_LEN;
        let head = frame.get(at..value_at.min(section.end));
        let Some(&[kind_high, kind_low, len_high, len_low]) = head else {
            return Err(FrameError::Section("extension"));
        };
        let kind = u16::from_be_bytes([kind_high, kind_low]);
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        at = value_at + len;
        if at > section.end {
            return Err(FrameError::Section("extension"));
        }
        match kind {
            checksum::TYPE if len != checksum::VALUE_LEN || found.is_some() => {
                return Err(FrameError::Section("checksum, or with two"));
            }
            checksum::TYPE => found = Some(value_at),
            kind if kind & MUST_UNDERSTAND != 0 => return Err(FrameError::Extension(kind)),
            _ => {}
        }
    }
    match found {
        Some(value_at) => checksum::check(frame, value_at),
        None if promised => Err(FrameError::Missing("checksum, which its flags promise")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a frame that consists of extensions only.
    fn check_all(frame: &[u8]) -> Result<(), FrameError> {
        check(frame, 0..frame.len(), false)
    }

    #[test]
    fn extensions_are_skipped_unless_they_must_be_understood() {
        assert_eq!(check_all(&[]), Ok(()));
        assert_eq!(check_all(&[0, 9, 0, 2, 9, 9, 0, 8, 0, 0]), Ok(()));
        let required = check_all(&[0x80, 7, 0, 0]);
        assert_eq!(required, Err(FrameError::Extension(0x8007)));
        for truncated in [&[0, 9, 0, 2, 9][..], &[0, 9, 0], &[0, 9, 0, 0, 0]] {
            assert_eq!(check_all(truncated), Err(FrameError::Section("extension")));
        }
        // What is behind the section belongs to another one.
        let behind = check(&[0, 9, 0, 2, 9, 9], 0..5, false);
        assert_eq!(behind, Err(FrameError::Section("extension")));
    }

    #[test]
    fn a_checksum_has_four_bytes_and_comes_once() {
        let extension = checksum::extension([b"", b""], []);
        assert_eq!(check_all(&extension), Ok(()));
        let twice = [extension, extension].concat();
        let malformed = Err(FrameError::Section("checksum, or with two"));
        assert_eq!(check_all(&twice), malformed);
        for len in [0, 3, 5] {
            let mut odd = vec![0, 1, 0, len];
            odd.extend(vec![0; len.into()]);
            assert_eq!(check_all(&odd), malformed);
        }
    }

    #[test]
    fn a_checksum_that_was_promised_must_be_there() {
        let other = [0, 9, 0, 1, 7];
        let missing = check(&other, 0..other.len(), true).unwrap_err();
        assert!(
            missing.to_string().contains("without a checksum"),
            "{missing}"
        );
        let mut both = other.to_vec();
        both.extend(checksum::extension([b"", &other], []));
        assert_eq!(check(&both, 0..both.len(), true), Ok(()));
        assert_eq!(check(&both, 0..both.len(), false), Ok(()));
    }
}
