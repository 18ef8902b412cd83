//! The error queue of a socket: what the network and our own system say of packets sent before.

use std::io;
use std::net::SocketAddr;

use socket2::Socket;

use crate::link::icmp::{ExtendedError, NetworkError};
use crate::link::{cmsg, sys};
use crate::wire::COMMON_HEADER_BYTES;

/// Errors collected at a time. The queue shares the bounds of the receive buffer; what comes meanwhile may
/// wait for the next time.
const ERRORS_MAX: usize = 1024;

/// An error about a packet.
#[derive(Debug)]
pub(in crate::link) struct PacketError<'q> {
    /// Where the packet was to go, as the socket's family shows it.
    pub(in crate::link) address: SocketAddr,
    /// What is wrong.
    pub(in crate::link) error: NetworkError,
    /// It came from the network. Errors of the system's own making quote nothing.
    pub(in crate::link) from_network: bool,
    /// The start of the packet, as far as the error quotes it.
    pub(in crate::link) quoted: &'q [u8],
}

/// Empties the queue. Returns whether an error in it may have made a system call fail that had nothing to do
/// with it.
pub(in crate::link) fn collect(socket: &Socket, mut each: impl FnMut(&PacketError<'_>)) -> bool {
    let mut any_from_network = false;
    let mut control = [0; cmsg::RECEIVE_BYTES];
    let mut quoted = [0; COMMON_HEADER_BYTES];
    for _ in 0..ERRORS_MAX {
        let received = match sys::receive(socket, &mut quoted, &mut control, libc::MSG_ERRQUEUE) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let control = control.get(..received.control_len).unwrap_or_default();
        let Some(error) = cmsg::messages(control).find_map(ExtendedError::parse) else {
            continue;
        };
        any_from_network |= error.is_from_network();
        if let (Some(address), Some(meaning)) = (received.address, error.meaning()) {
            each(&PacketError {
                address,
                error: meaning,
                from_network: error.is_from_network(),
                quoted: quoted.get(..received.len).unwrap_or_default(),
            });
        }
    }
    any_from_network
}
