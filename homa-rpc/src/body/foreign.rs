//! Errors of other layers, turned into a [`Status`].

use std::error::Error;
use std::sync::Arc;

use homa_transport::{Delivery, RpcError};

use crate::message::BoxError;
use crate::message::status::{Code, Status};

impl Status {
    /// The status that `error` stands for.
    ///
    /// Walks the chain of sources for the first one known: a [`Status`] passes through, an
    /// [`RpcError`] by the table of its conversion, tower's and tokio's `Elapsed` become
    /// [`Code::DeadlineExceeded`], tower's `Overloaded` and the error of a body over the limit that
    /// a layer set [`Code::ResourceExhausted`]. Anything else becomes [`Code::Unknown`] with the
    /// error as its source.
    #[must_use]
    pub fn from_error(error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(status) => return *status,
            Err(error) => error,
        };
        if let Some(status) = known(error.as_ref()) {
            return status;
        }
        Self::unknown(error.to_string()).with_source(Arc::from(error))
    }
}

fn known(error: &(dyn Error + 'static)) -> Option<Status> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(status) = error.downcast_ref::<Status>() {
            return Some(status.clone());
        }
        if let Some(error) = error.downcast_ref::<RpcError>() {
            return Some(error.clone().into());
        }
        if error.is::<tower::timeout::error::Elapsed>() || error.is::<tokio::time::error::Elapsed>()
        {
            return Some(Status::deadline_exceeded(error.to_string()));
        }
        if error.is::<tower::load_shed::error::Overloaded>() {
            // That layer has not passed the call on.
            let status = Status::resource_exhausted(error.to_string());
            return Some(status.with_delivery(Delivery::NotSent));
        }
        if error.is::<http_body_util::LengthLimitError>() {
            return Some(Status::resource_exhausted(error.to_string()));
        }
        next = error.source();
    }
    None
}

/// The code for an HTTP status other than 200, which only a layer can have produced.
/// Source: grpc, http-grpc-status-mapping.md; 408 and 413 are additions.
pub(crate) fn from_http_status(http: http::StatusCode) -> Status {
    let code = match http.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        408 => Code::DeadlineExceeded,
        413 => Code::ResourceExhausted,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("a layer answered with HTTP status {http}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] BoxError);

    #[test]
    fn a_status_and_a_transport_error_are_found_behind_wrappers() {
        let status = Status::not_found("gone");
        let found = Status::from_error(Wrapped(Wrapped(status.into()).into()).into());
        assert_eq!(found.code(), Code::NotFound);
        assert_eq!(found.message(), "gone");
        let error = RpcError::MessageTooLong { len: 7, max: 5 };
        let found = Status::from_error(Wrapped(error.into()).into());
        assert_eq!(found.code(), Code::ResourceExhausted);
        assert!(found.message().contains('7') && found.message().contains('5'));
    }

    #[test]
    fn tower_errors_get_their_codes_and_others_are_unknown_with_their_text() {
        let elapsed = tower::timeout::error::Elapsed::new();
        let found = Status::from_error(elapsed.into());
        assert_eq!(found.code(), Code::DeadlineExceeded);
        let overloaded = tower::load_shed::error::Overloaded::new();
        let found = Status::from_error(Wrapped(overloaded.into()).into());
        assert_eq!(found.code(), Code::ResourceExhausted);
        assert_eq!(found.delivery(), Delivery::NotSent);
        let found = Status::from_error("something else".into());
        assert_eq!(found.code(), Code::Unknown);
        assert_eq!(found.message(), "something else");
        assert!(found.source().is_some());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_of_a_layer_is_resource_exhausted() {
        use http_body_util::{BodyExt, Full, Limited};
        let body = Limited::new(Full::<&[u8]>::from(b"long".as_slice()), 3);
        let error = body.collect().await.unwrap_err();
        let found = Status::from_error(Wrapped(error).into());
        assert_eq!(found.code(), Code::ResourceExhausted);
    }

    #[test]
    fn http_statuses_of_layers_are_mapped() {
        for (http, code) in [
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (408, Code::DeadlineExceeded),
            (413, Code::ResourceExhausted),
            (500, Code::Unknown),
            (503, Code::Unavailable),
        ] {
            let http = http::StatusCode::from_u16(http).unwrap();
            assert_eq!(from_http_status(http).code(), code);
        }
    }
}
