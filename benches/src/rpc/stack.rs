//! What is compared.

use clap::ValueEnum;
use clap::builder::PossibleValue;

/// A way to make the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    Tonic,
    HomaUdp,
    HomaRaw,
    HomaKernel,
    HomaMem,
    FloorUdp,
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
        self.described().0
    }

    /// Its name and what it is.
    const fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::Tonic => (
                "tonic",
                "HTTP/2 over TCP, large windows for small calls and streams, adaptive windows for uploads",
            ),
            Self::HomaUdp => ("homa+udp", "Homa in UDP datagrams"),
            Self::HomaRaw => ("homa-raw", "Homa as IP protocol 146, from userspace"),
            Self::HomaKernel => (
                "homa-kernel",
                "Homa as IP protocol 146, by the kernel module",
            ),
            Self::HomaMem => (
                "homa+mem",
                "Within one process (server CPU is the client's)",
            ),
            Self::FloorUdp => ("floor-udp", "Bare UDP: trains of datagrams, no recovery"),
            Self::FloorTcp => (
                "floor-tcp",
                "Bare TCP: one connection, messages one after the other",
            ),
        }
    }

    /// Bare sockets, which do not do all.
    pub(crate) const fn is_floor(self) -> bool {
        matches!(self, Self::FloorUdp | Self::FloorTcp)
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

impl ValueEnum for Stack {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = self.described();
        Some(PossibleValue::new(name).help(help))
    }
}
