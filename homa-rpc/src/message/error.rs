//! Errors of the transport and of the system, turned into a [`Status`].

use std::error::Error;
use std::io;
use std::sync::Arc;

use homa_transport::{Delivery, RpcError};

use super::status::{Code, Status};

/// Any error, as tower's layers pass it on.
pub type BoxError = Box<dyn Error + Send + Sync>;

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

impl From<io::Error> for Status {
    /// The code by the kind of the error, as tonic chooses it; UNKNOWN for kinds without a code of their
    /// own. The error becomes the source.
    fn from(error: io::Error) -> Self {
        use io::ErrorKind;
        let code = match error.kind() {
            ErrorKind::BrokenPipe
            | ErrorKind::WouldBlock
            | ErrorKind::WriteZero
            | ErrorKind::Interrupted => Code::Internal,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::NotConnected
            | ErrorKind::AddrInUse
            | ErrorKind::AddrNotAvailable => Code::Unavailable,
            ErrorKind::AlreadyExists => Code::AlreadyExists,
            ErrorKind::ConnectionAborted => Code::Aborted,
            ErrorKind::InvalidData => Code::DataLoss,
            ErrorKind::InvalidInput => Code::InvalidArgument,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::PermissionDenied => Code::PermissionDenied,
            ErrorKind::TimedOut => Code::DeadlineExceeded,
            ErrorKind::UnexpectedEof => Code::OutOfRange,
            _ => Code::Unknown,
        };
        Self::new(code, error.to_string()).with_source(Arc::new(error))
    }
}

/// A failure before anything was sent.
pub(crate) fn not_sent(code: Code, error: impl Error + Send + Sync + 'static) -> Status {
    Status::new(code, error.to_string())
        .with_delivery(Delivery::NotSent)
        .with_source(Arc::new(error))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use homa_transport::{CloseReason, Limit, Unreachable};

    use super::*;

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
    fn errors_of_the_system_get_the_code_of_their_kind_and_become_the_source() {
        let of = |kind| Status::from(io::Error::new(kind, "why"));
        assert_eq!(of(io::ErrorKind::NotFound).code(), Code::NotFound);
        assert_eq!(of(io::ErrorKind::TimedOut).code(), Code::DeadlineExceeded);
        assert_eq!(of(io::ErrorKind::AddrInUse).code(), Code::Unavailable);
        let other = of(io::ErrorKind::Other);
        assert_eq!(other.code(), Code::Unknown);
        assert_eq!(other.message(), "why");
        assert!(other.source().unwrap().is::<io::Error>());
    }
}
