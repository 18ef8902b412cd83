//! Frames from client to server.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use homa_transport::Message;
use http::HeaderMap;
use http::uri::PathAndQuery;

use super::header::{HEADER_LEN, Header, Kind, flag};
use super::{Content, FrameError, checksum, section, too_long};
use crate::message::status::Status;
use crate::util::intern::{self, Cache};
use crate::util::thread_buffer;

/// Payloads up to this length are copied behind the header: cheaper than a further slice.
pub(super) const INLINE_MAX: usize = 512;

thread_local! {
    /// Paths of requests that came.
    static PATHS: RefCell<Cache<PathAndQuery>> = const { RefCell::new(Cache::new()) };
}

/// What a CALL frame says besides its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallHead<'a> {
    pub(crate) call_id: u64,
    /// Time left; `None` is no limit.
    pub(crate) timeout: Option<Duration>,
    /// The client will send a CANCEL frame if it gives the call up.
    pub(crate) cancel_frame: bool,
    /// The client expects exactly one message.
    pub(crate) single: bool,
    /// The frame and the reply to it have a checksum.
    pub(crate) checksum: bool,
    /// Bytes of the response that the client takes in the reply.
    pub(crate) credit: u32,
    /// Nothing follows.
    pub(crate) end: bool,
    /// `/service/method`.
    pub(crate) path: &'a str,
    /// HTTP headers; those of the protocol are left out.
    pub(crate) metadata: &'a HeaderMap,
}

/// The CALL frame of a call. RESOURCE_EXHAUSTED if it would be longer than `max` bytes.
pub(crate) fn encode_call(
    head: CallHead<'_>,
    content: Content<Message>,
    max: usize,
) -> Result<Message, Status> {
    let metadata_len = section::metadata_len(head.metadata)?;
    let extensions_len = extensions_len(head.checksum);
    let head_len = HEADER_LEN + head.path.len() + usize::from(extensions_len);
    let frame_len = head_len + metadata_len + content.len();
    let too_long = || too_long("call", frame_len, content.len(), max);
    if frame_len > max {
        return Err(too_long());
    }
    let mut flags = 0;
    for (is_set, flag) in [
        (head.end, flag::END),
        (head.single, flag::SINGLE),
        (head.cancel_frame, flag::CANCEL_FRAME),
        (head.checksum, flag::CHECKSUM),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    let mut header = Header {
        kind: Kind::Call.request_byte(),
        flags,
        call_id: head.call_id,
        credit: head.credit,
        time_or_load: timeout_nanos(head.timeout),
        path_len: u16::try_from(head.path.len())
            .map_err(|_| Status::internal("the method path is longer than 65,535 bytes"))?,
        extensions_len,
        initial_len: u32::try_from(metadata_len).map_err(|_| too_long())?,
        message_len: u32::try_from(content.len()).map_err(|_| too_long())?,
        ..Header::default()
    };
    content.describe(&mut header);
    thread_buffer::with(metadata_len, |sections| {
        section::put_metadata(sections, head.metadata)?;
        Ok(finish(&header, head.path, sections, content.into_section()))
    })
}

/// Bytes of a CALL frame with this head, without its content. As [`encode_call`] fails.
pub(crate) fn call_overhead(head: &CallHead<'_>) -> Result<usize, Status> {
    let metadata_len = section::metadata_len(head.metadata)?;
    let extensions_len = usize::from(extensions_len(head.checksum));
    Ok(HEADER_LEN + head.path.len() + extensions_len + metadata_len)
}

/// What a PART or PULL frame says besides its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartHead {
    pub(crate) call_id: u64,
    pub(crate) checksum: bool,
    pub(crate) sequence: u32,
    /// As in [`CallHead`].
    pub(crate) credit: u32,
    /// Nothing follows in this direction.
    pub(crate) end: bool,
}

/// A frame behind the CALL: a PULL if it carries nothing, else a PART. `content` must fit into a frame.
pub(crate) fn encode_part(head: PartHead, content: Content<Message>) -> Message {
    let kind = if head.end || content.len() > 0 {
        Kind::Part
    } else {
        Kind::Pull
    };
    let mut flags = if head.end { flag::END } else { 0 };
    flags |= if head.checksum { flag::CHECKSUM } else { 0 };
    let mut header = Header {
        kind: kind.request_byte(),
        flags,
        call_id: head.call_id,
        sequence: head.sequence,
        credit: head.credit,
        extensions_len: extensions_len(head.checksum),
        message_len: u32::try_from(content.len()).unwrap_or(u32::MAX),
        ..Header::default()
    };
    content.describe(&mut header);
    finish(&header, "", &[], content.into_section())
}

/// The frame that gives a call up.
pub(crate) fn encode_cancel(call_id: u64, checksum: bool) -> Message {
    let header = Header {
        kind: Kind::Cancel.request_byte(),
        flags: flag::END | if checksum { flag::CHECKSUM } else { 0 },
        call_id,
        extensions_len: extensions_len(checksum),
        ..Header::default()
    };
    finish(&header, "", &[], Message::new())
}

/// Bytes of the extensions of a frame with or without a checksum.
pub(super) const fn extensions_len(checksum: bool) -> u16 {
    if checksum { checksum::LEN } else { 0 }
}

/// The frame of these sections, and of the checksum that the header promises.
pub(super) fn finish(header: &Header, path: &str, sections: &[u8], message: Message) -> Message {
    let checked = header.flags & flag::CHECKSUM != 0;
    let (header, path) = (header.encode(), path.as_bytes());
    let checksum = checked.then(|| {
        let message = message.parts().map(AsRef::as_ref);
        checksum::extension([&header, path], std::iter::once(sections).chain(message))
    });
    let extensions = checksum.as_ref().map_or(&[][..], |checksum| checksum);
    let head: [&[u8]; 4] = [&header, path, extensions, sections];
    let mut parts = message.parts();
    if message.len() <= INLINE_MAX
        && let (first, None) = (parts.next(), parts.next())
    {
        let message = first.map_or(&[][..], |message| message);
        let [header, path, extensions, sections] = head;
        return Message::copy_of(&[header, path, extensions, sections, message]);
    }
    let mut out = Message::copy_of(&head);
    for part in message.parts() {
        out.push(part.clone());
    }
    out
}

/// Nanoseconds as sent: 0 means no limit, so a limit is at least 1.
fn timeout_nanos(timeout: Option<Duration>) -> u64 {
    timeout.map_or(0, |timeout| {
        u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1)
    })
}

/// A request frame, checked.
#[derive(Debug)]
pub(crate) enum Request {
    /// A call to dispatch.
    Call(Call),
    /// More of a call, or a PULL.
    Part(Part),
    /// The client gave the call up.
    Cancel,
}

/// A CALL frame.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) call_id: u64,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cancel_frame: bool,
    /// The client expects exactly one message.
    pub(crate) single: bool,
    pub(crate) path: PathAndQuery,
    pub(crate) metadata: HeaderMap,
    /// Bytes of the response that the client takes in the reply.
    pub(crate) credit: u32,
    pub(crate) content: Content,
    /// Nothing follows.
    pub(crate) end: bool,
}

impl Call {
    /// The message of a call that is whole and has exactly one; the content stays if it is anything else.
    pub(crate) fn take_message(&mut self) -> Option<Bytes> {
        if !self.end {
            return None;
        }
        match std::mem::take(&mut self.content) {
            Content::Message(message) => Some(message),
            content => match content.single_item() {
                Ok(message) => Some(message),
                Err(content) => {
                    self.content = content;
                    None
                }
            },
        }
    }
}

/// A PART or PULL frame.
#[derive(Debug)]
pub(crate) struct Part {
    /// A PULL, or a PART that is one too: the reply can wait until there is something to say.
    pub(crate) is_pull: bool,
    /// A PART, which has used up its number.
    pub(crate) carries: bool,
    pub(crate) sequence: u32,
    pub(crate) credit: u32,
    pub(crate) content: Content,
    pub(crate) end: bool,
}

/// Reads a request frame.
pub(crate) fn decode_request(mut frame: Bytes) -> Result<Request, FrameError> {
    let header = Header::decode(&mut frame)?;
    match Kind::of_request(header.kind) {
        Some(Kind::Call) => decode_call(&header, frame).map(Request::Call),
        Some(Kind::Cancel) => Ok(Request::Cancel),
        Some(Kind::Part) => decode_part(&header, frame, true).map(Request::Part),
        Some(Kind::Pull) => decode_part(&header, frame, false).map(Request::Part),
        None => Err(FrameError::Kind(header.kind)),
    }
}

fn decode_call(header: &Header, mut frame: Bytes) -> Result<Call, FrameError> {
    let path = section::take(&mut frame, header.path_len.into(), "path")?;
    section::take(&mut frame, header.extensions_len.into(), "extensions")?;
    let metadata = section::take_u32(&mut frame, header.initial_len, "metadata")?;
    no_reply_sections(header)?;
    if header.sequence != 0 {
        return Err(FrameError::Content("a CALL whose sequence is not 0"));
    }
    Ok(Call {
        call_id: header.call_id,
        timeout: (header.time_or_load != 0).then(|| Duration::from_nanos(header.time_or_load)),
        cancel_frame: header.flags & flag::CANCEL_FRAME != 0,
        single: header.flags & flag::SINGLE != 0,
        // Of a copy, so that what is remembered keeps no frame in memory.
        path: intern::intern(&PATHS, &path, || parse_path(Bytes::copy_from_slice(&path)))?,
        metadata: section::read_metadata(metadata)?,
        credit: header.credit,
        content: Content::read(header, frame)?,
        end: header.flags & flag::END != 0,
    })
}

fn decode_part(header: &Header, mut frame: Bytes, carries: bool) -> Result<Part, FrameError> {
    section::take(&mut frame, header.extensions_len.into(), "extensions")?;
    no_reply_sections(header)?;
    if header.path_len != 0 || header.initial_len != 0 {
        return Err(FrameError::Section(
            "PART or PULL: it has sections of a CALL",
        ));
    }
    let part = Part {
        is_pull: !carries || header.credit != 0,
        carries,
        sequence: header.sequence,
        credit: header.credit,
        content: Content::read(header, frame)?,
        end: header.flags & flag::END != 0,
    };
    match (carries, part.end || part.content != Content::None) {
        (true, false) => Err(FrameError::Content("a PART that carries nothing")),
        (false, true) => Err(FrameError::Content("a PULL that carries something")),
        _ => Ok(part),
    }
}

fn no_reply_sections(header: &Header) -> Result<(), FrameError> {
    match header.trailing_len | header.status_message_len | header.details_len {
        0 => Ok(()),
        _ => Err(FrameError::Section("request: it has sections of a reply")),
    }
}

/// `/service/method`, both not empty, no query.
fn parse_path(path: Bytes) -> Result<PathAndQuery, FrameError> {
    let slashes = path.iter().filter(|b| **b == b'/').count();
    let good = path.len() >= 4
        && path.starts_with(b"/")
        && !path.starts_with(b"//")
        && !path.ends_with(b"/")
        && slashes == 2
        && path.iter().all(|b| is_path_byte(*b));
    if !good {
        return Err(FrameError::Path);
    }
    PathAndQuery::from_maybe_shared(path).map_err(|_| FrameError::Path)
}

const fn is_path_byte(byte: u8) -> bool {
    let special = matches!(
        byte,
        b'?' | b'#' | b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'\\'
    );
    byte.is_ascii_graphic() && !special
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::Peek;
    use super::*;

    const MAX: usize = 1_000_000;

    fn head(metadata: &HeaderMap) -> CallHead<'_> {
        CallHead {
            call_id: 0xabcd,
            timeout: Some(Duration::from_millis(5)),
            cancel_frame: true,
            single: true,
            checksum: false,
            credit: 0,
            end: true,
            path: "/pkg.Service/Method",
            metadata,
        }
    }

    fn whole(message: Vec<u8>) -> Content<Message> {
        Content::Message(message.into())
    }

    fn good() -> Bytes {
        let mut metadata = HeaderMap::new();
        metadata.insert("k", HeaderValue::from_static("value"));
        metadata.insert("k-bin", HeaderValue::from_static("AAEC"));
        let message = encode_call(head(&metadata), whole(b"payload".to_vec()), MAX);
        message.unwrap().into_bytes()
    }

    #[test]
    fn call_survives_a_round_trip() {
        let Request::Call(mut call) = decode_request(good()).unwrap() else {
            panic!("not a call")
        };
        assert_eq!(call.call_id, 0xabcd);
        assert_eq!(call.timeout, Some(Duration::from_millis(5)));
        assert!(call.cancel_frame);
        assert_eq!(call.path, "/pkg.Service/Method");
        assert_eq!(call.metadata.len(), 2);
        assert_eq!(call.metadata.get("k-bin").unwrap(), "AAEC");
        assert_eq!(call.take_message().unwrap(), "payload");
    }

    #[test]
    fn every_truncation_and_every_bit_flip_is_read_without_a_panic() {
        let good = good();
        for len in 0..good.len() {
            decode_request(good.slice(..len)).unwrap_err();
            let id = if len < 16 { 0 } else { 0xabcd };
            let peek = Peek::at(&good[..len]);
            assert_eq!((peek.kind, peek.call_id), (Kind::Call, id));
            let has_path = len >= HEADER_LEN + "/pkg.Service/Method".len();
            let service = has_path.then_some("pkg.Service");
            assert_eq!(peek.service(), service);
            assert_eq!(peek.has_timeout, len >= 32);
        }
        let mut refused = 0;
        for bit in 0..good.len() * 8 {
            let mut bytes = good.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refused += usize::from(decode_request(bytes.into()).is_err());
        }
        assert!(refused > 200, "only {refused} flips were noticed");
    }

    #[test]
    fn every_truncation_and_every_bit_flip_of_a_frame_with_a_checksum_is_noticed() {
        let metadata = HeaderMap::new();
        let head = CallHead {
            checksum: true,
            ..head(&metadata)
        };
        let payload = vec![7; INLINE_MAX + 1];
        let call = encode_call(head, whole(payload), MAX).unwrap().into_bytes();
        let cancel = encode_cancel(77, true).into_bytes();
        for good in [call, cancel] {
            assert!(decode_request(good.clone()).is_ok());
            for len in 0..good.len() {
                decode_request(good.slice(..len)).unwrap_err();
            }
            for bit in 0..good.len() * 8 {
                let mut bytes = good.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                decode_request(bytes.into()).unwrap_err();
            }
        }
    }

    #[test]
    fn unknown_version_is_unimplemented_and_names_both() {
        let mut bytes = good().to_vec();
        bytes[0] = 9;
        let status = Status::from(decode_request(bytes.into()).unwrap_err());
        assert_eq!(status.code(), crate::Code::Unimplemented);
        assert!(status.message().contains("version 9"), "{status}");
        assert!(status.message().contains("version 1"), "{status}");
    }

    #[test]
    fn a_frame_longer_than_the_limit_is_refused_naming_both_sizes() {
        let metadata = HeaderMap::new();
        let overhead = HEADER_LEN + "/pkg.Service/Method".len();
        for (len, fits) in [
            (MAX - overhead - 1, true),
            (MAX - overhead, true),
            (MAX - overhead + 1, false),
        ] {
            let result = encode_call(head(&metadata), whole(vec![0; len]), MAX);
            match result {
                Ok(message) => assert!(fits && message.len() == overhead + len),
                Err(status) => {
                    assert!(!fits);
                    assert_eq!(status.code(), crate::Code::ResourceExhausted);
                    assert!(status.message().contains("1000001"), "{status}");
                    assert!(status.message().contains("1000000"), "{status}");
                }
            }
        }
    }

    #[test]
    fn a_long_message_is_not_copied() {
        let metadata = HeaderMap::new();
        let payload = Bytes::from(vec![7; INLINE_MAX + 1]);
        let message = encode_call(
            head(&metadata),
            Content::Message(payload.clone().into()),
            MAX,
        )
        .unwrap();
        assert_eq!(message.parts().last().unwrap().as_ptr(), payload.as_ptr());
    }

    #[test]
    fn paths_must_be_service_and_method() {
        for bad in [
            "",
            "/",
            "//",
            "/a",
            "/a/",
            "//a",
            "a/b",
            "/a/b/c",
            "/a/b?q",
            "/a/b#f",
            "/a /b",
            "/a/\u{e9}",
            "/a/b/",
        ] {
            let result = parse_path(Bytes::copy_from_slice(bad.as_bytes()));
            assert_eq!(result, Err(FrameError::Path), "{bad:?}");
        }
        assert!(parse_path(Bytes::from_static(b"/a/b")).is_ok());
    }

    #[test]
    fn a_message_encoding_is_unimplemented_and_flags_that_contradict_are_malformed() {
        for (flags, code) in [
            (flag::COMPRESSED | 3, crate::Code::Unimplemented),
            (flag::FRAGMENT, crate::Code::Internal),
            (flag::ITEMS, crate::Code::Internal),
            (flag::FRAGMENT | flag::ITEMS | 1, crate::Code::Internal),
            (flag::FRAGMENT | 1, crate::Code::Internal),
            (0, crate::Code::Internal),
        ] {
            let mut bytes = good().to_vec();
            bytes[2..4].copy_from_slice(&flags.to_be_bytes());
            let status = Status::from(decode_request(bytes.into()).unwrap_err());
            assert_eq!(status.code(), code, "flags {flags:#06x}: {status}");
        }
    }

    #[test]
    fn parts_and_pulls_survive_a_round_trip() {
        let items = Content::Items(Bytes::from_static(b"\0\0\0\0\x01a"));
        let piece = Content::Fragment {
            piece: Bytes::from_static(b"bc"),
            offset: 5,
            total: 7,
        };
        for (content, end) in [
            (Content::None, false),
            (Content::None, true),
            (items, false),
            (piece, true),
        ] {
            let head = PartHead {
                call_id: 77,
                checksum: true,
                sequence: u32::MAX,
                credit: 9,
                end,
            };
            let frame = encode_part(head, content.to_send()).into_bytes();
            let Request::Part(part) = decode_request(frame).unwrap() else {
                panic!("not a part")
            };
            assert_eq!(part.carries, end || content != Content::None);
            assert!(part.is_pull);
            assert_eq!((part.sequence, part.credit, part.end), (u32::MAX, 9, end));
            assert_eq!(part.content, content);
        }
    }

    #[test]
    fn a_part_of_nothing_and_a_pull_of_something_are_refused() {
        let head = PartHead {
            call_id: 77,
            checksum: false,
            sequence: 1,
            credit: 9,
            end: true,
        };
        let mut part = encode_part(head, Content::None).into_bytes().to_vec();
        part[1] = Kind::Pull.request_byte();
        decode_request(part.clone().into()).unwrap_err();
        part[1] = Kind::Part.request_byte();
        decode_request(part.clone().into()).unwrap();
        part[3] = 0;
        decode_request(part.into()).unwrap_err();
    }

    #[test]
    fn cancel_survives_a_round_trip() {
        for checksum in [false, true] {
            let frame = encode_cancel(77, checksum).into_bytes();
            let peek = Peek::at(&frame);
            assert_eq!((peek.kind, peek.call_id), (Kind::Cancel, 77));
            assert_eq!(peek.has_checksum, checksum);
            assert!(matches!(decode_request(frame), Ok(Request::Cancel)));
        }
    }
}
