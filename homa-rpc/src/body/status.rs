//! The outcome of a call as gRPC over HTTP writes it: `grpc-status` and its companions, in the
//! headers of a response without a message, else in its trailers.
//!
//! ```text
//! Status ──failed──► grpc-status .. in the headers ──► layers ──► headers ──┐
//!        └─────────► the same Status, in the body and as an extension ─────►┴─reconcile──► Status
//! ```
//!
//! Layers know headers. [`Status::delivery`] and the source of a status have none, so the typed status
//! travels beside them. In the end the typed one counts, unless a layer has changed what the headers say.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use http::response::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::foreign;
use super::{Body, End, Whole};
use crate::message::metadata::{self, Metadata};
use crate::message::status::{Code, Status};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

impl Status {
    /// The response that ends a call with this status. For layers that answer themselves; they
    /// can also return the status as their error.
    ///
    /// The code OK, which a response without a message cannot have, becomes UNKNOWN.
    ///
    /// Stubs of other libraries do not know the error of a [`Channel`](crate::Channel): tonic's report UNKNOWN.
    /// As a response it keeps its code:
    ///
    /// ```
    /// use homa_rpc::{Body, Channel, Status};
    /// use tower::ServiceBuilder;
    ///
    /// type Outcome = Result<http::Response<Body>, Status>;
    ///
    /// fn told(outcome: Outcome) -> Outcome {
    ///     Ok(outcome.unwrap_or_else(Status::into_http))
    /// }
    ///
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let channel = Channel::new("homa+udp://127.0.0.1:4000")?;
    /// let for_foreign_stubs = ServiceBuilder::new().map_result(told).service(channel);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_http(self) -> http::Response<Body> {
        failed(self)
    }
}

/// The response that says how a call failed: status in the headers, no message.
pub(crate) fn failed(status: Status) -> http::Response<Body> {
    let status = status.of_failure();
    let mut response = http::Response::new(Body::empty());
    put_status(response.headers_mut(), &status);
    if status.says_more_than_headers() {
        // Layers may put the body into one of another type, which hides what it knows.
        response.extensions_mut().insert(status.clone());
    }
    *response.body_mut() = Body::whole(Whole {
        message: None,
        end: End::Failed(status),
    });
    response
}

/// The failure that a response tells before its body is read. `typed` is what its body holds, if
/// the body is ours.
pub(super) fn failure_in_head(
    http: StatusCode,
    headers: &HeaderMap,
    extensions: &Extensions,
    typed: Option<&Status>,
) -> Option<Status> {
    match read_code(headers) {
        Some(code) if code != Code::Ok => {
            Some(match typed.or_else(|| extensions.get::<Status>()) {
                Some(typed) => reconcile(headers, typed.clone()),
                None => read_failure(code, headers),
            })
        }
        _ if http != StatusCode::OK => Some(foreign::from_http_status(http)),
        _ => typed.cloned(),
    }
}

/// True if headers say that the call has succeeded: of a response without messages, in another's words.
pub(crate) fn says_success(headers: &HeaderMap) -> bool {
    read_code(headers) == Some(Code::Ok)
}

/// The failure that a response tells before its body, of another type than ours, is read.
pub(crate) fn failure_in_parts(parts: &Parts) -> Option<Status> {
    failure_in_head(parts.status, &parts.headers, &parts.extensions, None)
}

/// `typed`, unless the headers tell of another failure: a layer has changed them then. Only the
/// typed status knows of delivery and source.
pub(crate) fn reconcile(headers: &HeaderMap, typed: Status) -> Status {
    match read_code(headers) {
        Some(code) if code != Code::Ok => {
            let same = code == typed.code()
                && read_message(headers) == typed.message()
                && read_details(headers) == typed.details();
            if same {
                typed
            } else {
                read_failure(code, headers)
            }
        }
        _ => typed,
    }
}

/// The outcome that trailers hold, with all of them as the metadata of a failure. `None` if they
/// hold none.
pub(crate) fn read_status(trailers: &HeaderMap) -> Option<Result<(), Status>> {
    Some(match read_code(trailers)? {
        Code::Ok => Ok(()),
        code => Err(read_failure(code, trailers)),
    })
}

/// The trailers of a success.
pub(super) fn success(metadata: Option<&Metadata>) -> HeaderMap {
    let mut trailers = metadata.map_or_else(HeaderMap::new, |some| some.as_headers().clone());
    put(&mut trailers, GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// The trailers of a response that ended with this status, or with success.
pub(crate) fn trailers(metadata: HeaderMap, status: Option<&Status>) -> HeaderMap {
    let mut trailers = metadata;
    match status {
        // It has the metadata.
        Some(status) => {
            trailers.clear();
            put_status(&mut trailers, status);
        }
        None => put(&mut trailers, GRPC_STATUS, HeaderValue::from_static("0")),
    }
    trailers
}

/// Adds a status with its metadata to headers or trailers.
pub(super) fn put_status(headers: &mut HeaderMap, status: &Status) {
    let number = u16::from(status.code().number()).into();
    put(headers, GRPC_STATUS, number);
    if !status.message().is_empty()
        && let Ok(text) = HeaderValue::from_str(&percent_encode(status.message()))
    {
        put(headers, GRPC_MESSAGE, text);
    }
    if !status.details().is_empty()
        && let Ok(details) = metadata::encode_bin(GRPC_DETAILS.as_str(), status.details())
    {
        put(headers, GRPC_DETAILS, details);
    }
    for (name, value) in status.metadata().as_headers() {
        // Full: 32,768 entries, far over what is ever sent; the frame's limit reports that.
        let _full = headers.try_append(name, value.clone());
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    // Fails at 32,768 entries. A frame has at most 1,024.
    let _full = headers.try_insert(name, value);
}

/// The code in `grpc-status`; what is no code is UNKNOWN.
fn read_code(headers: &HeaderMap) -> Option<Code> {
    let text = headers.get(GRPC_STATUS)?.to_str().ok();
    let number = text.and_then(|text| text.parse().ok());
    Some(number.and_then(Code::new).unwrap_or(Code::Unknown))
}

fn read_message(headers: &HeaderMap) -> Cow<'_, str> {
    let text = headers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes);
    text.map(percent_decode).unwrap_or_default()
}

/// The details; none if they are not base64.
fn read_details(headers: &HeaderMap) -> Bytes {
    headers
        .get(GRPC_DETAILS)
        .and_then(|value| metadata::decode_bin(GRPC_DETAILS.as_str(), value).ok())
        .unwrap_or_default()
}

fn read_failure(code: Code, headers: &HeaderMap) -> Status {
    Status::with_details(
        code,
        read_message(headers).into_owned(),
        read_details(headers),
    )
    .with_metadata(Metadata::from_headers(headers.clone()))
}

/// Printable ASCII but `%` stays, every other byte becomes `%XX`.
/// Source: grpc, PROTOCOL-HTTP2.md, "Percent-Encoded".
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ok = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Reverse of [`percent_encode`]; what is no valid escape is kept as it is.
fn percent_decode(text: &[u8]) -> Cow<'_, str> {
    if !text.contains(&b'%') {
        return String::from_utf8_lossy(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail
            .get(..2)
            .filter(|hex| first == b'%' && hex.iter().all(u8::is_ascii_hexdigit))
            .and_then(|hex| str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() {
            tail.get(2..).unwrap_or_default()
        } else {
            tail
        };
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use homa_transport::Delivery;

    #[test]
    fn a_failed_response_has_its_status_in_the_headers() {
        let mut status = Status::not_found("no \u{fc} %");
        status.metadata_mut().insert("k", "v").unwrap();
        let response = failed(status);
        assert_eq!(response.headers()["grpc-status"], "5");
        assert_eq!(response.headers()["grpc-message"], "no %C3%BC %25");
        assert_eq!(response.headers()["k"], "v");
        let read = read_status(response.headers()).unwrap().unwrap_err();
        assert_eq!(read.message(), "no \u{fc} %");
        assert_eq!(read.metadata().keys().collect::<Vec<_>>(), ["k"]);
    }

    #[test]
    fn any_text_survives_percent_encoding_and_becomes_a_header() {
        let every: String = (0..=0x2_ffff_u32).filter_map(char::from_u32).collect();
        let texts = [
            "",
            "plain",
            "100 %",
            "%41",
            "a\r\n\tb\0",
            "ümläut 💚",
            &every,
        ];
        for text in texts {
            let encoded = percent_encode(text);
            assert!(encoded.bytes().all(|b| (0x20..=0x7e).contains(&b)));
            assert_eq!(percent_decode(encoded.as_bytes()), text);
        }
    }

    #[test]
    fn percent_decoding_keeps_what_is_no_escape() {
        for (text, decoded) in [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%41%+1", "A%+1")] {
            assert_eq!(percent_decode(text.as_bytes()), decoded);
        }
        assert_eq!(percent_decode(&[b'%', 0xff]), "%\u{fffd}");
        assert_eq!(percent_decode(&[b'a', 0xff]), "a\u{fffd}");
    }

    #[test]
    fn malformed_fields_are_read_as_far_as_they_go() {
        for (status, code) in [
            ("17", Code::Unknown),
            ("-1", Code::Unknown),
            ("", Code::Unknown),
            ("256", Code::Unknown),
            ("14", Code::Unavailable),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
            headers.insert(GRPC_MESSAGE, HeaderValue::from_bytes(b"%\xff%41").unwrap());
            headers.insert(GRPC_DETAILS, HeaderValue::from_static("no base64!"));
            let read = read_status(&headers).unwrap().unwrap_err();
            assert_eq!(read.code(), code, "{status:?}");
            assert_eq!(read.message(), "%\u{fffd}A");
            assert!(read.details().is_empty());
        }
    }

    #[test]
    fn what_a_layer_wrote_into_the_headers_counts_and_what_they_cannot_hold_is_kept() {
        let status = Status::with_details(Code::Unavailable, "sent \u{fc}", "det").refused();
        let mut response = failed(status.clone());
        let told = reconcile(response.headers(), status.clone());
        assert_eq!(told.delivery(), Delivery::NotSent);
        for (name, value) in [
            ("grpc-status", "13"),
            ("grpc-message", "hidden"),
            ("grpc-status-details-bin", "AAAA"),
        ] {
            let before = response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value))
                .unwrap();
            let told = reconcile(response.headers(), status.clone());
            assert_eq!(told.delivery(), Delivery::Unknown, "{name}");
            response.headers_mut().insert(name, before);
        }
        response.headers_mut().clear();
        let told = reconcile(response.headers(), status);
        assert_eq!(told.code(), Code::Unavailable);
    }
}
