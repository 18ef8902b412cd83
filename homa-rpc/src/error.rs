//! Errors of other layers, turned into a [`Status`].

use std::error::Error;
use std::sync::Arc;

use homa_transport::{Delivery, RpcError};

use crate::status::{Code, Status};

/// Any error, as tower's layers pass it on.
pub type BoxError = Box<dyn Error + Send + Sync>;

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

impl From<RpcError> for Status {
    /// Too long: RESOURCE_EXHAUSTED. Silent, dead, restarted or unreachable peer, closed socket:
    /// UNAVAILABLE. [`Status::delivery`] is that of the error.
    fn from(error: RpcError) -> Self {
        let code = match &error {
            RpcError::MessageTooLong { .. }
            | RpcError::ResponseTooLong { .. }
            | RpcError::TooManyRpcs { .. }
            | RpcError::TooManyPeers { .. }
            | RpcError::Refused { .. }
            | RpcError::TooManyBytes { .. } => Code::ResourceExhausted,
            RpcError::TimedOut { .. }
            | RpcError::Stalled { .. }
            | RpcError::Unreachable { .. }
            | RpcError::PeerRestarted { .. }
            | RpcError::Forgotten { .. }
            | RpcError::BadAddress { .. }
            | RpcError::System { .. }
            | RpcError::Closed { .. } => Code::Unavailable,
            // An empty message or a handle of a past call: a bug in this crate.
            _ => Code::Internal,
        };
        let delivery = error.delivery();
        Self::new(code, error.to_string())
            .with_delivery(delivery)
            .with_source(Arc::new(error))
    }
}

/// A failure before anything was sent.
pub(crate) fn not_sent(code: Code, error: impl Error + Send + Sync + 'static) -> Status {
    Status::new(code, error.to_string())
        .with_delivery(Delivery::NotSent)
        .with_source(Arc::new(error))
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
    use std::net::SocketAddr;
    use std::time::Duration;

    use homa_transport::{CloseReason, Limit, Unreachable};

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
    fn want_of_room_is_resource_exhausted_and_names_the_option() {
        let status = Status::from(RpcError::TooManyBytes {
            len: 2,
            held: 1,
            option: Limit::OutboundBytes,
        });
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.delivery(), Delivery::NotSent);
        assert!(status.message().contains("outbound_bytes_max"), "{status}");
    }

    #[test]
    fn transport_errors_get_their_codes_name_the_peer_and_keep_what_is_known_of_delivery() {
        let peer: SocketAddr = "10.0.0.1:99".parse().unwrap();
        let cases: Vec<(RpcError, Code, Delivery)> = vec![
            (
                RpcError::TimedOut {
                    peer,
                    silent: Duration::from_secs(1),
                    resends: 10,
                },
                Code::Unavailable,
                Delivery::Unknown,
            ),
            (
                RpcError::PeerRestarted { peer },
                Code::Unavailable,
                Delivery::Unknown,
            ),
            (
                RpcError::Unreachable {
                    peer,
                    reason: Unreachable::Port,
                    delivery: Delivery::NotSent,
                },
                Code::Unavailable,
                Delivery::NotSent,
            ),
            (
                RpcError::ResponseTooLong {
                    peer,
                    len: 2,
                    max: 1,
                },
                Code::ResourceExhausted,
                Delivery::Unknown,
            ),
        ];
        for (error, code, delivery) in cases {
            let status = Status::from(error);
            assert_eq!(status.code(), code, "{status}");
            assert_eq!(status.delivery(), delivery, "{status}");
            assert!(status.message().contains("10.0.0.1:99"), "{status}");
        }
        let closed = Status::from(RpcError::Closed {
            reason: CloseReason::RuntimeGone,
            delivery: Delivery::NotSent,
        });
        assert_eq!(closed.code(), Code::Unavailable);
        assert!(closed.source().unwrap().is::<RpcError>());
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
