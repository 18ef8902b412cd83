//! Fuzz targets: functions of arbitrary bytes that panic if they find a defect (feature `fuzz`).
//!
//! The example `fuzz` draws the bytes from a seed, on any toolchain; the targets in the directory
//! `fuzz` of the repository take them from libFuzzer.
//!
//! ```
//! homa_rpc::fuzz::frame(b"any bytes");
//! homa_rpc::fuzz::details(&[7; 100]);
//! ```

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is how a fuzz target reports"
)]

mod body;
mod details;
mod frame;
mod metadata;
mod stream;

use homa_transport::sim::fuzz::{Source, Target};
use http::header::{HeaderMap, HeaderName, HeaderValue};

pub use self::body::body;
pub use self::details::details;
pub use self::frame::frame;
pub use self::metadata::metadata;
pub use self::stream::stream;

/// The targets of this package.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "frame",
        run: frame,
        bytes_max: 1_024,
    },
    Target {
        name: "metadata",
        run: metadata,
        bytes_max: 1_024,
    },
    Target {
        name: "details",
        run: details,
        bytes_max: 1_024,
    },
    Target {
        name: "body",
        run: body,
        bytes_max: 512,
    },
    Target {
        name: "stream",
        run: stream,
        bytes_max: 1_024,
    },
];

/// Keys of all kinds: text and binary, of the protocol, of the framework, and wrong ones.
const KEYS: [&str; 16] = [
    "k",
    "k-bin",
    "other",
    "other-bin",
    "-bin",
    "x.y_z-0",
    "authorization",
    "content-type",
    "te",
    "grpc-status",
    "grpc-status-details-bin",
    "grpc-previous-rpc-attempts",
    "Upper",
    "with space",
    "",
    "k\u{e9}",
];

/// A short run of the bytes that are left, now and then a long one.
fn bytes<'a>(source: &mut Source<'a>) -> &'a [u8] {
    let len = if source.chance(16) {
        usize::from(source.short())
    } else {
        usize::from(source.byte() % 32)
    };
    source.bytes(len)
}

/// Text of any characters.
fn text(source: &mut Source<'_>) -> String {
    String::from_utf8_lossy(bytes(source)).into_owned()
}

/// Headers that a layer could have made: any names and values that are valid for HTTP.
fn headers(source: &mut Source<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    while !source.is_empty() && !source.chance(48) {
        let key = source.pick(KEYS);
        let (Ok(name), Ok(value)) = (HeaderName::try_from(key), value(source, key)) else {
            continue;
        };
        headers.append(name, value);
    }
    headers
}

fn value(
    source: &mut Source<'_>,
    key: &str,
) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let raw = bytes(source);
    match crate::message::metadata::encode_bin(key, raw) {
        Ok(value) if key.ends_with("-bin") && !source.chance(32) => Ok(value),
        _ => HeaderValue::from_bytes(raw),
    }
}

/// Changes a few bytes, cuts something off or puts something in.
fn damage(source: &mut Source<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..=source.below(4) {
        let at = source.below(bytes.len().max(1));
        match source.byte() % 4 {
            0 if at < bytes.len() => bytes[at] ^= 1 << source.below(8),
            1 if at < bytes.len() => bytes[at] = source.byte(),
            2 => bytes.truncate(at),
            _ => {
                let more = source.long().to_be_bytes();
                bytes.splice(at..at, more);
            }
        }
    }
}

/// Both maps hold the same values in the same order under each key.
fn assert_same(a: &HeaderMap, b: &HeaderMap) {
    assert_eq!(a.len(), b.len());
    for name in a.keys() {
        assert!(a.get_all(name).iter().eq(b.get_all(name)), "{name}");
    }
}
