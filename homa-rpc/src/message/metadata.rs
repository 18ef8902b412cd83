//! Metadata: ordered key-value pairs that travel beside a message.
//!
//! A thin wrapper around [`http::HeaderMap`]. Keys are lower-case HTTP header names. Values of
//! keys that end in `-bin` are arbitrary bytes, kept as base64 in the map and sent raw; all other
//! values are printable ASCII. The order of the values of one key is kept, duplicates too.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use homa_transport::Message;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::util::intern;

/// Pairs that one side of a call may send at once.
pub const PAIRS_MAX: usize = 512;

/// Bytes, keys and values together, that one side of a call may send at once.
pub const BYTES_MAX: usize = 64 * 1024;

/// Standard base64, written without padding and read with or without, as gRPC does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a pair was not taken or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Not a header name.
    #[error(
        "metadata key {0:?} is not valid: allowed are lower-case letters, digits, '-', '_' and '.'"
    )]
    Key(String),
    /// A name that the protocol keeps for itself.
    #[error(
        "metadata key {0:?} is reserved: `grpc-*`, `content-type` and `te` belong to the protocol"
    )]
    Reserved(String),
    /// A text pair under a `-bin` key or the reverse.
    #[error("metadata key {key:?} {}", if *.binary {
        "must not end in \"-bin\": such values are bytes, use the `_bin` functions"
    } else {
        "must end in \"-bin\" to hold bytes"
    })]
    Kind {
        /// The key.
        key: String,
        /// True if the key names a binary value.
        binary: bool,
    },
    /// Not printable ASCII.
    #[error("the value of metadata key {0:?} is not printable ASCII; use a key ending in \"-bin\"")]
    Value(String),
    /// The value of a `-bin` key in the map is not base64.
    #[error("the value of metadata key {0:?} is not valid base64")]
    Base64(String),
    /// Too many pairs.
    #[error("metadata of more than {PAIRS_MAX} pairs")]
    TooManyPairs,
}

/// Metadata of a request, a response or a status.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    headers: HeaderMap,
}

impl Metadata {
    /// No metadata. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of `key`, replacing all values it had.
    ///
    /// # Errors
    /// If the key or value is not valid, the key is reserved or ends in `-bin`, or there are too
    /// many pairs.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), MetadataError> {
        let (name, value) = text_pair(key, value)?;
        self.put(name, value, true)
    }

    /// Adds a value behind those that `key` has.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn append(&mut self, key: &str, value: &str) -> Result<(), MetadataError> {
        let (name, value) = text_pair(key, value)?;
        self.put(name, value, false)
    }

    /// Sets the value of `key`, which must end in `-bin`, replacing all values it had.
    ///
    /// # Errors
    /// If the key is not valid, is reserved or does not end in `-bin`, or there are too many
    /// pairs.
    pub fn insert_bin(&mut self, key: &str, value: &[u8]) -> Result<(), MetadataError> {
        let (name, value) = binary_pair(key, value)?;
        self.put(name, value, true)
    }

    /// Adds a value behind those that `key`, which must end in `-bin`, has.
    ///
    /// # Errors
    /// As [`insert_bin`](Self::insert_bin).
    pub fn append_bin(&mut self, key: &str, value: &[u8]) -> Result<(), MetadataError> {
        let (name, value) = binary_pair(key, value)?;
        self.put(name, value, false)
    }

    fn put(
        &mut self,
        name: HeaderName,
        value: HeaderValue,
        replace: bool,
    ) -> Result<(), MetadataError> {
        if self.headers.len() >= PAIRS_MAX && !(replace && self.headers.contains_key(&name)) {
            return Err(MetadataError::TooManyPairs);
        }
        let done = if replace {
            self.headers.try_insert(name, value).map(drop)
        } else {
            self.headers.try_append(name, value).map(drop)
        };
        done.map_err(|_| MetadataError::TooManyPairs)
    }

    /// First value of `key`; `None` if there is none, if it is not text or if the key is binary.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.get_all(key).next()
    }

    /// All values of `key` that are text, in order. Nothing for `-bin` keys.
    pub fn get_all(&self, key: &str) -> impl Iterator<Item = &str> {
        let values = (!is_binary(key)).then(|| self.headers.get_all(key).into_iter());
        values.into_iter().flatten().filter_map(|v| v.to_str().ok())
    }

    /// First value of `key`, which must end in `-bin`; `None` if there is none.
    ///
    /// # Errors
    /// If a layer put a value there that is not base64.
    pub fn get_bin(&self, key: &str) -> Result<Option<Bytes>, MetadataError> {
        self.get_all_bin(key).next().transpose()
    }

    /// All values of `key`, in order. Nothing unless the key ends in `-bin`. An item is an error
    /// if a layer put a value there that is not base64.
    pub fn get_all_bin(&self, key: &str) -> impl Iterator<Item = Result<Bytes, MetadataError>> {
        let values = is_binary(key).then(|| self.headers.get_all(key).into_iter());
        let key = key.to_owned();
        values
            .into_iter()
            .flatten()
            .map(move |value| decode_bin(&key, value))
    }

    /// Removes all values of `key`; true if there were any.
    pub fn remove(&mut self, key: &str) -> bool {
        self.headers.remove(key).is_some()
    }

    /// True if `key` has a value.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.headers.contains_key(key)
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.headers.len()
    }

    /// True if there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Every key once for each of its values, in no particular order of keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    /// The pairs as HTTP headers; values of `-bin` keys are base64.
    #[must_use]
    pub fn as_headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The pairs as HTTP headers; values of `-bin` keys are base64.
    #[must_use]
    pub fn into_headers(self) -> HeaderMap {
        self.headers
    }

    /// Metadata from HTTP headers, all of them, to become headers again.
    pub(crate) const fn of_layer(headers: HeaderMap) -> Self {
        Self { headers }
    }

    /// Metadata from HTTP headers, without those that the protocol keeps for itself.
    #[must_use]
    pub fn from_headers(mut headers: HeaderMap) -> Self {
        if !headers.is_empty() {
            for name in PROTOCOL_HEADERS {
                headers.remove(*name);
            }
        }
        Self { headers }
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headers.fmt(f)
    }
}

/// Headers that have a field of their own in the frame, so they are never sent as metadata.
pub(crate) const PROTOCOL_HEADERS: &[&str] = &[
    "content-type",
    "te",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
];

/// True for the headers in [`PROTOCOL_HEADERS`].
pub(crate) fn is_protocol_header(name: &HeaderName) -> bool {
    PROTOCOL_HEADERS.contains(&name.as_str())
}

/// True for keys whose values are bytes.
pub(crate) fn is_binary(key: &str) -> bool {
    key.ends_with("-bin")
}

fn name(key: &str, binary: bool) -> Result<HeaderName, MetadataError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if !key.bytes().all(allowed) {
        return Err(MetadataError::Key(key.to_owned()));
    }
    if key.starts_with("grpc-") || key == "content-type" || key == "te" {
        return Err(MetadataError::Reserved(key.to_owned()));
    }
    if is_binary(key) != binary {
        return Err(MetadataError::Kind {
            key: key.to_owned(),
            binary: is_binary(key),
        });
    }
    intern::header_name(key.as_bytes()).map_err(|_| MetadataError::Key(key.to_owned()))
}

fn text_pair(key: &str, value: &str) -> Result<(HeaderName, HeaderValue), MetadataError> {
    let name = name(key, false)?;
    if !value.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        return Err(MetadataError::Value(key.to_owned()));
    }
    // Cheap to clone, which layers that retry do with every request.
    let value = Message::copy_of(&[value.as_bytes()]).into_bytes();
    let value = HeaderValue::from_maybe_shared(value);
    Ok((
        name,
        value.map_err(|_| MetadataError::Value(key.to_owned()))?,
    ))
}

fn binary_pair(key: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), MetadataError> {
    Ok((name(key, true)?, encode_bin(key, value)?))
}

/// Bytes to the value of a `-bin` header.
pub(crate) fn encode_bin(key: &str, value: &[u8]) -> Result<HeaderValue, MetadataError> {
    HeaderValue::from_maybe_shared(Bytes::from(BASE64.encode(value)))
        .map_err(|_| MetadataError::Base64(key.to_owned()))
}

/// Number of bytes that the value of a `-bin` header stands for, if it is valid.
pub(crate) fn bin_len(value: &HeaderValue) -> usize {
    let padding = value.as_bytes().iter().rev().take_while(|b| **b == b'=');
    (value.len() - padding.count()) * 3 / 4
}

/// The value of a `-bin` header to bytes.
pub(crate) fn decode_bin(key: &str, value: &HeaderValue) -> Result<Bytes, MetadataError> {
    BASE64
        .decode(value.as_bytes())
        .map(Bytes::from)
        .map_err(|_| MetadataError::Base64(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_key_keep_their_order_and_duplicates() {
        let mut metadata = Metadata::new();
        for value in ["b", "a", "b", ""] {
            metadata.append("k", value).unwrap();
            metadata.append_bin("k-bin", value.as_bytes()).unwrap();
        }
        assert_eq!(
            metadata.get_all("k").collect::<Vec<_>>(),
            ["b", "a", "b", ""]
        );
        let binary: Vec<_> = metadata.get_all_bin("k-bin").map(Result::unwrap).collect();
        assert_eq!(binary, ["b", "a", "b", ""].map(Bytes::from));
        assert_eq!(metadata.get("k"), Some("b"));
        metadata.insert("k", "only").unwrap();
        assert_eq!(metadata.get_all("k").collect::<Vec<_>>(), ["only"]);
        assert!(metadata.remove("k"));
        assert_eq!(metadata.get("k"), None);
    }

    #[test]
    fn bytes_of_every_value_pass_through_a_binary_key() {
        let all: Vec<u8> = (0..=255).collect();
        let mut metadata = Metadata::new();
        for len in [0, 1, 2, 3, 256] {
            metadata.insert_bin("x-bin", &all[..len]).unwrap();
            let back = metadata.get_bin("x-bin").unwrap().unwrap();
            assert_eq!(back, all[..len]);
            assert_eq!(bin_len(&metadata.as_headers()["x-bin"]), len);
        }
    }

    #[test]
    fn padded_base64_of_other_implementations_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert("x-bin", HeaderValue::from_static("YQ=="));
        headers.insert("y-bin", HeaderValue::from_static("!"));
        let metadata = Metadata::from_headers(headers);
        assert_eq!(metadata.get_bin("x-bin").unwrap().unwrap(), "a");
        assert_eq!(bin_len(&metadata.as_headers()["x-bin"]), 1);
        assert_eq!(
            metadata.get_bin("y-bin"),
            Err(MetadataError::Base64("y-bin".into()))
        );
    }

    #[test]
    fn bad_keys_and_values_are_typed_errors() {
        let mut metadata = Metadata::new();
        for key in ["", "Upper", "with space", "käse", "a:b", "grpc\0"] {
            let error = metadata.insert(key, "v").unwrap_err();
            assert_eq!(error, MetadataError::Key(key.into()));
        }
        for key in ["grpc-timeout", "grpc-x", "content-type", "te"] {
            let error = metadata.append(key, "v").unwrap_err();
            assert_eq!(error, MetadataError::Reserved(key.into()));
        }
        for value in ["\n", "ü", "\t", "\u{7f}"] {
            let error = metadata.insert("k", value).unwrap_err();
            assert_eq!(error, MetadataError::Value("k".into()));
        }
        let error = metadata.insert("k-bin", "v").unwrap_err();
        assert!(error.to_string().contains("must not end"), "{error}");
        let error = metadata.insert_bin("k", b"v").unwrap_err();
        assert!(error.to_string().contains("must end"), "{error}");
        assert!(metadata.is_empty());
    }

    #[test]
    fn pairs_are_bounded() {
        let mut metadata = Metadata::new();
        for _ in 0..PAIRS_MAX {
            metadata.append("k", "v").unwrap();
        }
        assert_eq!(metadata.append("k", "v"), Err(MetadataError::TooManyPairs));
        assert_eq!(metadata.insert("l", "v"), Err(MetadataError::TooManyPairs));
        metadata.insert("k", "v").unwrap();
        assert_eq!(metadata.len(), 1);
    }

    #[test]
    fn headers_of_the_protocol_do_not_become_metadata() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("5"));
        headers.insert("grpc-previous-rpc-attempts", HeaderValue::from_static("1"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        let metadata = Metadata::from_headers(headers);
        assert_eq!(
            metadata.keys().collect::<Vec<_>>(),
            ["grpc-previous-rpc-attempts"]
        );
    }
}
