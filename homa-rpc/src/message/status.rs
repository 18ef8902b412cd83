//! How a call ends: [`Code`] and [`Status`].

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use homa_transport::Delivery;

use super::metadata::Metadata;

/// The status codes of gRPC, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// The caller gave the call up.
    Cancelled = 1,
    /// An error without a better code; a panic of the handler, for one.
    Unknown = 2,
    /// An argument is wrong whatever the state of the system.
    InvalidArgument = 3,
    /// The deadline passed before the call was over.
    DeadlineExceeded = 4,
    /// Something asked for does not exist.
    NotFound = 5,
    /// Something to be created exists already.
    AlreadyExists = 6,
    /// The caller is known and may not do this.
    PermissionDenied = 7,
    /// A quota, a limit or space is used up.
    ResourceExhausted = 8,
    /// The system is not in the state that the call needs.
    FailedPrecondition = 9,
    /// The call lost against a concurrent one.
    Aborted = 10,
    /// Beyond the valid range.
    OutOfRange = 11,
    /// The service or the method does not exist, or is not supported.
    Unimplemented = 12,
    /// An invariant is broken; an unreadable message, for one.
    Internal = 13,
    /// The service cannot be reached now.
    Unavailable = 14,
    /// Data is lost or damaged for good.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code with this number, or `None` above 16.
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number, 0 to 16.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Its name as gRPC writes it, `DEADLINE_EXCEEDED` for one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// A number that is no status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no status code: allowed are 0 to 16")]
pub struct UnknownCode(pub i32);

impl TryFrom<i32> for Code {
    type Error = UnknownCode;

    fn try_from(number: i32) -> Result<Self, UnknownCode> {
        let code = u8::try_from(number).ok().and_then(Self::new);
        code.ok_or(UnknownCode(number))
    }
}

impl From<Code> for i32 {
    fn from(code: Code) -> Self {
        code.number().into()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The outcome of a call that did not succeed: code, message, details, metadata.
///
/// Boxed inside, so that `Result<T, Status>` stays small.
#[derive(Clone)]
pub struct Status(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    message: Cow<'static, str>,
    details: Bytes,
    metadata: Metadata,
    delivery: Delivery,
    refused: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($(#[doc = $help:literal])+ $name:ident => $code:ident,)+) => {
        $($(#[doc = $help])+
        #[must_use]
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(Code::$code, message)
        })+
    };
}

impl Status {
    /// A status with this code and message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            details: Bytes::new(),
            metadata: Metadata::new(),
            delivery: Delivery::Unknown,
            refused: false,
            source: None,
        }))
    }

    constructors! {
        /// [`Code::Cancelled`] with a message.
        cancelled => Cancelled,
        /// [`Code::Unknown`] with a message.
        unknown => Unknown,
        /// [`Code::InvalidArgument`] with a message.
        invalid_argument => InvalidArgument,
        /// [`Code::DeadlineExceeded`] with a message.
        deadline_exceeded => DeadlineExceeded,
        /// [`Code::NotFound`] with a message.
        not_found => NotFound,
        /// [`Code::AlreadyExists`] with a message.
        already_exists => AlreadyExists,
        /// [`Code::PermissionDenied`] with a message.
        permission_denied => PermissionDenied,
        /// [`Code::ResourceExhausted`] with a message.
        resource_exhausted => ResourceExhausted,
        /// [`Code::FailedPrecondition`] with a message.
        failed_precondition => FailedPrecondition,
        /// [`Code::Aborted`] with a message.
        aborted => Aborted,
        /// [`Code::OutOfRange`] with a message.
        out_of_range => OutOfRange,
        /// [`Code::Unimplemented`] with a message.
        unimplemented => Unimplemented,
        /// [`Code::Internal`] with a message.
        internal => Internal,
        /// [`Code::Unavailable`] with a message.
        unavailable => Unavailable,
        /// [`Code::DataLoss`] with a message.
        data_loss => DataLoss,
        /// [`Code::Unauthenticated`] with a message.
        unauthenticated => Unauthenticated,
    }

    /// A status with details: bytes that are carried unchanged (by convention an encoded
    /// `google.rpc.Status`).
    #[must_use]
    pub fn with_details(
        code: Code,
        message: impl Into<Cow<'static, str>>,
        details: impl Into<Bytes>,
    ) -> Self {
        let mut status = Self::new(code, message);
        status.0.details = details.into();
        status
    }

    /// The same with metadata, which travels behind the message (gRPC's trailers).
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// The same, caused by `source`.
    #[must_use]
    pub fn with_source(mut self, source: Arc<dyn Error + Send + Sync>) -> Self {
        self.0.source = Some(source);
        self
    }

    pub(crate) fn with_delivery(mut self, delivery: Delivery) -> Self {
        self.0.delivery = delivery;
        self
    }

    /// The status of a handler's own call. What was known of the delivery of a call that the
    /// handler made itself says nothing about it.
    pub(crate) fn of_handler(mut self) -> Self {
        self.0.refused = false;
        self.0.delivery = Delivery::Unknown;
        self
    }

    /// The same, or UNKNOWN if it has the code OK: that would read as success without a message.
    pub(crate) fn of_failure(self) -> Self {
        if self.code() == Code::Ok {
            return Self::unknown(format!(
                "a call failed with the code OK: {}",
                self.message()
            ));
        }
        self
    }

    /// Marks a call that the server turned away before anything of the application saw it.
    pub(crate) fn refused(mut self) -> Self {
        self.0.refused = true;
        self.0.delivery = Delivery::NotSent;
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message, meant for developers.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The details, possibly empty.
    #[must_use]
    pub fn details(&self) -> &Bytes {
        &self.0.details
    }

    /// The metadata that came with the status.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// The metadata, to be changed.
    #[must_use]
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.0.metadata
    }

    /// Whether the server's application can have seen the call. After [`Delivery::NotSent`] a
    /// retry is always safe. [`Delivery::Unknown`] unless something is known. Outside of a layer
    /// that repeats calls it is that of the last attempt, and says nothing of those before.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.0.delivery
    }

    /// True if there is something that the headers of a response cannot tell.
    pub(crate) fn says_more_than_headers(&self) -> bool {
        self.0.refused || self.0.delivery != Delivery::Unknown || self.0.source.is_some()
    }

    /// True if the server said that it turned the call away before dispatch. Its
    /// [`delivery`](Self::delivery) is [`Delivery::NotSent`] then.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.0.refused
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.message.is_empty() {
            return write!(f, "{}", self.0.code);
        }
        write!(f, "{}: {}", self.0.code, self.0.message)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Status");
        out.field("code", &self.0.code)
            .field("message", &self.0.message);
        if !self.0.details.is_empty() {
            out.field("details", &self.0.details);
        }
        if !self.0.metadata.is_empty() {
            out.field("metadata", &self.0.metadata);
        }
        out.field("delivery", &self.0.delivery);
        if self.0.refused {
            out.field("refused", &true);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl Error for Status {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_numbers_and_names_of_grpc() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), number);
            assert_eq!(Code::new(code.number()), Some(code));
        }
        assert_eq!(Code::new(17), None);
        assert_eq!(Code::try_from(16), Ok(Code::Unauthenticated));
        for number in [-1, 17, 256 + 5, i32::MIN] {
            let error = Code::try_from(number).unwrap_err();
            assert!(
                error.to_string().starts_with(&number.to_string()),
                "{error}"
            );
        }
        assert_eq!(Code::Unauthenticated.number(), 16);
        assert_eq!(Code::DeadlineExceeded.to_string(), "DEADLINE_EXCEEDED");
    }

    #[test]
    fn status_is_one_pointer_wide() {
        assert_eq!(size_of::<Status>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), Status>>(), size_of::<usize>());
    }

    #[test]
    fn display_names_code_and_message() {
        let status = Status::not_found("no such key");
        assert_eq!(status.to_string(), "NOT_FOUND: no such key");
        assert_eq!(Status::aborted("").to_string(), "ABORTED");
        assert_eq!(status.delivery(), Delivery::Unknown);
        assert!(!status.is_refused());
        assert!(Status::unavailable("").refused().is_refused());
    }
}
