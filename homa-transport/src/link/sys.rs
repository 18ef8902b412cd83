//! The system calls of the links. All their `unsafe` is here.
#![expect(
    unsafe_code,
    reason = "socket2 gives receive buffers as uninitialised memory and knows few options"
)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use libc::{c_int, c_void, socklen_t};
use socket2::{MaybeUninitSlice, MsgHdrMut, SockAddr, SockFilter, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(super) mod batch;

/// Makes pending errors count as exceptional data (POLLPRI), for which a task can wait.
/// Source: asm-generic/socket.h; only the parisc and sparc ports of Linux have another number.
pub(super) const SO_SELECT_ERR_QUEUE: c_int = 45;
/// Memory and drop counters of a socket. Source: asm-generic/socket.h, exceptions as above.
const SO_MEMINFO: c_int = 55;

/// Has glibc give memory back to the system that it has no use for.
/// Source: malloc_trim(3).
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, by any thread.
    let _given_back = unsafe { libc::malloc_trim(0) };
}

/// Registers a socket with the tokio runtime of the calling task.
pub(super) fn register(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor, which stays the same and open until it is dropped, and
    // the `AsyncFd` owns the `Socket`.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

/// What one `recvmsg` brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    /// Bytes written to the buffer.
    pub(super) len: usize,
    /// Bytes written to the control buffer.
    pub(super) control_len: usize,
    /// The address that came with it, as the socket's family shows it.
    pub(super) address: Option<SocketAddr>,
    /// The datagram was longer than the buffer.
    pub(super) truncated: bool,
}

/// Receives one datagram, or one entry of the error queue if `flags` says so. Never blocks.
pub(super) fn receive(
    socket: &Socket,
    buffer: &mut [u8],
    control: &mut [u8],
    flags: c_int,
) -> io::Result<Received> {
    // The longest address of the two families, for its length.
    let mut address = SockAddr::from(SocketAddr::from(([0u16; 8], 0)));
    // SAFETY: only `recvmsg` uses the two results, and the kernel writes initialised bytes.
    let (buffer, control) = unsafe { (as_uninit(buffer), as_uninit(control)) };
    let mut buffers = [MaybeUninitSlice::new(buffer)];
    let mut message = MsgHdrMut::new()
        .with_addr(&mut address)
        .with_buffers(&mut buffers)
        .with_control(control);
    let len = socket.recvmsg(&mut message, flags | libc::MSG_DONTWAIT)?;
    let control_len = message.control_len();
    let truncated = message.flags().is_truncated();
    Ok(Received {
        len,
        control_len,
        address: address.as_socket(),
        truncated,
    })
}

/// The same bytes, as socket2 wants them.
///
/// # Safety
/// Nothing uninitialised may be written through the result.
unsafe fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    let len = bytes.len();
    // SAFETY: same address, length, alignment and lifetime, and every u8 is a valid MaybeUninit<u8>;
    // the caller sees to it that the bytes stay valid u8s.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) }
}

/// Sets a socket option whose value is an integer.
pub(super) fn set_option(
    socket: &Socket,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call and is only read.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            socklen(size_of::<c_int>()),
        )
    };
    check(result)
}

/// Makes `program` choose, for each datagram, the socket of the group to which `socket` belongs or will
/// belong (`SO_ATTACH_REUSEPORT_CBPF`).
pub(super) fn attach_reuseport_program(socket: &Socket, program: &[SockFilter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len,
        // A `SockFilter` has the layout of `sock_filter`.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the pointer and the length describe `program`, whose own describe the slice; both outlive
    // the call, which only reads them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast::<c_void>(),
            socklen(size_of::<libc::sock_fprog>()),
        )
    };
    check(result)
}

/// Datagrams that the system dropped at this socket, most of them for want of buffer space.
pub(super) fn receive_drops(socket: &Socket) -> io::Result<u32> {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut counters = [0u32; DROPS + 1];
    let mut len = socklen(size_of_val(&counters));
    // SAFETY: the pointer and the length describe `counters`, any bytes of which are valid; both
    // outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            counters.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    check(result)?;
    Ok(counters[DROPS])
}

/// What `poll` says about sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SendReadiness {
    /// There is room for a datagram.
    pub(super) writable: bool,
    /// An error is pending.
    pub(super) error: bool,
}

/// Looks whether the socket takes a datagram. Never blocks.
pub(super) fn send_readiness(socket: &Socket) -> io::Result<SendReadiness> {
    let mut entry = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: the pointer is to one valid pollfd, as the count says, which outlives the call.
    let result = unsafe { libc::poll(&raw mut entry, 1, 0) };
    check(result)?;
    Ok(SendReadiness {
        writable: entry.revents & libc::POLLOUT != 0,
        error: entry.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0,
    })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn socklen(len: usize) -> socklen_t {
    socklen_t::try_from(len).unwrap_or(socklen_t::MAX)
}
