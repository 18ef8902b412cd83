//! System calls of the tests. All their `unsafe` is here.
#![allow(unsafe_code, reason = "std knows neither namespaces nor capabilities")]

use std::io;

/// Moves the calling thread into a new network namespace.
pub(crate) fn enter_new_network() -> io::Result<()> {
    // SAFETY: takes no pointers, and concerns the calling thread alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

const CAP_NET_RAW: u32 = 13;

/// Takes CAP_NET_RAW from the calling thread.
pub(crate) fn give_up_raw_sockets() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // Source: linux/capability.h, _LINUX_CAPABILITY_VERSION_3: two sets of 32.
    let mut header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let mut data = [Data::default(), Data::default()];
    // SAFETY: both pointers are to values of the layout that this version names, and outlive the calls.
    unsafe {
        check(libc::syscall(
            libc::SYS_capget,
            &raw mut header,
            data.as_mut_ptr(),
        ))?;
        data[0].effective &= !(1 << CAP_NET_RAW);
        check(libc::syscall(
            libc::SYS_capset,
            &raw mut header,
            data.as_ptr(),
        ))
    }
}

fn check(result: impl Into<i64>) -> io::Result<()> {
    if result.into() < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
