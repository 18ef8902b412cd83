//! Several datagrams in one system call.

use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;

use libc::c_int;
use socket2::{SockAddr, SockAddrStorage, Socket};

use super::super::cmsg::{RECEIVE_BYTES, SendCmsg};
use super::{Received, check, socklen};

/// Datagrams that one call sends at most.
pub(in crate::link) const SEND_MAX: usize = 32;
/// Datagrams that one call receives at most.
pub(in crate::link) const RECEIVE_MAX: usize = 8;

/// A datagram to send.
pub(in crate::link) struct Outgoing {
    /// The receiver, as the socket's system calls want it.
    pub(in crate::link) name: SockAddr,
    /// Its bytes: which of the slices given beside it.
    pub(in crate::link) slices: Range<usize>,
    /// What else the system is told.
    pub(in crate::link) control: SendCmsg,
    /// Packets that it holds.
    pub(in crate::link) packets: usize,
}

/// Sends the leading datagrams, `N` at most, and returns how many were taken. Never blocks.
///
/// # Errors
/// That of the first datagram.
pub(in crate::link) fn send_many<const N: usize>(
    socket: &Socket,
    datagrams: &[Option<Outgoing>],
    slices: &[IoSlice<'_>],
) -> io::Result<usize> {
    // SAFETY: all zeros is a valid `mmsghdr`: null pointers with lengths of 0.
    let mut headers: [libc::mmsghdr; N] = unsafe { mem::zeroed() };
    let mut count = 0;
    for (header, datagram) in headers.iter_mut().zip(datagrams.iter().flatten()) {
        let header = &mut header.msg_hdr;
        let slices = slices.get(datagram.slices.clone()).unwrap_or_default();
        let control = datagram.control.as_slice();
        header.msg_name = datagram.name.as_ptr().cast_mut().cast();
        header.msg_namelen = datagram.name.len();
        // An `IoSlice` has the layout of `iovec`, as its documentation promises.
        header.msg_iov = slices.as_ptr().cast_mut().cast();
        header.msg_iovlen = slices.len() as _;
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len() as _;
        count += 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the first `count` headers point to names, slices and control messages that live until
    // the call is over, with their lengths; the kernel only reads those, and writes the headers.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags as _) };
    check(sent)?;
    Ok(usize::try_from(sent).unwrap_or(0))
}

/// Control messages of received datagrams.
pub(in crate::link) type Controls = [[u8; RECEIVE_BYTES]; RECEIVE_MAX];

/// Receives into the leading slots of `slot_bytes` each of `buffer`, and returns how many
/// datagrams came. Never blocks.
pub(in crate::link) fn receive_many(
    socket: &Socket,
    buffer: &mut [u8],
    slot_bytes: usize,
    controls: &mut Controls,
    received: &mut [Received; RECEIVE_MAX],
) -> io::Result<usize> {
    let mut names: [SockAddrStorage; RECEIVE_MAX] =
        std::array::from_fn(|_| SockAddrStorage::zeroed());
    // SAFETY: all zeros is valid: null pointers with lengths of 0.
    let (mut slots, mut headers): ([libc::iovec; RECEIVE_MAX], [libc::mmsghdr; RECEIVE_MAX]) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    let mut count = 0;
    let parts = buffer.chunks_exact_mut(slot_bytes.max(1));
    let storage = names.iter_mut().zip(controls.iter_mut());
    for (((header, slot), bytes), (name, control)) in
        headers.iter_mut().zip(&mut slots).zip(parts).zip(storage)
    {
        slot.iov_base = bytes.as_mut_ptr().cast();
        slot.iov_len = bytes.len();
        let header = &mut header.msg_hdr;
        header.msg_name = (&raw mut *name).cast();
        header.msg_namelen = socklen(size_of::<SockAddrStorage>());
        header.msg_iov = &raw mut *slot;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = control.len() as _;
        count += 1;
    }
    // SAFETY: the first `count` headers point to a name, a slot of the buffer and a control buffer of
    // their own each, with their lengths, which nothing else uses until the call is over; any bytes
    // are valid in them.
    let result = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    check(result)?;
    let came = usize::try_from(result).unwrap_or(0);
    for ((header, name), received) in headers.iter().zip(names).zip(received).take(came) {
        let hdr = &header.msg_hdr;
        *received = Received {
            len: usize::try_from(header.msg_len).unwrap_or(0),
            control_len: hdr.msg_controllen as _,
            address: socket_address(name, hdr.msg_namelen),
            truncated: hdr.msg_flags & libc::MSG_TRUNC != 0,
        };
    }
    Ok(came)
}

fn socket_address(name: SockAddrStorage, len: libc::socklen_t) -> Option<SocketAddr> {
    // SAFETY: the kernel has written an address of this length, into storage that was all zeros.
    let name = unsafe { SockAddr::new(name, len) };
    name.as_socket()
}

/// The MTU of the route to `peer`, in bytes, IP header included. Leaves `socket`, a UDP socket, without
/// a peer; nothing is sent.
pub(in crate::link) fn route_mtu(socket: &Socket, peer: SocketAddr) -> io::Result<u32> {
    disconnect(socket)?;
    socket.connect(&peer.into())?;
    let (level, name) = match peer {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut value: c_int = 0;
    let mut len = socklen(size_of::<c_int>());
    // SAFETY: the pointer and the length describe `value`, any bytes of which are valid; both outlive
    // the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    check(result)?;
    disconnect(socket)?;
    u32::try_from(value).map_err(|_| io::Error::other("the route's MTU is negative"))
}

/// Takes a datagram socket's peer away: the source address that went with it must not stay.
fn disconnect(socket: &Socket) -> io::Result<()> {
    let nobody = libc::sockaddr {
        sa_family: 0, // AF_UNSPEC
        sa_data: [0; 14],
    };
    let len = socklen(size_of::<libc::sockaddr>());
    // SAFETY: the pointer and the length describe `nobody`, which outlives the call and is only read.
    check(unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, len) })
}
