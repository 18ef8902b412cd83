//! Counts the bytes that a test holds: those that its thread allocated and has not freed.
#![allow(unreachable_pub, reason = "a module of a test")]

#[allow(unsafe_code, reason = "an allocator is unsafe to write")]
mod sys;

#[global_allocator]
static ALLOCATOR: sys::Counting = sys::Counting;

/// Bytes that this thread holds.
pub fn live_bytes() -> i64 {
    sys::LIVE.get()
}
