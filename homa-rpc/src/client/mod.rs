//! The client side: [`Channel`] sends calls, [`Caller`] makes them typed.

mod attempt;
mod caller;
mod caller_streaming;
mod channel;
mod future;
mod resolver;
mod shared;
mod stream;
#[cfg(test)]
mod tests;

pub use caller::Caller;
pub use channel::{Channel, ChannelBuilder};
pub use future::ResponseFuture;

pub use crate::body::CallService;
pub use crate::net::ChannelError;
