//! Operations on metadata, compared with a plain list.

use bytes::Bytes;
use homa_transport::sim::fuzz::Source;
use http::header::{HeaderName, HeaderValue};

use super::{KEYS, assert_same, bytes, headers};
use crate::frame;
use crate::message::metadata::{BYTES_MAX, Metadata, MetadataError, PAIRS_MAX, PROTOCOL_HEADERS};
use crate::message::status::Code;

/// Puts pairs into metadata, as the bytes say, and takes some out. What is in it must be what a
/// plain list of pairs holds, and it must survive being sent. Then reads the bytes as a metadata
/// section, reads a section of well-formed pairs made of them, and sends headers that only a layer
/// can have made.
///
/// # Panics
/// If not.
pub fn metadata(data: &[u8]) {
    let mut source = Source::new(data);
    let mut metadata = Metadata::new();
    let mut list: Vec<(&str, Bytes)> = Vec::new();
    while !source.is_empty() {
        step(&mut source, &mut metadata, &mut list);
    }
    assert_eq!(metadata.len(), list.len());
    assert_eq!(metadata.is_empty(), list.is_empty());
    for key in KEYS {
        let values: Vec<_> = list.iter().filter(|pair| pair.0 == key).collect();
        assert_eq!(metadata.contains_key(key), !values.is_empty(), "{key}");
        let binary = metadata.get_all_bin(key).map(Result::unwrap);
        let text = metadata.get_all(key).map(|value| value.as_bytes().to_vec());
        let found = binary.chain(text.map(Bytes::from));
        assert!(found.eq(values.iter().map(|pair| &pair.1)), "{key}");
    }
    let copy = Metadata::from_headers(metadata.as_headers().clone());
    assert_eq!(copy, metadata);
    sent(metadata.into_headers());
    section(data);
    pairs(&mut Source::new(data));
    layers(&mut Source::new(data));
}

fn step<'a>(source: &mut Source<'_>, metadata: &mut Metadata, list: &mut Vec<(&'a str, Bytes)>)
where
    'static: 'a,
{
    let key = source.pick(KEYS);
    let replace = source.chance(64);
    let value = bytes(source);
    let repeat = if source.chance(2) { PAIRS_MAX } else { 1 };
    let done = match source.byte() % 8 {
        0 => {
            let there = list.iter().any(|pair| pair.0 == key);
            assert_eq!(metadata.remove(key), there);
            list.retain(|pair| pair.0 != key);
            return;
        }
        1..=3 => {
            let put = |metadata: &mut Metadata| match replace {
                true => metadata.insert_bin(key, value),
                false => metadata.append_bin(key, value),
            };
            (0..repeat).try_for_each(|_| put(metadata))
        }
        _ => {
            let text = String::from_utf8_lossy(value);
            let put = |metadata: &mut Metadata| match replace {
                true => metadata.insert(key, &text),
                false => metadata.append(key, &text),
            };
            (0..repeat).try_for_each(|_| put(metadata))
        }
    };
    if replace && done.is_ok() {
        list.retain(|pair| pair.0 != key);
    }
    // What was appended before the map was full is in it.
    let added = match done {
        Ok(()) if replace => 1,
        Ok(()) => repeat,
        Err(MetadataError::TooManyPairs) => metadata.len() - list.len(),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            0
        }
    };
    list.extend((0..added).map(|_| (key, Bytes::copy_from_slice(value))));
    assert!(metadata.len() <= PAIRS_MAX);
}

/// What can be sent arrives as it is.
fn sent(headers: http::HeaderMap) {
    match frame::fuzz::put_metadata(&headers) {
        Ok(section) => {
            assert!(section.len() <= BYTES_MAX);
            assert_same(&frame::fuzz::read_metadata(section).unwrap(), &headers);
        }
        Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
    }
}

/// What can be read of bytes can be sent.
fn section(data: &[u8]) {
    if let Ok(headers) = frame::fuzz::read_metadata(Bytes::copy_from_slice(data)) {
        assert!(headers.len() <= PAIRS_MAX);
        sent(headers);
    }
}

/// A section of well-formed pairs is read if keys, values and their number are allowed.
fn pairs(source: &mut Source<'_>) {
    let mut section = Vec::new();
    let (mut count, mut good) = (0, true);
    while !source.is_empty() && !source.chance(32) {
        let (key, value) = (source.pick(KEYS), bytes(source));
        let repeat = match source.byte() {
            0 => PAIRS_MAX - 1,
            1 => PAIRS_MAX,
            2 => PAIRS_MAX + 1,
            _ => 1,
        };
        for _ in 0..repeat {
            section.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
            section.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            section.extend(key.as_bytes());
            section.extend(value);
        }
        count += repeat;
        let name = HeaderName::from_lowercase(key.as_bytes());
        let reserved = PROTOCOL_HEADERS.contains(&key);
        let text = key.ends_with("-bin") || HeaderValue::from_bytes(value).is_ok();
        good &= name.is_ok() && !reserved && text;
    }
    good &= count <= PAIRS_MAX && section.len() <= BYTES_MAX;
    let read = frame::fuzz::read_metadata(section.clone().into());
    assert_eq!(read.is_ok(), good, "{read:?}");
    if let Ok(headers) = read {
        assert_eq!(headers.len(), count);
        assert_eq!(
            frame::fuzz::put_metadata(&headers).unwrap().len(),
            section.len()
        );
        sent(headers);
    }
}

/// Headers that a layer made are sent without those of the protocol, or refused.
fn layers(source: &mut Source<'_>) {
    let headers = headers(source);
    match frame::fuzz::put_metadata(&headers) {
        Ok(section) => {
            let read = frame::fuzz::read_metadata(section).unwrap();
            let expected = Metadata::from_headers(headers).into_headers();
            assert_eq!(read.len(), expected.len());
            sent(read);
        }
        Err(status) => {
            let code = status.code();
            assert!(code == Code::Internal || code == Code::ResourceExhausted);
        }
    }
}
