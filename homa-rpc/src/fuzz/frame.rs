//! Bytes into the frame decoder.

use std::time::Duration;

use bytes::Bytes;
use homa_transport::sim::fuzz::Source;
use http::HeaderMap;

use super::{assert_same, bytes, damage, headers, text};
use crate::frame::{
    self, CallHead, Content, Kind, Part, PartHead, Peek, ReplyHead, ReplyPart, Request,
};
use crate::message::metadata::{BYTES_MAX, PAIRS_MAX};
use crate::message::status::{Code, Status};

/// Longest frame, in bytes.
const MAX: usize = 1_000_000;

/// Reads the bytes as a frame of either direction; then makes a well-formed call, part or reply from
/// them, reads those, damages them and reads them again. What can be read must be the same after it
/// was written, and what is read must be within the bounds.
///
/// # Panics
/// If it is not.
pub fn frame(data: &[u8]) {
    read_request(data);
    let call_id = Peek::at(data).call_id;
    read_reply(data, call_id);
    let mut source = Source::new(data);
    if source.chance(128) {
        if let Some(mut frame) = make_call(&mut source) {
            damage(&mut source, &mut frame);
            read_request(&frame);
        }
    } else if let Some((mut frame, call_id)) = make_reply(&mut source) {
        damage(&mut source, &mut frame);
        read_reply(&frame, call_id);
    }
}

/// The lengths in the header are those of the sections, and the last one is that of the message.
fn check_lengths(frame: &[u8], message: &[u8]) {
    let number = |at: usize, len: usize| {
        let bytes = frame[at..at + len].iter();
        bytes.fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let short: usize = [40, 42].map(|at| number(at, 2)).iter().sum();
    let long: usize = [44, 48, 52, 56].map(|at| number(at, 4)).iter().sum();
    assert_eq!(64 + short + long + message.len(), frame.len());
    assert_eq!(number(60, 4), message.len());
}

fn check_bounds(headers: &HeaderMap) {
    assert!(headers.len() <= PAIRS_MAX);
    let bytes: usize = headers.keys().map(|name| name.as_str().len()).sum();
    assert!(bytes <= BYTES_MAX);
}

/// Reads a request; if it can be read, writes and reads it again.
fn read_request(data: &[u8]) {
    let call = match frame::decode_request(Bytes::copy_from_slice(data)) {
        Ok(Request::Call(call)) => call,
        Ok(Request::Part(part)) => return read_part(data, &part),
        Ok(Request::Cancel) => {
            assert_eq!(Peek::at(data).kind, Kind::Cancel);
            return;
        }
        Err(error) => {
            let status = Status::from(error);
            assert!(status.code() != Code::Ok && !status.message().is_empty());
            return;
        }
    };
    let peek = Peek::at(data);
    assert_eq!((peek.kind, peek.call_id), (Kind::Call, call.call_id));
    check_bounds(&call.metadata);
    check_lengths(data, call.content.section());
    let head = CallHead {
        call_id: call.call_id,
        timeout: call.timeout,
        cancel_frame: call.cancel_frame,
        single: call.single,
        checksum: Peek::at(data).has_checksum,
        credit: call.credit,
        end: call.end,
        path: call.path.as_str(),
        metadata: &call.metadata,
    };
    let written = frame::encode_call(head, call.content.to_send(), MAX).unwrap();
    let Ok(Request::Call(again)) = frame::decode_request(written.into_bytes()) else {
        panic!("a call that was read cannot be read when written: {call:?}");
    };
    assert_eq!(again.call_id, call.call_id);
    assert_eq!(again.timeout, call.timeout);
    assert_eq!(again.cancel_frame, call.cancel_frame);
    assert_eq!(again.path, call.path);
    assert_eq!(again.content, call.content);
    assert_eq!((again.end, again.credit), (call.end, call.credit));
    assert_eq!(again.single, call.single);
    assert_same(&again.metadata, &call.metadata);
}

/// Writes and reads a part again.
fn read_part(data: &[u8], part: &Part) {
    let peek = Peek::at(data);
    let kind = if part.carries { Kind::Part } else { Kind::Pull };
    assert_eq!(peek.kind, kind);
    check_lengths(data, part.content.section());
    let head = PartHead {
        call_id: peek.call_id,
        checksum: peek.has_checksum,
        sequence: part.sequence,
        credit: part.credit,
        end: part.end,
    };
    let written = frame::encode_part(head, part.content.to_send());
    let Ok(Request::Part(again)) = frame::decode_request(written.into_bytes()) else {
        panic!("a part that was read cannot be read when written: {part:?}");
    };
    assert_eq!(again.content, part.content);
    assert_eq!((again.end, again.credit), (part.end, part.credit));
    assert_eq!(
        (again.sequence, again.is_pull),
        (part.sequence, part.is_pull)
    );
}

/// Reads a reply; if it can be read, writes and reads it again.
fn read_reply(data: &[u8], call_id: u64) {
    let frame = Bytes::copy_from_slice(data);
    let reply = match frame::decode_reply(frame, Kind::Call, call_id) {
        Ok(reply) => reply,
        Err(error) => {
            let status = Status::from(error);
            assert!(status.code() != Code::Ok && !status.message().is_empty());
            return;
        }
    };
    check_bounds(&reply.initial);
    check_bounds(&reply.trailing);
    check_lengths(data, reply.content.section());
    let head = ReplyHead {
        kind: Kind::Call,
        call_id,
        checksum: Peek::at(data).has_checksum,
        cancel_told: reply.cancel_told,
        load: 0,
        part: reply.part,
        unknown_call: reply.unknown_call,
        initial: &reply.initial,
        trailing: &reply.trailing,
        status: reply.status.as_ref(),
    };
    let written = frame::encode_reply(head, reply.content.to_send(), MAX).unwrap();
    let again = frame::decode_reply(written.into_bytes(), Kind::Call, call_id).unwrap();
    assert_eq!(again.content, reply.content);
    assert_eq!(
        (again.part, again.unknown_call),
        (reply.part, reply.unknown_call)
    );
    assert_eq!(again.cancel_told, reply.cancel_told);
    assert_same(&again.initial, &reply.initial);
    assert_same(&again.trailing, &reply.trailing);
    match (&again.status, &reply.status) {
        (Some(again), Some(status)) => {
            assert_eq!(again.code(), status.code());
            assert_eq!(again.message(), status.message());
            assert_eq!(again.details(), status.details());
            assert_eq!(again.is_refused(), status.is_refused());
        }
        (again, status) => assert!(again.is_none() && status.is_none()),
    }
}

/// Anything that a frame can hold.
fn content(source: &mut Source<'_>) -> Content {
    let bytes = Bytes::copy_from_slice(bytes(source));
    match source.byte() % 4 {
        0 => Content::None,
        1 => Content::Message(bytes),
        _ if bytes.is_empty() => Content::None,
        2 => Content::Items(bytes),
        _ => {
            let offset = source.long() / 2;
            let end = offset + u32::try_from(bytes.len()).unwrap();
            Content::Fragment {
                piece: bytes,
                offset,
                total: end.saturating_add(source.long()),
            }
        }
    }
}

/// A call made of the bytes. `None` if its metadata cannot be sent.
fn make_call(source: &mut Source<'_>) -> Option<Vec<u8>> {
    let paths = ["/a/b", "/package.Service/Method", "/s/m%20", "/~/!"];
    let head = CallHead {
        call_id: source.word(),
        timeout: source
            .chance(128)
            .then(|| Duration::from_nanos(source.word())),
        cancel_frame: source.chance(128),
        single: source.chance(128),
        checksum: source.chance(128),
        credit: source.long(),
        end: source.chance(128),
        path: source.pick(paths),
        metadata: &headers(source),
    };
    let content = content(source);
    let frame = frame::encode_call(head, content.to_send(), MAX).ok()?;
    let frame = frame.into_bytes();
    let Ok(Request::Call(call)) = frame::decode_request(frame.clone()) else {
        panic!("a well-formed call is refused: {frame:02x?}");
    };
    assert_eq!(call.path, head.path);
    assert_eq!(call.content, content);
    read_request(&frame);
    Some(frame.to_vec())
}

/// A reply made of the bytes, and its call id. `None` if its metadata cannot be sent.
fn make_reply(source: &mut Source<'_>) -> Option<(Vec<u8>, u64)> {
    let call_id = source.word();
    let status = source.chance(128).then(|| {
        let code = Code::new(1 + source.byte() % 16).unwrap();
        let status = Status::with_details(code, text(source), bytes(source).to_vec());
        if source.chance(64) {
            status.refused()
        } else {
            status
        }
    });
    let content = content(source);
    let head = ReplyHead {
        kind: Kind::Call,
        call_id,
        checksum: source.chance(128),
        cancel_told: source.chance(128),
        load: source.long(),
        part: ReplyPart {
            sequence: source.long(),
            credit: source.long(),
            headers: source.chance(128),
            end: true,
        },
        unknown_call: source.chance(64),
        initial: &headers(source),
        trailing: &headers(source),
        status: status.as_ref(),
    };
    let frame = frame::encode_reply(head, content.to_send(), MAX).ok()?;
    let frame = frame.into_bytes();
    let reply = frame::decode_reply(frame.clone(), Kind::Call, call_id).unwrap();
    assert_eq!(reply.content, content);
    assert_eq!(reply.status.is_some(), status.is_some());
    read_reply(&frame, call_id);
    Some((frame.to_vec(), call_id))
}
