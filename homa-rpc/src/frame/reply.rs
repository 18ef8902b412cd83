//! Frames from server to client.

use bytes::Bytes;
use homa_transport::Message;
use http::HeaderMap;

use super::header::{HEADER_LEN, Header, Kind, flag};
use super::request::{extensions_len, finish};
use super::{Content, FrameError, section, too_long};
use crate::message::metadata::Metadata;
use crate::message::status::{Code, Status};
use crate::util::thread_buffer;

/// What a reply says besides its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyHead<'a> {
    pub(crate) kind: Kind,
    pub(crate) call_id: u64,
    /// The frame has a checksum.
    pub(crate) checksum: bool,
    /// The server is told by Homa when a client gives an RPC up.
    pub(crate) cancel_told: bool,
    /// Calls in progress at the server.
    pub(crate) load: u32,
    /// Its place in the response.
    pub(crate) part: ReplyPart,
    /// The frame belongs to a call that the server does not know.
    pub(crate) unknown_call: bool,
    /// HTTP headers of the response; those of the protocol are left out.
    pub(crate) initial: &'a HeaderMap,
    /// HTTP trailers of the response; those of the protocol are left out.
    pub(crate) trailing: &'a HeaderMap,
    /// How the call ended; `None` is success. Its metadata is not looked at.
    pub(crate) status: Option<&'a Status>,
}

/// The place of a reply in the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplyPart {
    pub(crate) sequence: u32,
    /// Up to where the client may send its request, in bytes from its start, modulo 2^32.
    pub(crate) credit: u32,
    /// The initial metadata are here.
    pub(crate) headers: bool,
    /// The call is over.
    pub(crate) end: bool,
}

impl ReplyPart {
    /// A reply that is the whole response.
    pub(crate) const WHOLE: Self = Self {
        sequence: 0,
        credit: 0,
        headers: false,
        end: true,
    };
}

/// Bytes of a reply with this head, without its content. As [`encode_reply`] fails.
pub(crate) fn reply_overhead(head: &ReplyHead<'_>) -> Result<usize, Status> {
    let text = head.status.map_or("", Status::message);
    let details = head.status.map_or(0, |status| status.details().len());
    let metadata_len = section::metadata_len(head.initial)? + section::metadata_len(head.trailing)?;
    let extensions_len = usize::from(extensions_len(head.checksum));
    Ok(HEADER_LEN + extensions_len + metadata_len + text.len() + details)
}

/// The reply to a frame. RESOURCE_EXHAUSTED if it would be longer than `max` bytes.
pub(crate) fn encode_reply(
    head: ReplyHead<'_>,
    content: Content<Message>,
    max: usize,
) -> Result<Message, Status> {
    let text = head.status.map_or("", Status::message);
    let details = head.status.map_or(&[][..], |status| status.details());
    let mut flags = 0;
    for (is_set, flag) in [
        (head.part.end, flag::END),
        (head.part.headers, flag::HEADERS),
        (head.status.is_some_and(Status::is_refused), flag::REFUSED),
        (head.unknown_call, flag::UNKNOWN_CALL),
        (head.cancel_told, flag::CANCEL_TOLD),
        (head.checksum, flag::CHECKSUM),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    let initial_len = section::metadata_len(head.initial)?;
    let trailing_len = section::metadata_len(head.trailing)?;
    let sections_len = initial_len + trailing_len + text.len() + details.len();
    let extensions_len = extensions_len(head.checksum);
    let frame_len = HEADER_LEN + usize::from(extensions_len) + sections_len + content.len();
    let too_long = |_| too_long("response", frame_len, content.len(), max);
    if frame_len > max {
        return Err(too_long(()));
    }
    let len = |len: usize| u32::try_from(len).map_err(|_| too_long(()));
    let mut header = Header {
        kind: head.kind.reply_byte(),
        flags,
        code: head.status.map_or(0, |status| status.code().number()),
        call_id: head.call_id,
        sequence: head.part.sequence,
        credit: head.part.credit,
        time_or_load: u64::from(head.load) << 32,
        extensions_len,
        initial_len: len(initial_len)?,
        trailing_len: len(trailing_len)?,
        status_message_len: len(text.len())?,
        details_len: len(details.len())?,
        message_len: len(content.len())?,
        ..Header::default()
    };
    content.describe(&mut header);
    thread_buffer::with(sections_len, |sections| {
        section::put_metadata(sections, head.initial)?;
        section::put_metadata(sections, head.trailing)?;
        sections.extend_from_slice(text.as_bytes());
        sections.extend_from_slice(details);
        Ok(finish(&header, "", sections, content.into_section()))
    })
}

/// A reply, checked.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) part: ReplyPart,
    pub(crate) initial: HeaderMap,
    pub(crate) trailing: HeaderMap,
    pub(crate) content: Content,
    /// How the call ended; `None` is success. Its metadata is [`trailing`](Self::trailing).
    pub(crate) status: Option<Status>,
    /// The server does not know the call.
    pub(crate) unknown_call: bool,
    /// Homa tells the server when this side gives an RPC up.
    pub(crate) cancel_told: bool,
}

impl Reply {
    /// The message, if this is the whole response to a unary call; that can have none.
    pub(crate) fn take_whole(&mut self) -> Option<Option<Bytes>> {
        if !self.part.end || self.part.sequence != 0 {
            return None;
        }
        match std::mem::take(&mut self.content) {
            Content::None => Some(None),
            Content::Message(message) => Some(Some(message)),
            content => match content.single_item() {
                Ok(message) => Some(Some(message)),
                Err(content) => {
                    self.content = content;
                    None
                }
            },
        }
    }
}

/// Reads the reply to the frame of `kind` of call `call_id`.
pub(crate) fn decode_reply(frame: Bytes, kind: Kind, call_id: u64) -> Result<Reply, FrameError> {
    let mut frame = frame;
    let header = Header::decode(&mut frame)?;
    if header.kind != kind.reply_byte() {
        return Err(FrameError::Kind(header.kind));
    }
    // A server that could not read the call id answers with 0 and an error.
    if header.call_id != call_id && !(header.call_id == 0 && header.code != 0) {
        return Err(FrameError::CallId {
            have: header.call_id,
            want: call_id,
        });
    }
    if header.path_len != 0 {
        return Err(FrameError::Section("reply: it has a path"));
    }
    section::take(&mut frame, header.extensions_len.into(), "extensions")?;
    let initial = section::take_u32(&mut frame, header.initial_len, "metadata")?;
    let trailing = section::take_u32(&mut frame, header.trailing_len, "metadata")?;
    let text = section::take_u32(&mut frame, header.status_message_len, "status message")?;
    let details = section::take_u32(&mut frame, header.details_len, "status details")?;
    let end = header.flags & flag::END != 0;
    if !end && (header.code != 0 || header.trailing_len != 0) {
        return Err(FrameError::Content("a status and no END"));
    }
    let initial = section::read_metadata(initial)?;
    let trailing = section::read_metadata(trailing)?;
    let status = read_status(&header, &text, details, &trailing)?;
    Ok(Reply {
        part: ReplyPart {
            sequence: header.sequence,
            credit: header.credit,
            headers: header.flags & flag::HEADERS != 0,
            end,
        },
        initial,
        trailing,
        content: Content::read(&header, frame)?,
        status,
        unknown_call: header.flags & flag::UNKNOWN_CALL != 0,
        cancel_told: header.flags & flag::CANCEL_TOLD != 0,
    })
}

fn read_status(
    header: &Header,
    text: &[u8],
    details: Bytes,
    trailing: &HeaderMap,
) -> Result<Option<Status>, FrameError> {
    let text = str::from_utf8(text).map_err(|_| FrameError::StatusMessage)?;
    let status = match Code::new(header.code) {
        Some(Code::Ok) => return Ok(None),
        Some(code) => Status::with_details(code, text.to_owned(), details),
        None => Status::with_details(
            Code::Unknown,
            format!(
                "the server sent the unknown status code {}: {text}",
                header.code
            ),
            details,
        ),
    };
    let status = status.with_metadata(Metadata::from_headers(trailing.clone()));
    if header.flags & (flag::REFUSED | flag::UNKNOWN_CALL) == flag::REFUSED {
        return Ok(Some(status.refused()));
    }
    Ok(Some(status))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const MAX: usize = 1_000_000;

    fn encode(status: Option<&Status>, message: Option<&'static [u8]>) -> Bytes {
        let mut initial = HeaderMap::new();
        initial.insert("first", HeaderValue::from_static("1"));
        let mut trailing = HeaderMap::new();
        trailing.insert("last-bin", HeaderValue::from_static("AA"));
        let head = ReplyHead {
            kind: Kind::Call,
            call_id: 42,
            checksum: false,
            cancel_told: false,
            load: 3,
            part: ReplyPart::WHOLE,
            unknown_call: false,
            initial: &initial,
            trailing: &trailing,
            status,
        };
        let content = message.map_or(Content::None, |message| Content::Message(message.into()));
        encode_reply(head, content, MAX).unwrap().into_bytes()
    }

    #[test]
    fn reply_with_a_message_survives_a_round_trip() {
        for message in [b"".as_slice(), b"answer"] {
            let frame = encode(None, Some(message));
            let reply = decode_reply(frame, Kind::Call, 42).unwrap();
            assert_eq!(reply.content.section(), message);
            assert!(reply.status.is_none());
            assert_eq!(reply.initial["first"], "1");
            assert_eq!(reply.trailing["last-bin"], "AA");
        }
    }

    #[test]
    fn reply_with_a_status_survives_a_round_trip() {
        let sent = Status::with_details(Code::NotFound, "tab\t, line\n, ümläut \u{1F600}", "xyz");
        let frame = encode(Some(&sent.clone().refused()), None);
        let reply = decode_reply(frame, Kind::Call, 42).unwrap();
        assert_eq!(reply.content, Content::None);
        let status = reply.status.unwrap();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), sent.message());
        assert_eq!(status.details(), "xyz");
        assert!(status.is_refused());
        assert_eq!(
            status.metadata().get_bin("last-bin").unwrap().unwrap(),
            [0].as_slice()
        );
    }

    #[test]
    fn every_truncation_and_every_bit_flip_is_read_without_a_panic() {
        let good = encode(Some(&Status::aborted("why")), Some(b"payload"));
        for len in 0..good.len() {
            decode_reply(good.slice(..len), Kind::Call, 42).unwrap_err();
        }
        let mut refused = 0;
        for bit in 0..good.len() * 8 {
            let mut bytes = good.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refused += usize::from(decode_reply(bytes.into(), Kind::Call, 42).is_err());
        }
        assert!(refused > 300, "only {refused} flips were noticed");
    }

    #[test]
    fn every_bit_flip_of_a_reply_with_a_checksum_is_noticed_and_hints_survive() {
        let none = HeaderMap::new();
        for (checksum, cancel_told) in [(false, true), (true, false), (true, true)] {
            let head = ReplyHead {
                kind: Kind::Call,
                call_id: 42,
                checksum,
                cancel_told,
                load: 3,
                part: ReplyPart::WHOLE,
                unknown_call: false,
                initial: &none,
                trailing: &none,
                status: Some(&Status::aborted("why")),
            };
            let good = encode_reply(head, Content::Message(b"answer".as_slice().into()), MAX);
            let good = good.unwrap().into_bytes();
            let reply = decode_reply(good.clone(), Kind::Call, 42).unwrap();
            assert_eq!(reply.cancel_told, cancel_told);
            for bit in (0..good.len() * 8).filter(|_| checksum) {
                let mut bytes = good.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                decode_reply(bytes.into(), Kind::Call, 42).unwrap_err();
            }
        }
    }

    #[test]
    fn wrong_call_kind_version_and_code_are_noticed() {
        let good = encode(Some(&Status::aborted("why")), None);
        let error = decode_reply(good.clone(), Kind::Call, 43).unwrap_err();
        assert_eq!(error, FrameError::CallId { have: 42, want: 43 });
        let error = decode_reply(good.clone(), Kind::Cancel, 42).unwrap_err();
        assert_eq!(error, FrameError::Kind(0x81));
        let mut bytes = good.to_vec();
        bytes[4] = 200;
        let reply = decode_reply(bytes.clone().into(), Kind::Call, 42).unwrap();
        let status = reply.status.unwrap();
        assert_eq!(status.code(), Code::Unknown);
        assert!(status.message().contains("200") && status.message().contains("why"));
        bytes[0] = 2;
        let error = decode_reply(bytes.into(), Kind::Call, 42).unwrap_err();
        assert_eq!(error, FrameError::Version(2));
    }

    #[test]
    fn a_reply_longer_than_the_limit_is_refused_naming_both_sizes() {
        let none = HeaderMap::new();
        let head = ReplyHead {
            kind: Kind::Call,
            call_id: 1,
            checksum: false,
            cancel_told: false,
            load: 0,
            part: ReplyPart::WHOLE,
            unknown_call: false,
            initial: &none,
            trailing: &none,
            status: None,
        };
        for (len, fits) in [
            (MAX - HEADER_LEN - 1, true),
            (MAX - HEADER_LEN, true),
            (MAX - HEADER_LEN + 1, false),
        ] {
            match encode_reply(head, Content::Message(vec![0; len].into()), MAX) {
                Ok(message) => assert!(fits && message.len() == HEADER_LEN + len),
                Err(status) => {
                    assert!(!fits);
                    assert_eq!(status.code(), Code::ResourceExhausted);
                    assert!(status.message().contains("1000001"), "{status}");
                    assert!(status.message().contains("1000000"), "{status}");
                }
            }
        }
    }
}
