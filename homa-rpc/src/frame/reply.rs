//! Frames from server to client.

use bytes::Bytes;
use homa_transport::Message;
use http::HeaderMap;

use super::header::{HEADER_LEN, Header, Kind, flag};
use super::request::{extensions_len, finish, unary_only};
use super::{FrameError, section, too_long};
use crate::message::metadata::Metadata;
use crate::message::status::{Code, Status};
use crate::util::thread_buffer;

/// What a reply says besides its message.
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
    /// HTTP headers of the response; those of the protocol are left out.
    pub(crate) initial: &'a HeaderMap,
    /// HTTP trailers of the response; those of the protocol are left out.
    pub(crate) trailing: &'a HeaderMap,
    /// How the call ended; `None` is success. Its metadata is not looked at.
    pub(crate) status: Option<&'a Status>,
}

/// The reply to a frame. RESOURCE_EXHAUSTED if it would be longer than `max` bytes.
pub(crate) fn encode_reply(
    head: ReplyHead<'_>,
    message: Option<Bytes>,
    max: usize,
) -> Result<Message, Status> {
    let text = head.status.map_or("", Status::message);
    let details = head.status.map_or(&[][..], |status| status.details());
    let mut flags = flag::END;
    if message.is_some() {
        flags |= flag::MESSAGE;
    }
    if head.status.is_some_and(Status::is_refused) {
        flags |= flag::REFUSED;
    }
    if head.cancel_told {
        flags |= flag::CANCEL_TOLD;
    }
    if head.checksum {
        flags |= flag::CHECKSUM;
    }
    let message = message.unwrap_or_default();
    let initial_len = section::metadata_len(head.initial)?;
    let trailing_len = section::metadata_len(head.trailing)?;
    let sections_len = initial_len + trailing_len + text.len() + details.len();
    let extensions_len = extensions_len(head.checksum);
    let frame_len = HEADER_LEN + usize::from(extensions_len) + sections_len + message.len();
    let too_long = |_| too_long("response", frame_len, message.len(), max);
    if frame_len > max {
        return Err(too_long(()));
    }
    let len = |len: usize| u32::try_from(len).map_err(|_| too_long(()));
    let header = Header {
        kind: head.kind.reply_byte(),
        flags,
        code: head.status.map_or(0, |status| status.code().number()),
        call_id: head.call_id,
        time_or_load: u64::from(head.load) << 32,
        extensions_len,
        initial_len: len(initial_len)?,
        trailing_len: len(trailing_len)?,
        status_message_len: len(text.len())?,
        details_len: len(details.len())?,
        message_len: len(message.len())?,
        ..Header::default()
    };
    thread_buffer::with(sections_len, |sections| {
        section::put_metadata(sections, head.initial)?;
        section::put_metadata(sections, head.trailing)?;
        sections.extend_from_slice(text.as_bytes());
        sections.extend_from_slice(details);
        Ok(finish(&header, "", sections, message))
    })
}

/// A reply, checked.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) initial: HeaderMap,
    pub(crate) trailing: HeaderMap,
    pub(crate) message: Option<Bytes>,
    /// How the call ended; `None` is success. Its metadata is [`trailing`](Self::trailing).
    pub(crate) status: Option<Status>,
    /// Homa tells the server when this side gives an RPC up.
    pub(crate) cancel_told: bool,
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
    unary_only(&header)?;
    let initial = section::take_u32(&mut frame, header.initial_len, "metadata")?;
    let trailing = section::take_u32(&mut frame, header.trailing_len, "metadata")?;
    let text = section::take_u32(&mut frame, header.status_message_len, "status message")?;
    let details = section::take_u32(&mut frame, header.details_len, "status details")?;
    let initial = section::read_metadata(initial)?;
    let trailing = section::read_metadata(trailing)?;
    let status = read_status(&header, &text, details, &trailing)?;
    Ok(Reply {
        initial,
        trailing,
        message: (header.flags & flag::MESSAGE != 0).then_some(frame),
        status,
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
            initial: &initial,
            trailing: &trailing,
            status,
        };
        let message = message.map(Bytes::from_static);
        encode_reply(head, message, MAX).unwrap().into_bytes()
    }

    #[test]
    fn reply_with_a_message_survives_a_round_trip() {
        for message in [b"".as_slice(), b"answer"] {
            let frame = encode(None, Some(message));
            let reply = decode_reply(frame, Kind::Call, 42).unwrap();
            assert_eq!(reply.message.unwrap(), message);
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
        assert_eq!(reply.message, None);
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
                initial: &none,
                trailing: &none,
                status: Some(&Status::aborted("why")),
            };
            let good = encode_reply(head, Some(Bytes::from_static(b"answer")), MAX);
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
            initial: &none,
            trailing: &none,
            status: None,
        };
        for (len, fits) in [
            (MAX - HEADER_LEN - 1, true),
            (MAX - HEADER_LEN, true),
            (MAX - HEADER_LEN + 1, false),
        ] {
            match encode_reply(head, Some(vec![0; len].into()), MAX) {
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
