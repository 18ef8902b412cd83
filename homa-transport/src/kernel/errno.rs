//! What the module's error numbers mean.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{CloseReason, Delivery, RpcError, Unreachable};

/// How long the module waits for a silent peer: its sysctls, of which it doesn't tell with the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerTimeout {
    silent: Duration,
    resends: u32,
}

impl PeerTimeout {
    /// Reads the settings where they can be seen, in the first network namespace; else those that the
    /// module starts with. Source: homa_utils.c, `homa_init`; homa_timer.c, `homa_timer_check_rpc`.
    pub(super) fn of_this_host() -> Self {
        let setting = |name: &str, default: u32| {
            std::fs::read_to_string(format!("/proc/sys/net/homa/{name}"))
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(default)
        };
        Self::new(
            setting("timeout_ticks", 100),
            setting("resend_ticks", 5),
            setting("resend_interval", 5),
        )
    }

    /// From numbers of ticks, which are milliseconds.
    fn new(timeout: u32, first_resend: u32, resend_interval: u32) -> Self {
        let rest = timeout.saturating_sub(first_resend);
        Self {
            silent: Duration::from_millis(timeout.into()),
            resends: rest.div_ceil(resend_interval.max(1)),
        }
    }
}

/// Why a call has ended, from the errno with which the module ended it.
///
/// Whether the server has had the request is never known then: the module ends all calls to a port,
/// or a host, because of one packet that could not reach it. Source: homa_plumbing.c,
/// `homa_err_handler_v4`, `homa_err_handler_v6`; homa_timer.c, `homa_timer_check_rpc`.
pub(super) fn call_failed(
    error: &io::Error,
    peer: SocketAddr,
    peer_timeout: PeerTimeout,
) -> RpcError {
    let delivery = Delivery::Unknown;
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => RpcError::TimedOut {
            peer,
            silent: peer_timeout.silent,
            resends: peer_timeout.resends,
        },
        Some(libc::ENOTCONN) => RpcError::Unreachable {
            peer,
            reason: Unreachable::Port,
            delivery,
        },
        Some(libc::EPROTONOSUPPORT) => RpcError::Unreachable {
            peer,
            reason: Unreachable::Protocol,
            delivery,
        },
        _ => unroutable(error, peer, delivery).unwrap_or_else(|| RpcError::System {
            peer,
            reason: error.to_string(),
            delivery,
        }),
    }
}

/// What to do when the module does not take a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotSent {
    /// There is no memory for it now.
    Later,
    /// It will not be sent.
    Never(RpcError),
}

/// Why a request was not taken. A server's application sees whole requests only, and the module
/// forgets a request that it did not get whole, so nothing has been delivered.
pub(super) fn request_refused(error: &io::Error, peer: SocketAddr) -> NotSent {
    let delivery = Delivery::NotSent;
    if is_shortage(error) {
        return NotSent::Later;
    }
    NotSent::Never(match error.raw_os_error() {
        Some(libc::ESHUTDOWN) => RpcError::Closed {
            reason: CloseReason::Closed,
            delivery,
        },
        Some(libc::EINVAL | libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => RpcError::BadAddress {
            peer,
            reason: "the Homa module cannot send to that address",
        },
        _ => unroutable(error, peer, delivery).unwrap_or_else(|| RpcError::System {
            peer,
            reason: error.to_string(),
            delivery,
        }),
    })
}

/// Whether `error` passes when others' messages have gone.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOMEM | libc::ENOBUFS)
    )
}

fn unroutable(error: &io::Error, peer: SocketAddr, delivery: Delivery) -> Option<RpcError> {
    let reason = match error.raw_os_error()? {
        libc::EHOSTUNREACH | libc::EHOSTDOWN => Unreachable::Host,
        libc::ENETUNREACH | libc::ENETDOWN | libc::ENODEV => Unreachable::Network,
        libc::EPERM | libc::EACCES => Unreachable::Denied,
        _ => return None,
    };
    Some(RpcError::Unreachable {
        peer,
        reason,
        delivery,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 4000))
    }

    fn os(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    #[test]
    fn each_way_in_which_the_module_ends_a_call_has_its_error() {
        let peer_timeout = PeerTimeout::new(100, 5, 5);
        let of = |errno| call_failed(&os(errno), peer(), peer_timeout);
        let unreachable = |reason| RpcError::Unreachable {
            peer: peer(),
            reason,
            delivery: Delivery::Unknown,
        };
        assert_eq!(
            of(libc::ETIMEDOUT),
            RpcError::TimedOut {
                peer: peer(),
                silent: Duration::from_millis(100),
                resends: 19,
            }
        );
        assert_eq!(of(libc::ENOTCONN), unreachable(Unreachable::Port));
        assert_eq!(
            of(libc::EPROTONOSUPPORT),
            unreachable(Unreachable::Protocol)
        );
        assert_eq!(of(libc::EHOSTUNREACH), unreachable(Unreachable::Host));
        assert!(matches!(of(libc::EFAULT), RpcError::System { .. }));
    }

    #[test]
    fn what_ends_one_call_never_counts_as_the_end_of_the_socket() {
        for errno in 1..=133 {
            let error = call_failed(&os(errno), peer(), PeerTimeout::new(100, 5, 5));
            assert!(!matches!(error, RpcError::Closed { .. }), "errno {errno}");
            // Only a socket that was shut down says so.
            if let NotSent::Never(error @ RpcError::Closed { .. }) =
                request_refused(&os(errno), peer())
            {
                assert_eq!(errno, libc::ESHUTDOWN, "{error}");
            }
        }
    }

    #[test]
    fn no_call_that_the_module_ended_counts_as_undelivered() {
        for errno in 1..=133 {
            let error = call_failed(&os(errno), peer(), PeerTimeout::new(100, 5, 5));
            assert_eq!(error.delivery(), Delivery::Unknown, "errno {errno}");
        }
    }

    #[test]
    fn a_request_that_the_module_did_not_take_was_not_sent() {
        for errno in 1..=133 {
            match request_refused(&os(errno), peer()) {
                NotSent::Never(error) => assert_eq!(error.delivery(), Delivery::NotSent),
                NotSent::Later => {
                    assert!([libc::EAGAIN, libc::ENOMEM, libc::ENOBUFS].contains(&errno))
                }
            }
        }
        assert_eq!(
            request_refused(&os(libc::ENETUNREACH), peer()),
            NotSent::Never(RpcError::Unreachable {
                peer: peer(),
                reason: Unreachable::Network,
                delivery: Delivery::NotSent,
            })
        );
    }

    #[test]
    fn the_number_of_resends_follows_the_modules_settings() {
        let resends = |timeout, first, interval| PeerTimeout::new(timeout, first, interval).resends;
        assert_eq!(resends(100, 5, 5), 19);
        assert_eq!(resends(100, 200, 5), 0);
        assert_eq!(resends(u32::MAX, u32::MAX, 0), 0);
        assert_eq!(resends(10, 5, 0), 5);
    }
}
