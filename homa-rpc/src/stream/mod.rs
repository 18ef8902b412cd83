//! Calls of several frames: streams, and messages that do not fit into one frame.
//!
//! ```text
//! body ─► Outbox ─► frames ─► Inbox ─► body
//! ```
//!
//! [`client`] and [`server`] are the two ends as state machines. They know nothing of sockets, clocks or
//! async: frames, what the application does, and the time since the call began are arguments, frames are
//! results. `client/stream` and `server/stream` drive them. The wire format is in `WIRE.md`, sections 7 and 8.

pub(crate) mod client;
mod error;
mod inbox;
mod outbox;
mod pulls;
mod serial;
pub(crate) mod server;
mod window;

#[cfg(test)]
mod tests;

pub(crate) use error::StreamError;
pub(crate) use outbox::Outbox;

/// Bytes of the request that a client may send before it has heard anything, and of a response to a client
/// that has not said how many it takes.
pub(crate) const FIRST_CREDIT: u32 = 65_536;

/// Items are put together into frames of up to this length, in bytes, unless credit ends before.
const RUN_MAX: usize = 65_536;

/// An item up to this length, head included, waits for credit as a whole rather than being cut.
const WAITS_MAX: usize = 32_768;

/// Longest piece of a message that does not fit into one frame, in bytes.
const PIECE_MAX: usize = 480_000;
