//! What the system means when it doesn't take a datagram.

use std::io;

use crate::error::Unreachable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendError {
    /// The send buffer is full.
    Blocked,
    /// The queue of the network device is full, or the system short of memory.
    DeviceFull,
    /// A signal came.
    Interrupted,
    /// The socket cannot be used.
    Fatal,
    /// The packet is longer than its way allows.
    TooLong,
    /// The system does not send there.
    Refused(Unreachable),
    /// The network's answer to an earlier packet: sending itself never fails in this way.
    OfOthers,
}

impl SendError {
    pub(super) fn of(error: &io::Error) -> Self {
        let Some(errno) = error.raw_os_error() else {
            return Self::Fatal;
        };
        match errno {
            libc::EAGAIN => Self::Blocked,
            libc::ENOBUFS | libc::ENOMEM => Self::DeviceFull,
            libc::EINTR => Self::Interrupted,
            libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EPIPE => Self::Fatal,
            libc::EMSGSIZE => Self::TooLong,
            libc::ECONNREFUSED
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EPROTO
            | libc::EOPNOTSUPP => Self::OfOthers,
            libc::EHOSTUNREACH => Self::Refused(Unreachable::Host),
            libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::EADDRNOTAVAIL
            | libc::EAFNOSUPPORT
            | libc::ENODEV => Self::Refused(Unreachable::Network),
            // EPERM, EACCES, EINVAL and whatever else a filter may say
            _ => Self::Refused(Unreachable::Denied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_socket_is_fatal() {
        let of = |errno| SendError::of(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EBADF), SendError::Fatal);
        assert_eq!(of(libc::EWOULDBLOCK), SendError::Blocked);
        assert_eq!(of(libc::ENOBUFS), SendError::DeviceFull);
        assert_eq!(of(libc::ECONNREFUSED), SendError::OfOthers);
        assert_eq!(of(libc::EPERM), SendError::Refused(Unreachable::Denied));
        assert_eq!(
            of(libc::ENETUNREACH),
            SendError::Refused(Unreachable::Network)
        );
        assert_eq!(
            of(libc::EHOSTUNREACH),
            SendError::Refused(Unreachable::Host)
        );
        assert_eq!(of(9999), SendError::Refused(Unreachable::Denied));
    }
}
