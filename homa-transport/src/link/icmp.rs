//! ICMP errors and the like, as the system's error queue reports them.

use super::cmsg::{Cmsg, array};
use crate::error::Unreachable;

/// What an entry of the error queue says about the destination it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetworkError {
    /// Datagrams don't get there.
    Unreachable(Unreachable),
    /// Only IP packets up to this many bytes get there.
    PacketTooBig {
        /// Bytes, IP header included.
        mtu: u32,
    },
}

/// One entry of the error queue. Source: linux/errqueue.h, `sock_extended_err`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExtendedError {
    errno: u32,
    origin: u8,
    kind: u8,
    code: u8,
    info: u32,
}

impl ExtendedError {
    /// The error in a control message, if there is one in it.
    pub(super) fn parse(message: Cmsg<'_>) -> Option<Self> {
        match (message.level, message.kind) {
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {}
            _ => return None,
        }
        let [origin, kind, code, _] = array(message.data, 4)?;
        Some(Self {
            errno: u32::from_ne_bytes(array(message.data, 0)?),
            origin,
            kind,
            code,
            info: u32::from_ne_bytes(array(message.data, 8)?),
        })
    }

    /// True if it came from the network: then the next system call on the socket, whatever its
    /// destination, may have failed in its place.
    pub(super) const fn is_from_network(self) -> bool {
        matches!(
            self.origin,
            libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6
        )
    }

    /// What it means for the destination; `None` if nothing.
    pub(super) fn meaning(self) -> Option<NetworkError> {
        match self.origin {
            libc::SO_EE_ORIGIN_ICMP => self.icmp(),
            libc::SO_EE_ORIGIN_ICMP6 => self.icmp6(),
            // Whoever sent the packet has been told of anything else.
            libc::SO_EE_ORIGIN_LOCAL if i32::try_from(self.errno) == Ok(libc::EMSGSIZE) => {
                self.too_big()
            }
            _ => None,
        }
    }

    /// Types and codes of RFC 792 and RFC 1122, section 3.2.2.1.
    fn icmp(self) -> Option<NetworkError> {
        let reason = match (self.kind, self.code) {
            (3, 4) => return self.too_big(),
            (3, 2) => Unreachable::Protocol,
            (3, 3) => Unreachable::Port,
            // network unreachable, unknown, prohibited, not for this type of service
            (3, 0 | 6 | 9 | 11) => Unreachable::Network,
            // host unreachable, source route failed, host unknown, prohibited and so on
            (3, _) => Unreachable::Host,
            // time to live exceeded: a routing loop
            (11, 0) => Unreachable::Network,
            _ => return None,
        };
        Some(NetworkError::Unreachable(reason))
    }

    /// Types and codes of RFC 4443.
    fn icmp6(self) -> Option<NetworkError> {
        let reason = match (self.kind, self.code) {
            (2, _) => return self.too_big(),
            (1, 4) => Unreachable::Port,
            // no route, beyond scope of the source address, rejected route
            (1, 0 | 2 | 6) => Unreachable::Network,
            (1, _) => Unreachable::Host,
            (3, 0) => Unreachable::Network,
            // unrecognised next header
            (4, 1) => Unreachable::Protocol,
            _ => return None,
        };
        Some(NetworkError::Unreachable(reason))
    }

    fn too_big(self) -> Option<NetworkError> {
        // Routers older than RFC 1191 give no size.
        (self.info > 0).then_some(NetworkError::PacketTooBig { mtu: self.info })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: i32, origin: u8, kind: u8, code: u8, info: u32) -> ExtendedError {
        let mut data = errno.to_ne_bytes().to_vec();
        data.extend([origin, kind, code, 0]);
        data.extend(info.to_ne_bytes());
        data.extend([0; 4]);
        let message = Cmsg {
            level: libc::IPPROTO_IP,
            kind: libc::IP_RECVERR,
            data: &data,
        };
        for len in 0..12 {
            let cut = Cmsg {
                data: &data[..len],
                ..message
            };
            assert_eq!(ExtendedError::parse(cut), None, "{len}");
        }
        ExtendedError::parse(message).unwrap()
    }

    #[test]
    fn icmp_codes_become_reasons() {
        let icmp = |kind, code| error(0, libc::SO_EE_ORIGIN_ICMP, kind, code, 0).meaning();
        let icmp6 = |kind, code| error(0, libc::SO_EE_ORIGIN_ICMP6, kind, code, 0).meaning();
        let unreachable = |reason| Some(NetworkError::Unreachable(reason));
        assert_eq!(icmp(3, 0), unreachable(Unreachable::Network));
        assert_eq!(icmp(3, 1), unreachable(Unreachable::Host));
        assert_eq!(icmp(3, 2), unreachable(Unreachable::Protocol));
        assert_eq!(icmp(3, 3), unreachable(Unreachable::Port));
        assert_eq!(icmp(3, 13), unreachable(Unreachable::Host));
        assert_eq!(icmp(11, 0), unreachable(Unreachable::Network));
        assert_eq!(icmp(4, 0), None, "source quench says nothing");
        assert_eq!(icmp6(1, 0), unreachable(Unreachable::Network));
        assert_eq!(icmp6(1, 3), unreachable(Unreachable::Host));
        assert_eq!(icmp6(1, 4), unreachable(Unreachable::Port));
        assert_eq!(icmp6(4, 1), unreachable(Unreachable::Protocol));
        assert_eq!(icmp6(4, 0), None);
    }

    #[test]
    fn a_packet_too_big_tells_the_size_that_is_not() {
        let (v4, v6) = (libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_ICMP6);
        let too_big = |mtu| Some(NetworkError::PacketTooBig { mtu });
        assert_eq!(
            error(libc::EMSGSIZE, v4, 3, 4, 1400).meaning(),
            too_big(1400)
        );
        assert_eq!(
            error(libc::EMSGSIZE, v6, 2, 0, 1280).meaning(),
            too_big(1280)
        );
        assert_eq!(error(libc::EMSGSIZE, v4, 3, 4, 0).meaning(), None);
        let local = error(libc::EMSGSIZE, libc::SO_EE_ORIGIN_LOCAL, 0, 0, 1500);
        assert_eq!(local.meaning(), too_big(1500));
        assert!(!local.is_from_network());
    }

    #[test]
    fn entries_of_other_origin_are_ignored() {
        let other = error(libc::ENOMSG, libc::SO_EE_ORIGIN_TIMESTAMPING, 3, 3, 1);
        assert_eq!(other.meaning(), None);
        let local = error(libc::EHOSTUNREACH, libc::SO_EE_ORIGIN_LOCAL, 3, 3, 1);
        assert_eq!(local.meaning(), None);
    }
}
