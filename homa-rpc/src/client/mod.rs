//! The client side: [`Channel`] sends calls, [`Caller`] makes them typed.

mod attempt;
mod caller;
mod channel;
mod future;
mod resolve;
mod shared;
#[cfg(test)]
mod tests;

pub use caller::{CallService, Caller};
pub use channel::{Channel, ChannelBuilder};
pub use future::ResponseFuture;

pub use crate::net::ChannelError;
