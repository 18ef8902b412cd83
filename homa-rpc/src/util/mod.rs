//! What has no room of its own: small helpers that know nothing of calls.

pub(crate) mod downcast;
pub(crate) mod inner;
pub(crate) mod intern;
pub(crate) mod name_map;
pub(crate) mod thread_buffer;
mod waker;

pub(crate) use waker::register;
