//! gRPC's prefix of a message: a flag byte and the message's length.

use crate::message::limits;
use crate::message::status::Status;

pub(crate) const PREFIX_LEN: usize = 5;

/// The prefix of a message of `len` bytes.
///
/// # Errors
/// If it has no room for that length.
pub(crate) fn write(len: usize) -> Result<[u8; PREFIX_LEN], Status> {
    let Ok(len) = u32::try_from(len) else {
        return Err(Status::resource_exhausted(format!(
            "a message of {len} bytes: at most {} bytes can be sent",
            u32::MAX
        )));
    };
    let [a, b, c, d] = len.to_be_bytes();
    Ok([0, a, b, c, d])
}

/// The length of the message behind this prefix, if that is at most `max`; `option` is what sets this limit.
///
/// # Errors
/// If it is longer, or compressed.
pub(super) fn read(
    prefix: [u8; PREFIX_LEN],
    max: usize,
    option: &'static str,
) -> Result<usize, Status> {
    let [flag, a, b, c, d] = prefix;
    if flag != 0 {
        return Err(Status::unimplemented(format!(
            "a message with the compression flag {flag}: compression is not supported"
        )));
    }
    let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    limits::check(len, max, option)?;
    Ok(len)
}
