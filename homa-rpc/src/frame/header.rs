//! The fixed header of a frame.

use bytes::{Buf, Bytes};

use super::{FrameError, extension};

/// The version spoken here.
pub(crate) const VERSION: u8 = 1;

/// Length of the fixed header, in bytes.
pub(super) const HEADER_LEN: usize = 64;

/// What a frame is about. In replies the highest bit of the byte is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opens a call.
    Call,
    /// Carries a further part of a message or stream.
    Part,
    /// Asks for more of the response.
    Pull,
    /// Gives a call up.
    Cancel,
}

impl Kind {
    const REPLY: u8 = 0x80;

    pub(super) const fn request_byte(self) -> u8 {
        match self {
            Self::Call => 1,
            Self::Part => 2,
            Self::Pull => 3,
            Self::Cancel => 4,
        }
    }

    pub(super) const fn reply_byte(self) -> u8 {
        self.request_byte() | Self::REPLY
    }

    /// The kind of a request frame with this byte.
    pub(crate) const fn of_request(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Call),
            2 => Some(Self::Part),
            3 => Some(Self::Pull),
            4 => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// Bits of the flags field.
pub(super) mod flag {
    /// The message section holds a message, possibly of 0 bytes.
    pub(crate) const MESSAGE: u16 = 0x0001;
    /// Nothing follows in this direction.
    pub(crate) const END: u16 = 0x0002;
    /// The message is compressed by the encoding named in the header.
    pub(crate) const COMPRESSED: u16 = 0x0004;
    /// The message section is a fragment of a longer message.
    pub(crate) const FRAGMENT: u16 = 0x0008;
    /// The message section is a run of stream items.
    pub(crate) const ITEMS: u16 = 0x0010;
    /// The client expects exactly one message in response.
    pub(crate) const SINGLE: u16 = 0x0020;
    /// The client gives this call up by a CANCEL frame, if it does.
    pub(crate) const CANCEL_FRAME: u16 = 0x0040;
    /// The call was turned away before dispatch.
    pub(crate) const REFUSED: u16 = 0x0080;
    /// The frame belongs to a call that the server does not know.
    pub(crate) const UNKNOWN_CALL: u16 = 0x0100;
    /// In replies: the initial metadata of the response are in this frame, which has nothing else that says so.
    pub(crate) const HEADERS: u16 = 0x0200;
    /// Hint in replies: Homa tells this server when a client gives an RPC up, it needs no CANCEL frames.
    pub(crate) const CANCEL_TOLD: u16 = 0x1000;
    /// Hint: the frame has a checksum, and the reply to it should have one.
    pub(crate) const CHECKSUM: u16 = 0x2000;
    /// All bits that must be understood.
    pub(super) const KNOWN: u16 = 0x03ff;
    /// A section of stream items.
    pub(crate) const ITEMS_OF_MESSAGE: u16 = MESSAGE | ITEMS;
    /// A section that is a piece of a message.
    pub(crate) const FRAGMENT_OF_MESSAGE: u16 = MESSAGE | FRAGMENT;
    /// Bits that may be ignored.
    pub(super) const IGNORABLE: u16 = 0xf000;
}

/// The fixed header, field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) flags: u16,
    pub(super) code: u8,
    pub(super) encoding: u8,
    pub(super) accepted: u16,
    pub(super) call_id: u64,
    pub(super) sequence: u32,
    pub(super) credit: u32,
    /// Requests: remaining time in nanoseconds, 0 = no limit. Replies: server load in the upper
    /// half.
    pub(super) time_or_load: u64,
    pub(super) fragment_offset: u32,
    pub(super) total_len: u32,
    pub(super) path_len: u16,
    pub(super) extensions_len: u16,
    pub(super) initial_len: u32,
    pub(super) trailing_len: u32,
    pub(super) status_message_len: u32,
    pub(super) details_len: u32,
    pub(super) message_len: u32,
}

impl Header {
    /// Takes the header off `frame` and checks that the lengths add up to what is left, that nothing in the
    /// extensions stands against reading on, and the checksum, if there is one.
    pub(super) fn decode(frame: &mut Bytes) -> Result<Self, FrameError> {
        match frame.first() {
            Some(&VERSION) => {}
            Some(&version) => return Err(FrameError::Version(version)),
            None => {
                return Err(FrameError::Header {
                    have: 0,
                    need: HEADER_LEN,
                });
            }
        }
        let Some(mut bytes) = frame.get(1..HEADER_LEN) else {
            return Err(FrameError::Header {
                have: frame.len(),
                need: HEADER_LEN,
            });
        };
        // The getters panic on short input; the length was checked above.
        let header = Self {
            kind: bytes.get_u8(),
            flags: bytes.get_u16(),
            code: bytes.get_u8(),
            encoding: bytes.get_u8(),
            accepted: bytes.get_u16(),
            call_id: bytes.get_u64(),
            sequence: bytes.get_u32(),
            credit: bytes.get_u32(),
            time_or_load: bytes.get_u64(),
            fragment_offset: bytes.get_u32(),
            total_len: bytes.get_u32(),
            path_len: bytes.get_u16(),
            extensions_len: bytes.get_u16(),
            initial_len: bytes.get_u32(),
            trailing_len: bytes.get_u32(),
            status_message_len: bytes.get_u32(),
            details_len: bytes.get_u32(),
            message_len: bytes.get_u32(),
        };
        header.check(frame.len() - HEADER_LEN)?;
        let extensions_at = HEADER_LEN + usize::from(header.path_len);
        extension::check(
            frame,
            extensions_at..extensions_at + usize::from(header.extensions_len),
            header.flags & flag::CHECKSUM != 0,
        )?;
        frame.advance(HEADER_LEN);
        Ok(header)
    }

    fn check(&self, have: usize) -> Result<(), FrameError> {
        let unknown = self.flags & !(flag::KNOWN | flag::IGNORABLE);
        if unknown != 0 {
            return Err(FrameError::Flags(unknown));
        }
        let need = u64::from(self.path_len)
            + u64::from(self.extensions_len)
            + u64::from(self.initial_len)
            + u64::from(self.trailing_len)
            + u64::from(self.status_message_len)
            + u64::from(self.details_len)
            + u64::from(self.message_len);
        let have = have as u64;
        if need != have {
            return Err(FrameError::Length { have, need });
        }
        Ok(())
    }

    /// The header's bytes.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut at = out.as_mut_slice();
        put(&mut at, &[VERSION, self.kind]);
        put(&mut at, &self.flags.to_be_bytes());
        put(&mut at, &[self.code, self.encoding]);
        put(&mut at, &self.accepted.to_be_bytes());
        put(&mut at, &self.call_id.to_be_bytes());
        put(&mut at, &self.sequence.to_be_bytes());
        put(&mut at, &self.credit.to_be_bytes());
        put(&mut at, &self.time_or_load.to_be_bytes());
        put(&mut at, &self.fragment_offset.to_be_bytes());
        put(&mut at, &self.total_len.to_be_bytes());
        put(&mut at, &self.path_len.to_be_bytes());
        put(&mut at, &self.extensions_len.to_be_bytes());
        put(&mut at, &self.initial_len.to_be_bytes());
        put(&mut at, &self.trailing_len.to_be_bytes());
        put(&mut at, &self.status_message_len.to_be_bytes());
        put(&mut at, &self.details_len.to_be_bytes());
        put(&mut at, &self.message_len.to_be_bytes());
        debug_assert!(at.is_empty(), "the fields fill the header");
        out
    }
}

fn put(out: &mut &mut [u8], bytes: &[u8]) {
    if let Some((head, tail)) = std::mem::take(out).split_at_mut_checked(bytes.len()) {
        head.copy_from_slice(bytes);
        *out = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_a_round_trip_with_every_field_in_its_place() {
        let header = Header {
            kind: 0x81,
            flags: flag::MESSAGE | flag::END,
            code: 5,
            encoding: 6,
            accepted: 0x0708,
            call_id: 0x0910_1112_1314_1516,
            sequence: 0x1718_1920,
            credit: 0x2122_2324,
            time_or_load: 0x2526_2728_2930_3132,
            fragment_offset: 0x3334_3536,
            total_len: 0x3738_3940,
            path_len: 1,
            extensions_len: 8, // two empty ones of type 0
            initial_len: 3,
            trailing_len: 4,
            status_message_len: 5,
            details_len: 6,
            message_len: 7,
        };
        let bytes = header.encode();
        assert_eq!(bytes[..8], [1, 0x81, 0, 3, 5, 6, 7, 8]);
        assert_eq!(bytes[60..], [0, 0, 0, 7]);
        let mut frame = Bytes::from([bytes.as_slice(), &[0; 34]].concat());
        assert_eq!(Header::decode(&mut frame), Ok(header));
        assert_eq!(frame.len(), 34);
    }

    #[test]
    fn ignorable_flags_are_ignored_and_others_refused() {
        let mut header = Header {
            flags: 0x8000,
            ..Header::default()
        };
        let decode = |header: &Header| Header::decode(&mut header.encode().to_vec().into());
        assert!(decode(&header).is_ok());
        header.flags = 0x0400;
        assert_eq!(decode(&header), Err(FrameError::Flags(0x0400)));
    }

    #[test]
    fn lengths_that_overflow_32_bits_together_are_refused() {
        let header = Header {
            initial_len: u32::MAX,
            trailing_len: u32::MAX,
            message_len: 2,
            ..Header::default()
        };
        let error = Header::decode(&mut header.encode().to_vec().into());
        let need = 2 * u64::from(u32::MAX) + 2;
        assert_eq!(error, Err(FrameError::Length { have: 0, need }));
    }
}
