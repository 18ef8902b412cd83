//! The Homa transport protocol without I/O.
//!
//! - [`wire`]: the packets of today's Linux module, from and to bytes;
//! - [`endpoint`]: the protocol of one port. Time, packets and randomness come as arguments;
//! - [`config`], [`message`], [`error`], [`stats`], [`units`]: what it is told, and tells.
//!
//! It knows no sockets, clocks, threads or async: `homa-transport` has sockets, `homa-sim` whole networks of
//! endpoints in virtual time. How to drive an endpoint stands at [`endpoint`].

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

pub mod config;
pub mod endpoint;
pub mod error;
mod list;
pub mod message;
mod shrink;
pub mod slab;
pub mod stats;
pub mod units;
pub mod wire;

pub use config::{Config, Wire};
pub use endpoint::Endpoint;
pub use error::{CloseReason, ConfigError, Delivery, Limit, Report, RpcError, Unreachable};
pub use message::Message;
pub use stats::{Backend, Stats};
