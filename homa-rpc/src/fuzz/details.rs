//! Bytes into the details of a status.

use std::fmt::Debug;

use bytes::Bytes;
use homa_transport::sim::fuzz::Source;
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use prost::Message;

use super::{bytes, damage, text};
use crate::body::{Body, final_status};
use crate::message::status::{Code, Status};
use crate::message::types::{
    BadRequest, DebugInfo, ErrorDetails, ErrorInfo, Help, LocalizedMessage, PreconditionFailure,
    QuotaFailure, RequestInfo, ResourceInfo, RetryInfo, RpcStatus,
};

/// Reads the bytes as the details of a status; as `grpc-status` and its companions in headers; then
/// makes a status with details from them, which must be the same once it has been headers, and reads
/// damaged details.
///
/// # Panics
/// If it is not.
pub fn details(data: &[u8]) {
    read(data.to_vec());
    let mut source = Source::new(data);
    in_headers(&mut source);
    let code = Code::new(1 + source.byte() % 16).unwrap();
    let status = Status::with_error_details(code, text(&mut source), make(&mut source));
    survives_headers(&status);
    let mut damaged = status.details().to_vec();
    damage(&mut source, &mut damaged);
    read(damaged);
}

/// Whatever the bytes are, code, message and the bytes themselves are there.
fn read(data: Vec<u8>) {
    let status = Status::with_details(Code::Aborted, "why", data.clone());
    assert_eq!(status.details(), &data);
    assert_eq!((status.code(), status.message()), (Code::Aborted, "why"));
    assert!(!format!("{status} {status:?}").is_empty());
    match status.error_details() {
        Ok(details) => read_each(&details),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    survives_headers(&status);
}

/// What can be read can be written.
fn read_each(details: &ErrorDetails) {
    fn readable<M: Message + prost::Name + Default + PartialEq + Debug>(
        details: &ErrorDetails,
    ) -> usize {
        details
            .get_all::<M>()
            .inspect(|message| {
                let again = ErrorDetails::new().with(message.clone_by_value());
                assert_eq!(again.get::<M>().as_ref(), Some(message));
            })
            .count()
    }
    let known = readable::<BadRequest>(details)
        + readable::<DebugInfo>(details)
        + readable::<ErrorInfo>(details)
        + readable::<Help>(details)
        + readable::<LocalizedMessage>(details)
        + readable::<PreconditionFailure>(details)
        + readable::<QuotaFailure>(details)
        + readable::<RequestInfo>(details)
        + readable::<ResourceInfo>(details)
        + readable::<RetryInfo>(details);
    assert!(known <= details.as_any().len());
    for retry in details.get_all::<RetryInfo>() {
        if let Some(delay) = retry.delay() {
            let again = RetryInfo::after(delay).delay();
            assert!(again == Some(delay) || again < Some(delay));
        }
    }
}

/// A message by way of its bytes: messages need not be `Clone`.
trait CloneByValue: Message + Default {
    fn clone_by_value(&self) -> Self {
        Self::decode(self.encode_to_vec().as_slice()).unwrap()
    }
}

impl<M: Message + Default> CloneByValue for M {}

/// Headers of any content are read without harm.
fn in_headers(source: &mut Source<'_>) {
    let mut headers = HeaderMap::new();
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        let value = match source.byte() % 4 {
            0 => continue,
            1 => HeaderValue::from(u16::from(source.byte() % 20)),
            _ => match HeaderValue::from_bytes(bytes(source)) {
                Ok(value) => value,
                Err(_) => continue,
            },
        };
        headers.insert(name, value);
    }
    let told = headers.contains_key("grpc-status");
    let mut response = http::Response::new(Body::empty());
    *response.headers_mut() = headers;
    match final_status(&response) {
        Some(Err(status)) => {
            assert!(told && status.code() != Code::Ok);
            survives_headers(&status);
            if let Ok(details) = status.error_details() {
                read_each(&details);
            }
        }
        Some(Ok(())) => panic!("an empty body is no success"),
        None => {}
    }
}

/// The status is the same when it is read from the headers of a response, and when it is read from
/// the trailers behind a message.
fn survives_headers(status: &Status) {
    let response = status.clone().into_http();
    assert!(response.body().is_end_stream());
    let read = final_status(&response.map(|_| ())).unwrap().unwrap_err();
    assert_eq!(read.code(), status.code());
    assert_eq!(read.message(), status.message());
    assert_eq!(read.details(), status.details());
}

/// Details made of the bytes.
fn make(source: &mut Source<'_>) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    while !source.is_empty() && !source.chance(64) {
        details = match source.byte() % 5 {
            0 => details.with(RequestInfo {
                request_id: text(source),
                serving_data: text(source),
            }),
            1 => details.with(RetryInfo {
                retry_delay: Some(prost_types::Duration {
                    seconds: match source.byte() % 4 {
                        0 => i64::MIN,
                        1 => i64::MAX,
                        _ => source.word().cast_signed(),
                    },
                    nanos: source.long().cast_signed(),
                }),
            }),
            2 => details.with(ErrorInfo {
                reason: text(source),
                domain: text(source),
                metadata: [(text(source), text(source))].into(),
            }),
            3 => {
                let nested = RpcStatus {
                    code: source.long().cast_signed(),
                    message: text(source),
                    details: details.as_any().to_vec(),
                };
                details.with(nested)
            }
            _ => {
                let mut all = details.as_any().to_vec();
                all.push(prost_types::Any {
                    type_url: text(source),
                    value: Bytes::copy_from_slice(bytes(source)).to_vec(),
                });
                all.into()
            }
        };
        // Nested ones double in length.
        if details.as_any().len() > 8 {
            break;
        }
    }
    read_each(&details);
    details
}
