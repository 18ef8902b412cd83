//! How sockets fail to open; how calls fail is in [`homa_protocol::error`].

use std::io;
use std::net::SocketAddr;

pub use homa_protocol::error::{
    CloseReason, ConfigError, Delivery, Limit, Report, RpcError, Unreachable,
};

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket owns the port.
    #[error("port {} is in use: {addr} cannot be bound, another socket has it", addr.port())]
    AddressInUse {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// Another listener of this process owns the in-process name.
    #[error("the in-process name {name:?} is in use")]
    NameInUse {
        /// The name asked for.
        name: String,
    },
    /// Called outside a tokio runtime, which a socket needs for its driver task.
    #[error("a socket must be opened inside a tokio runtime")]
    NoRuntime,
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port cannot be one of a server on protocol 146, where clients have the upper half.
    /// Source: homa.h, `HOMA_MIN_DEFAULT_PORT`.
    #[error("port {} is not for servers: homa:// has 1 to 32767 (0 for the first that is free)", addr.port())]
    ServerPort {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// All ports of the kind asked for are in use.
    #[error("all ports of protocol 146 from {first} to {last} are in use")]
    NoFreePort {
        /// The lowest such port.
        first: u16,
        /// The highest such port.
        last: u16,
    },
    /// The process may not open raw sockets.
    #[error(
        "raw sockets, which homa:// needs here, are not permitted (CAP_NET_RAW is missing): \
         grant it with `setcap cap_net_raw+ep PROGRAM`, load the Homa kernel module, \
         or use homa+udp://"
    )]
    RawNotPermitted {
        /// What the system said.
        source: io::Error,
    },
    /// The Homa kernel module is loaded. It takes every packet of protocol 146, and answers those for
    /// sockets other than its own with errors.
    #[error(
        "the Homa kernel module handles protocol 146 on this host, raw sockets would disturb it: \
         use the kernel backend, or unload the module"
    )]
    ModuleLoaded,
    /// The Linux Homa module was asked for, or is there, and cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The environment names a backend that does not exist.
    #[error("HOMA_BACKEND is {value:?}: expected raw or kernel")]
    UnknownBackend {
        /// Its value.
        value: String,
    },
    /// A link-local address, which each interface has, came without the interface.
    #[error(
        "{addr} is a link-local address without a zone: expected its interface too, as in [fe80::1%2]"
    )]
    NoZone {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The process may not have the port.
    #[error(
        "port {} is not permitted: ports below 1024 need CAP_NET_BIND_SERVICE \
         (`setcap cap_net_bind_service+ep PROGRAM`) or a lower net.ipv4.ip_unprivileged_port_start; \
         or use a port from 1024 on", addr.port()
    )]
    PortNotPermitted {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused.
    #[error("cannot open a socket on {addr}: {source}")]
    Io {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    /// What the system's answer to opening a socket on `addr` means.
    pub(crate) fn of_system(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { addr },
            io::ErrorKind::PermissionDenied if (1..1024).contains(&addr.port()) => {
                Self::PortNotPermitted { addr, source }
            }
            _ => Self::Io { addr, source },
        }
    }

    /// Whether this host lacks the address asked for, or all of its family.
    #[must_use]
    pub fn is_address_missing(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        matches!(
            source.raw_os_error(),
            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
        )
    }
}

/// Why there is no socket of the kernel backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The Linux Homa module is not loaded.
    #[error("the Linux Homa module is not loaded: the system knows no IP protocol 146")]
    NotLoaded,
    /// The list of protocols cannot be read, so that nothing is known.
    #[error("cannot tell whether the Linux Homa module is loaded: {0}")]
    NoList(#[source] io::Error),
    /// The module is loaded and has another interface than the one of July 2026 that is used here.
    #[error("the Linux Homa module that is loaded cannot be used: {0}")]
    Variant(Variant),
    /// The module's interface is known, but it or the system refused something.
    #[error("{call}: {source}")]
    Refused {
        /// The system call.
        call: &'static str,
        /// What was said.
        source: io::Error,
    },
}

/// An interface of the module that this backend does not speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Variant {
    /// `HOMAIOCINFO` is not known under its number, which contains the size of its argument.
    #[error(
        "it has no ioctl HOMAIOCINFO with 136 bytes (0xC0886890), it is older than April 2026 or \
         newer than what this program was written for"
    )]
    OtherIoctls,
    /// The reduced build meant for the mainline kernel: a sender never waits for grants, and calls
    /// cannot be given up.
    #[error("it was built without grants (__STRIP__): it has no ioctl HOMAIOCABORT")]
    WithoutGrants,
    /// `recvmsg` does not take a `homa_recvmsg_args` of our layout.
    #[error("its recvmsg does not take a homa_recvmsg_args of 88 bytes")]
    OtherReceive,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_port_without_the_right_to_it_names_the_remedies() {
        let denied = || io::Error::from_raw_os_error(libc::EACCES);
        let error = BindError::of_system(SocketAddr::from(([127, 0, 0, 1], 80)), denied());
        let text = error.to_string();
        for part in ["port 80", "CAP_NET_BIND_SERVICE", "1024"] {
            assert!(text.contains(part), "{text}");
        }
        let error = BindError::of_system(SocketAddr::from(([127, 0, 0, 1], 4000)), denied());
        assert!(matches!(error, BindError::Io { .. }), "{error}");
    }
}
