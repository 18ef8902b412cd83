//! Control messages: what the system tells and is told about a datagram besides its bytes.
//!
//! Read and written as bytes, in the form in which the kernel has them on every architecture: length
//! (of the size of a pointer, header included), level and type, then the data, each message at a
//! multiple of the size of a pointer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libc::c_int;

use crate::units::Priority;

const WORD: usize = size_of::<usize>();
const LEVEL: usize = WORD;
const KIND: usize = LEVEL + size_of::<c_int>();
const HEADER: usize = align(KIND + size_of::<c_int>());
const _: () = assert!(HEADER == size_of::<libc::cmsghdr>());

/// Room for the control messages of a datagram that comes in.
pub(super) const RECEIVE_BYTES: usize = 256;

/// Room for those of one that goes out: `in6_pktinfo` (20 bytes), an integer and a short one.
const SEND_BYTES: usize =
    align(HEADER + 20) + align(HEADER + size_of::<c_int>()) + align(HEADER + size_of::<u16>());

const fn align(len: usize) -> usize {
    len.next_multiple_of(WORD)
}

/// Control messages for a datagram to send.
#[derive(Debug)]
pub(super) struct SendCmsg {
    bytes: [u8; SEND_BYTES],
    len: usize,
}

impl SendCmsg {
    /// Priority and source address of a datagram to `to`, an address as the socket's system call
    /// sees it after IPv4-mapped ones have been taken for what they are.
    pub(super) fn new(to: SocketAddr, from: Option<IpAddr>, priority: Priority) -> Self {
        let mut control = Self {
            bytes: [0; SEND_BYTES],
            len: 0,
        };
        let traffic_class = c_int::from(priority.traffic_class()).to_ne_bytes();
        match (to, from.map(|from| from.to_canonical())) {
            (SocketAddr::V4(_), from) => {
                if let Some(IpAddr::V4(from)) = from.filter(|from| !from.is_unspecified()) {
                    // struct in_pktinfo: interface, source, destination (of received ones only)
                    let mut info = [0; 12];
                    put(&mut info, 4, &from.octets());
                    control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                }
                control.push(libc::IPPROTO_IP, libc::IP_TOS, &traffic_class);
            }
            (SocketAddr::V6(to), from) => {
                if let Some(IpAddr::V6(from)) = from.filter(|from| !from.is_unspecified()) {
                    // struct in6_pktinfo: source, interface (which a link-local source must have)
                    let mut info = [0; 20];
                    put(&mut info, 0, &from.octets());
                    put(&mut info, 16, &to.scope_id().to_ne_bytes());
                    control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
                }
                control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &traffic_class);
            }
        }
        control
    }

    /// Has the datagram cut into packets of `bytes`. Source: linux/udp.h, `UDP_SEGMENT`.
    pub(super) fn cut_into(&mut self, bytes: usize) {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &bytes.to_ne_bytes());
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let end = self.len + align(HEADER + data.len());
        let Some(message) = self.bytes.get_mut(self.len..end) else {
            debug_assert!(false, "SEND_BYTES is too small");
            return;
        };
        put(message, 0, &(HEADER + data.len()).to_ne_bytes());
        put(message, LEVEL, &level.to_ne_bytes());
        put(message, KIND, &kind.to_ne_bytes());
        put(message, HEADER, data);
        self.len = end;
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}

/// One received control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cmsg<'a> {
    /// Protocol level, as of socket options.
    pub(super) level: c_int,
    /// Type within the level.
    pub(super) kind: c_int,
    /// What it says.
    pub(super) data: &'a [u8],
}

/// The control messages in `bytes`, up to the first that is cut off.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Cmsg<'_>> {
    std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(*bytes.first_chunk()?);
        let message = bytes.get(..len)?;
        let parsed = Cmsg {
            level: c_int::from_ne_bytes(array(message, LEVEL)?),
            kind: c_int::from_ne_bytes(array(message, KIND)?),
            data: message.get(HEADER..)?,
        };
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some(parsed)
    })
}

/// Length of the packets that the kernel has put together into one datagram, if it has.
/// Source: linux/udp.h, `UDP_GRO`.
pub(super) fn packet_bytes(control: &[u8]) -> Option<usize> {
    let is_gro =
        |message: &Cmsg<'_>| (message.level, message.kind) == (libc::SOL_UDP, libc::UDP_GRO);
    let message = messages(control).find(is_gro)?;
    let bytes = c_int::from_ne_bytes(array(message.data, 0)?);
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

/// The local address that a received datagram was sent to.
pub(super) fn local_address(control: &[u8]) -> Option<IpAddr> {
    messages(control).find_map(|message| match (message.level, message.kind) {
        // The third field is the address in the datagram, the second the socket's idea of it.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            Some(Ipv4Addr::from(array::<4>(message.data, 8)?).into())
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            Some(IpAddr::V6(Ipv6Addr::from(array::<16>(message.data, 0)?)).to_canonical())
        }
        _ => None,
    })
}

/// The local address that a received datagram was sent to; `None` for those to many hosts at once.
pub(super) fn unicast_address(control: &[u8]) -> Option<IpAddr> {
    let to = local_address(control)?;
    let is_unicast = match to {
        // A broadcast went to another address than the one it would be answered from.
        IpAddr::V4(_) => answering_address(control) == Some(to),
        IpAddr::V6(to) => !to.is_multicast(),
    };
    is_unicast.then_some(to)
}

/// The local address that a received IPv4 datagram is answered from.
fn answering_address(control: &[u8]) -> Option<IpAddr> {
    messages(control).find_map(|message| match (message.level, message.kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            Some(Ipv4Addr::from(array::<4>(message.data, 4)?).into())
        }
        _ => None,
    })
}

/// The `N` bytes at `at`.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let to = "[fe80::2%7]:4000".parse().unwrap();
        let from = "fe80::1".parse().unwrap();
        let control = SendCmsg::new(to, Some(from), Priority::HIGHEST);
        assert_eq!(local_address(control.as_slice()), Some(from));
        let all: Vec<_> = messages(control.as_slice()).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].data[16..], 7u32.to_ne_bytes());
        assert_eq!(all[1].level, libc::IPPROTO_IPV6);
        assert_eq!(all[1].kind, libc::IPV6_TCLASS);
        assert_eq!(all[1].data, 0xe0i32.to_ne_bytes());
    }

    #[test]
    fn a_source_of_the_other_family_and_the_unspecified_one_are_left_to_the_system() {
        let v4 = "127.0.0.1:4000".parse().unwrap();
        for from in ["::1", "0.0.0.0"] {
            let control = SendCmsg::new(v4, Some(from.parse().unwrap()), Priority::LOWEST);
            assert_eq!(messages(control.as_slice()).count(), 1, "{from}");
        }
        let mapped = "::ffff:127.0.0.2".parse().unwrap();
        let control = SendCmsg::new(v4, Some(mapped), Priority::LOWEST);
        assert_eq!(messages(control.as_slice()).count(), 2);
    }

    #[test]
    fn cut_off_or_senseless_control_messages_end_the_list() {
        let to = "127.0.0.1:4000".parse().unwrap();
        let control = SendCmsg::new(to, Some("127.0.0.2".parse().unwrap()), Priority::LOWEST);
        let bytes = control.as_slice();
        // The padding behind the last one may be missing.
        for len in 0..bytes.len() - (WORD - size_of::<c_int>()) {
            assert!(messages(&bytes[..len]).count() < 2, "{len}");
        }
        for len in [0, 1, HEADER - 1, usize::MAX] {
            let mut senseless = bytes.to_vec();
            senseless[..WORD].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(messages(&senseless).count(), 0, "{len}");
        }
    }
}
