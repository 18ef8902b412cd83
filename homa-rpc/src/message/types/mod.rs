//! Details of errors: `google.rpc.Status` and its standard messages (feature `types`).
//!
//! ```
//! use std::time::Duration;
//!
//! use homa_rpc::types::{BadRequest, ErrorDetails, RetryInfo, bad_request::FieldViolation};
//! use homa_rpc::{Code, Status};
//!
//! // In a handler:
//! let violation = FieldViolation {
//!     field: "name".into(),
//!     description: "must not be empty".into(),
//!     ..Default::default()
//! };
//! let details = ErrorDetails::new()
//!     .with(BadRequest { field_violations: vec![violation] })
//!     .with(RetryInfo::after(Duration::from_secs(1)));
//! let status = Status::with_error_details(Code::InvalidArgument, "bad name", details);
//!
//! // At the client:
//! let details = status.error_details()?;
//! let bad: BadRequest = details.get().expect("the server sends one");
//! assert_eq!(bad.field_violations[0].field, "name");
//! # Ok::<(), prost::DecodeError>(())
//! ```
//!
//! Anything else that is a protobuf message with a name ([`prost::Name`]) can be a detail too.

use std::borrow::Cow;
use std::time::Duration;

use prost::{DecodeError, Message, Name};
use prost_types::Any;

use crate::message::status::{Code, Status};

/// Made from `proto/google/rpc`; `tests/generated.rs` compares.
mod generated {
    include!("google_rpc.rs");
}

mod named;

pub use generated::{
    BadRequest, DebugInfo, ErrorInfo, Help, LocalizedMessage, PreconditionFailure, QuotaFailure,
    RequestInfo, ResourceInfo, RetryInfo, Status as RpcStatus, bad_request, help,
    precondition_failure, quota_failure,
};

/// The details of an error: messages of any types, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorDetails {
    messages: Vec<Any>,
}

impl ErrorDetails {
    /// No details.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more.
    #[must_use]
    pub fn with<M: Message + Name>(mut self, detail: M) -> Self {
        self.messages.push(Any {
            type_url: M::type_url(),
            value: detail.encode_to_vec(),
        });
        self
    }

    /// The first detail of the type `M`; `None` if there is none or it cannot be read.
    #[must_use]
    pub fn get<M: Message + Name + Default>(&self) -> Option<M> {
        self.get_all().next()
    }

    /// All details of the type `M` that can be read, in order.
    pub fn get_all<M: Message + Name + Default>(&self) -> impl Iterator<Item = M> {
        self.messages.iter().filter_map(|any| any.to_msg().ok())
    }

    /// All details, of known types or not, each with the name of its type.
    #[must_use]
    pub fn as_any(&self) -> &[Any] {
        &self.messages
    }
}

impl From<Vec<Any>> for ErrorDetails {
    fn from(messages: Vec<Any>) -> Self {
        Self { messages }
    }
}

impl Status {
    /// A status whose details field is a `google.rpc.Status` with these details.
    #[must_use]
    pub fn with_error_details(
        code: Code,
        message: impl Into<Cow<'static, str>>,
        details: ErrorDetails,
    ) -> Self {
        let message = message.into();
        let encoded = RpcStatus {
            code: code.number().into(),
            message: message.clone().into_owned(),
            details: details.messages,
        };
        Self::with_details(code, message, encoded.encode_to_vec())
    }

    /// The details, read as a `google.rpc.Status`. None if the field is empty.
    ///
    /// Its code and message are not looked at: those of the status itself count.
    ///
    /// # Errors
    /// If the field holds something else. The status is good all the same, and
    /// [`details`](Self::details) has the bytes.
    pub fn error_details(&self) -> Result<ErrorDetails, DecodeError> {
        let decoded = RpcStatus::decode(self.details().clone())?;
        Ok(decoded.details.into())
    }
}

impl RetryInfo {
    /// Advice to wait so long. What protobuf cannot express becomes its longest time.
    #[must_use]
    pub fn after(delay: Duration) -> Self {
        let longest = prost_types::Duration {
            seconds: 315_576_000_000,
            nanos: 999_999_999,
        };
        let delay = match prost_types::Duration::try_from(delay) {
            Ok(delay) if delay.seconds <= longest.seconds => delay,
            _ => longest,
        };
        Self {
            retry_delay: Some(delay),
        }
    }

    /// How long to wait; `None` if it says nothing, or a time below 0.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        // Not by the conversion of prost-types 0.14: the longest time below 0 overflows in it.
        let delay = self.retry_delay?;
        let nanos = Duration::from_nanos(u64::try_from(delay.nanos).ok()?);
        Duration::from_secs(u64::try_from(delay.seconds).ok()?).checked_add(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_several_types_are_found_by_type_and_kept_in_order() {
        let link = |url: &str| Help {
            links: vec![help::Link {
                description: String::new(),
                url: url.into(),
            }],
        };
        let details = ErrorDetails::new()
            .with(link("1"))
            .with(RequestInfo {
                request_id: "r".into(),
                serving_data: String::new(),
            })
            .with(link("2"));
        assert_eq!(details.get::<RequestInfo>().unwrap().request_id, "r");
        assert_eq!(details.get(), Some(link("1")));
        let all: Vec<Help> = details.get_all().collect();
        assert_eq!(all, [link("1"), link("2")]);
        assert_eq!(details.get::<ErrorInfo>(), None);
        assert_eq!(details.as_any().len(), 3);
    }

    #[test]
    fn a_detail_that_cannot_be_read_does_not_hide_the_others() {
        let bad = Any {
            type_url: RetryInfo::type_url(),
            value: vec![0xff],
        };
        let good = RetryInfo::after(Duration::from_secs(2));
        let mut details = ErrorDetails::from(vec![bad]).with(good);
        assert_eq!(details.get(), Some(good));
        details.messages.truncate(1);
        assert_eq!(details.get::<RetryInfo>(), None);
    }

    #[test]
    fn no_details_are_an_empty_list_and_malformed_ones_an_error() {
        let status = Status::aborted("why");
        assert_eq!(status.error_details(), Ok(ErrorDetails::new()));
        let status = Status::with_details(Code::Aborted, "why", b"\xff".as_slice());
        assert!(status.error_details().is_err());
        assert_eq!(status.details(), b"\xff".as_slice());
        assert_eq!(status.message(), "why");
    }

    #[test]
    fn a_status_is_encoded_by_the_public_definition() {
        let details = ErrorDetails::new().with(RetryInfo::after(Duration::from_millis(1_500)));
        let status = Status::with_error_details(Code::Unavailable, "later", details);
        let mut by_hand = b"\x08\x0e\x12\x05later\x1a\x36\x0a\x28".to_vec();
        by_hand.extend(b"type.googleapis.com/google.rpc.RetryInfo");
        by_hand.extend(b"\x12\x0a\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01");
        assert_eq!(status.details(), &by_hand);
    }

    #[test]
    fn delays_of_any_length_are_expressed_and_nonsense_is_none() {
        for delay in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_secs(9),
        ] {
            assert_eq!(RetryInfo::after(delay).delay(), Some(delay));
        }
        let longest = RetryInfo::after(Duration::MAX).delay().unwrap();
        assert_eq!(longest.as_secs(), 315_576_000_000);
        assert_eq!(RetryInfo::default().delay(), None);
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, i32::MIN)] {
            let retry_delay = Some(prost_types::Duration { seconds, nanos });
            assert_eq!(RetryInfo { retry_delay }.delay(), None, "{seconds} {nanos}");
        }
        let retry_delay = Some(prost_types::Duration {
            seconds: i64::MAX,
            nanos: i32::MAX,
        });
        assert!(RetryInfo { retry_delay }.delay().is_some());
    }
}
