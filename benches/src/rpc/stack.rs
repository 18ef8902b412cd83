//! What is compared.

/// A way to make the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    /// tonic: gRPC over HTTP/2 over TCP.
    Tonic,
    /// homa-rpc in UDP datagrams.
    HomaUdp,
    /// homa-rpc over IP protocol 146, from userspace.
    HomaRaw,
    /// homa-rpc over IP protocol 146, by the kernel module.
    HomaKernel,
    /// homa-rpc within one process.
    HomaMem,
    /// Bare UDP datagrams, in trains.
    FloorUdp,
    /// A bare TCP connection.
    FloorTcp,
}

impl Stack {
    pub(crate) const ALL: [Self; 7] = [
        Self::Tonic,
        Self::HomaUdp,
        Self::HomaRaw,
        Self::HomaKernel,
        Self::HomaMem,
        Self::FloorUdp,
        Self::FloorTcp,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tonic => "tonic",
            Self::HomaUdp => "homa+udp",
            Self::HomaRaw => "homa-raw",
            Self::HomaKernel => "homa-kernel",
            Self::HomaMem => "homa+mem",
            Self::FloorUdp => "floor-udp",
            Self::FloorTcp => "floor-tcp",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stack| stack.name() == name)
    }

    /// Client and server are one process.
    pub(crate) const fn in_process(self) -> bool {
        matches!(self, Self::HomaMem)
    }

    /// Which implementation of `homa://` both processes are to use.
    pub(crate) const fn backend(self) -> Option<&'static str> {
        match self {
            Self::HomaRaw => Some("raw"),
            Self::HomaKernel => Some("kernel"),
            _ => None,
        }
    }
}
