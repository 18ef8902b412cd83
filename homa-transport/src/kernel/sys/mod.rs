//! The socket interface of the Linux Homa module as of July 2026, and all `unsafe` of this backend.
//!
//! Everything is in the byte order of the machine. Source: homa.h; homa_plumbing.c, `homa_load`,
//! which asserts the same sizes.
#![expect(
    unsafe_code,
    reason = "a protocol of its own, with control blocks that no library knows, and shared memory"
)]

mod bpages;
mod mmap;

use std::io;
use std::mem::{offset_of, size_of};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_int, c_void, socklen_t};
use socket2::{SockAddr, SockAddrStorage, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(super) use self::bpages::{Port, Received, Region};
use self::mmap::Mmap;

/// IP protocol number, and level of the socket options.
pub(in crate::kernel) const IPPROTO_HOMA: c_int = 146;
/// Bytes of a page of the buffer region, a *bpage*.
const PAGE_BYTES: usize = 1 << 16;
/// Pages that the longest message takes.
const MESSAGE_PAGES_MAX: usize = 16;
/// Ports from here on are given to sockets by the module; servers choose one below.
pub(in crate::kernel) const DEFAULT_PORT_MIN: u16 = 0x8000;

const SO_HOMA_RCVBUF: c_int = 10;
const SO_HOMA_SERVER: c_int = 11;
const HOMAIOCINFO: u32 = read_write(0x90, size_of::<Info>());
const HOMAIOCABORT: u32 = read_write(0x91, size_of::<AbortArgs>());

/// The number of an ioctl of the group `h` that reads and writes an argument of `size` bytes.
/// Source: asm-generic/ioctl.h, `_IOWR`.
const fn read_write(number: u32, size: usize) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sizes of the structures below"
    )]
    let size = size as u32;
    3 << 30 | size << 16 | (b'h' as u32) << 8 | number
}

/// `struct homa_sendmsg_args`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SendArgs {
    /// 0 for a request, which gets its id here; else that of the request to answer.
    id: u64,
    /// Comes back with the response.
    completion_cookie: u64,
    flags: u32,
    reserved: u32,
}

/// `struct homa_recvmsg_args`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ReceiveArgs {
    /// 0 for any message; out: its RPC. Odd: we are the server.
    id: u64,
    /// Out: that of the request, if this is about a call of ours.
    completion_cookie: u64,
    /// In: offsets handed back; out: offsets of the message.
    page_count: u32,
    reserved: u32,
    page_offsets: [u32; MESSAGE_PAGES_MAX],
}

/// `struct homa_rcvbuf_args`.
#[repr(C)]
struct RegionArgs {
    start: u64,
    length: u64,
}

/// `struct homa_abort_args`.
#[repr(C)]
#[derive(Default)]
struct AbortArgs {
    /// A call of ours; 0: all of the socket's.
    id: u64,
    /// 0: forgotten; else the errno it ends with.
    error: u32,
    pad1: u32,
    pad2: [u64; 2],
}

/// `struct homa_info`.
#[repr(C)]
struct Info {
    rpc_info: u64,
    rpc_info_length: u64,
    pool_available_bytes: u64,
    port: u32,
    rpc_count: u32,
    error_message: [u8; 104],
}

const _: () = {
    assert!(size_of::<SendArgs>() == 24);
    assert!(offset_of!(SendArgs, completion_cookie) == 8);
    assert!(offset_of!(SendArgs, flags) == 16);
    assert!(size_of::<ReceiveArgs>() == 88);
    assert!(offset_of!(ReceiveArgs, page_count) == 16);
    assert!(offset_of!(ReceiveArgs, page_offsets) == 24);
    assert!(size_of::<RegionArgs>() == 16);
    assert!(size_of::<AbortArgs>() == 32);
    assert!(offset_of!(AbortArgs, error) == 8);
    assert!(size_of::<Info>() == 136);
    assert!(offset_of!(Info, port) == 24);
    assert!(offset_of!(Info, error_message) == 32);
    assert!(HOMAIOCINFO == 0xC088_6890);
    assert!(HOMAIOCABORT == 0xC020_6891);
};

/// Registers a port with the tokio runtime of the calling task, for arriving messages.
pub(in crate::kernel) fn register(port: Port) -> io::Result<AsyncFd<Port>> {
    // SAFETY: a `Port` owns its descriptor, which stays the same and open until it is dropped, and
    // the `AsyncFd` owns the `Port`.
    Ok(unsafe { AsyncFd::register_with_interest(port, Interest::READABLE) }?)
}

/// Sends a request and returns its id. The module has copied the message when this returns, or there
/// was no room for it (`WouldBlock`).
pub(in crate::kernel) fn send_request(
    socket: &Socket,
    peer: &SockAddr,
    cookie: u64,
    parts: &[io::IoSlice<'_>],
) -> io::Result<u64> {
    let mut args = SendArgs {
        completion_cookie: cookie,
        ..SendArgs::default()
    };
    send(socket, peer, &mut args, parts)?;
    Ok(args.id)
}

/// Answers the request `id` of `peer`. Succeeds without an effect if the module has forgotten it.
pub(in crate::kernel) fn send_response(
    socket: &Socket,
    peer: &SockAddr,
    id: u64,
    parts: &[io::IoSlice<'_>],
) -> io::Result<()> {
    let mut args = SendArgs {
        id,
        ..SendArgs::default()
    };
    send(socket, peer, &mut args, parts)
}

fn send(
    socket: &Socket,
    peer: &SockAddr,
    args: &mut SendArgs,
    parts: &[io::IoSlice<'_>],
) -> io::Result<()> {
    let header = send_header(peer, args, parts);
    loop {
        // SAFETY: `header` points to a socket address, to slices that `IoSlice` guarantees to have the
        // layout of `iovec`, and to a control block of the size the module reads and writes; all
        // outlive the call. The call only reads the first two.
        let result = unsafe {
            libc::sendmsg(
                socket.as_raw_fd(),
                &raw const header,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if let Some(result) = finished(result) {
            return result.map(|_zero| ());
        }
    }
}

/// What `sendmsg` gets. The length of the control block stays 0: else the system would copy it and
/// the module not find it. Source: man/sendmsg.2.
fn send_header(peer: &SockAddr, args: &mut SendArgs, parts: &[io::IoSlice<'_>]) -> libc::msghdr {
    let mut header = empty_header();
    header.msg_name = peer.as_ptr().cast_mut().cast();
    header.msg_namelen = peer.len();
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len() as _;
    header.msg_control = ptr::from_mut(args).cast();
    header
}

/// Takes one message, or the end of a call, and hands back the pages named in `args`. Returns the
/// length and the peer's address. Never blocks. On an error `args` says which RPC has failed, if any.
fn receive(socket: &Socket, args: &mut ReceiveArgs) -> io::Result<(usize, Option<SocketAddr>)> {
    let mut address = SockAddrStorage::zeroed();
    let mut header = empty_header();
    header.msg_name = (&raw mut address).cast();
    header.msg_namelen = address.size_of();
    header.msg_control = ptr::from_mut(args).cast();
    header.msg_controllen = size_of::<ReceiveArgs>() as _;
    // SAFETY: `header` points to room for an address and to a control block, with their true sizes;
    // both outlive the call, and any bytes are valid values of the latter. The message itself goes
    // to the region of the socket, of which the module writes only what no `Bpages` holds.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system has written an address of this length.
    let address = unsafe { SockAddr::new(address, header.msg_namelen) };
    Ok((result.unsigned_abs(), address.as_socket()))
}

/// Forgets the call `id`, or, with 0, all calls of the socket.
pub(in crate::kernel) fn abort(socket: &Socket, id: u64) -> io::Result<()> {
    let mut args = AbortArgs {
        id,
        ..AbortArgs::default()
    };
    // SAFETY: the pointer is to the structure that this ioctl reads, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), HOMAIOCABORT as _, &raw mut args) })
}

/// What the module says about a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct SocketInfo {
    pub(in crate::kernel) port: u16,
    /// RPCs of both sides, until their last packet.
    pub(in crate::kernel) rpc_count: u32,
    /// Why the last call failed; empty if none did.
    pub(in crate::kernel) error_message: String,
}

pub(in crate::kernel) fn info(socket: &Socket) -> io::Result<SocketInfo> {
    let mut info = Info {
        rpc_info: 0,
        rpc_info_length: 0,
        pool_available_bytes: 0,
        port: 0,
        rpc_count: 0,
        error_message: [0; 104],
    };
    // SAFETY: the pointer is to the structure that this ioctl reads and writes, any bytes of which
    // are valid and which outlives the call. It has no room for more (`rpc_info` is 0).
    check(unsafe { libc::ioctl(socket.as_raw_fd(), HOMAIOCINFO as _, &raw mut info) })?;
    let text = info.error_message.split(|&byte| byte == 0).next();
    Ok(SocketInfo {
        port: u16::try_from(info.port).map_err(|_| io::ErrorKind::InvalidData)?,
        rpc_count: info.rpc_count,
        error_message: String::from_utf8_lossy(text.unwrap_or_default()).into_owned(),
    })
}

/// `error` with what the module has to say about it.
pub(in crate::kernel) fn explained(socket: &Socket, error: &io::Error) -> io::Error {
    match info(socket) {
        Ok(info) if !info.error_message.is_empty() => {
            io::Error::new(error.kind(), format!("{error}: {}", info.error_message))
        }
        _ => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Lets the module take requests for this socket, or answer them with ICMP "port unreachable".
pub(in crate::kernel) fn set_server(socket: &Socket, server: bool) -> io::Result<()> {
    set_option(socket, SO_HOMA_SERVER, &c_int::from(server))
}

/// Lets the module put messages into `memory`.
fn set_region(socket: &Socket, memory: &Mmap) -> io::Result<()> {
    let args = RegionArgs {
        start: memory.start() as u64,
        length: memory.len() as u64,
    };
    set_option(socket, SO_HOMA_RCVBUF, &args)
}

fn set_option<T>(socket: &Socket, name: c_int, value: &T) -> io::Result<()> {
    let len = socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer and the length describe `value`, which outlives the call and is only read.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            IPPROTO_HOMA,
            name,
            ptr::from_ref(value).cast::<c_void>(),
            len,
        )
    })
}

fn empty_header() -> libc::msghdr {
    // SAFETY: a structure of integers and pointers, for which zero bytes are valid.
    unsafe { std::mem::zeroed() }
}

/// The result of a system call; `None` if a signal interrupted it.
fn finished(result: isize) -> Option<io::Result<usize>> {
    if result >= 0 {
        return Some(Ok(result.unsigned_abs()));
    }
    let error = io::Error::last_os_error();
    (error.kind() != io::ErrorKind::Interrupted).then_some(Err(error))
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_send_names_the_control_block_without_a_length() {
        let peer = SockAddr::from(SocketAddr::from(([10, 0, 0, 1], 4000)));
        let mut args = SendArgs {
            completion_cookie: 7,
            ..SendArgs::default()
        };
        let parts = [io::IoSlice::new(b"ab"), io::IoSlice::new(b"c")];
        let control = ptr::from_mut(&mut args).cast();
        let header = send_header(&peer, &mut args, &parts);
        assert_eq!(header.msg_controllen, 0);
        assert_eq!(header.msg_control, control);
        assert_eq!(header.msg_iovlen, 2);
        assert_eq!(header.msg_namelen, 16);
        assert!(header.msg_flags == 0 && !header.msg_name.is_null());
    }

    #[test]
    fn a_socket_of_another_protocol_refuses_the_calls_without_harm() {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        let memory = Mmap::map(PAGE_BYTES).unwrap();
        assert!(info(&socket).is_err());
        assert!(abort(&socket, 0).is_err());
        assert!(set_server(&socket, true).is_err());
        assert!(set_region(&socket, &memory).is_err());
        let mut args = ReceiveArgs::default();
        let error = receive(&socket, &mut args).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(args, ReceiveArgs::default());
    }
}
