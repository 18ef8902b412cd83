//! What can be told of a request frame before it is checked.

use super::header::{HEADER_LEN, Kind, flag};

/// The parts of a request frame that decide what is done with it, without a check of anything else.
///
/// Kind and call id have their places in every version, so that every frame can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peek<'a> {
    /// CALL if it cannot be told.
    pub(crate) kind: Kind,
    /// 0 if it cannot be told.
    pub(crate) call_id: u64,
    /// A CALL with a time limit.
    pub(crate) has_timeout: bool,
    pub(crate) has_checksum: bool,
    /// A CALL behind which the client sends nothing but PULLs.
    pub(crate) is_whole: bool,
    /// What stands where the path of a CALL does.
    path: &'a [u8],
    /// Bytes of the frame without its message, or its piece of one.
    pub(crate) head_len: usize,
}

impl<'a> Peek<'a> {
    pub(crate) fn at(frame: &'a [u8]) -> Self {
        let number = |at: usize| {
            let bytes = frame.get(at..)?.first_chunk()?;
            Some(u64::from_be_bytes(*bytes))
        };
        let path_len = frame.get(40..).and_then(|rest| rest.first_chunk());
        let path_len = path_len.map_or(0, |len| u16::from_be_bytes(*len));
        let message_len = frame.get(60..).and_then(|rest| rest.first_chunk());
        let message_len = message_len.map_or(0, |len| u32::from_be_bytes(*len)) as usize;
        let flags = frame.get(2..).and_then(|rest| rest.first_chunk());
        let flags = flags.map_or(flag::END, |flags| u16::from_be_bytes(*flags));
        Self {
            kind: frame
                .get(1)
                .and_then(|kind| Kind::of_request(*kind))
                .unwrap_or(Kind::Call),
            call_id: number(8).unwrap_or(0),
            has_timeout: number(24).is_some_and(|nanos| nanos != 0),
            has_checksum: flags & flag::CHECKSUM != 0,
            is_whole: flags & (flag::END | flag::FRAGMENT) == flag::END,
            path: frame
                .get(HEADER_LEN..HEADER_LEN + usize::from(path_len))
                .unwrap_or_default(),
            head_len: frame.len().saturating_sub(message_len),
        }
    }

    /// Name of the service that a CALL seems to be for.
    pub(crate) fn service(&self) -> Option<&'a str> {
        let path = self.path.strip_prefix(b"/")?;
        str::from_utf8(path.split(|byte| *byte == b'/').next()?).ok()
    }
}
