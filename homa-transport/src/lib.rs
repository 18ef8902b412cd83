//! The Homa transport protocol in userspace.
//!
//! Homa moves messages, not bytes: a request goes to a server without a connection, its response comes
//! back, and short messages overtake long ones at the sender, in the network and at the receiver. What
//! is here, from the network upwards:
//!
//! - [`wire`]: the packets of today's Linux module, from and to bytes;
//! - [`endpoint`]: the protocol of one port, without sockets, clocks or threads;
//! - [`link`]: ways to move packets: raw sockets of IP protocol 146, UDP (`WIRE-UDP.md`) and within the
//!   process;
//! - [`Socket`]: an endpoint over a link, driven by one tokio task;
//! - [`KernelSocket`]: a socket of the Linux Homa module, which does all this in the kernel;
//! - [`native`]: the choice of who speaks `homa://` on this host;
//! - [`transport`]: what an RPC layer sees of all this;
//! - `sim` (feature `sim`): whole networks of endpoints in virtual time, from one seed.
//!
//! ```
//! use std::sync::Arc;
//!
//! use homa_transport::transport::{Incoming, call};
//! use homa_transport::{Config, Socket, Transport};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Socket::udp("127.0.0.1:0".parse()?, Config::default())?;
//! server.serve(Arc::new(|request: Incoming| {
//!     // This runs in the driver's task: longer work is spawned.
//!     let response = request.message.to_ascii_uppercase();
//!     let _ = request.responder.respond(response.into());
//! }))?;
//!
//! let client = Arc::new(Socket::udp_client(Config::default())?);
//! let response = call(client, server.local_addr(), b"hello".as_slice().into()).await?;
//! assert_eq!(response, "HELLO".as_bytes());
//! # Ok(())
//! # }
//! ```
//!
//! Peers are trusted as much as the network: packets are neither encrypted nor authenticated.

mod calls;
pub mod error;
pub mod kernel;
pub mod link;
pub mod native;
mod socket;
pub mod transport;

/// Whole networks of endpoints in virtual time, from one seed, and sockets on them.
#[cfg(feature = "sim")]
pub mod sim {
    #[doc(inline)]
    pub use homa_sim::*;

    pub use crate::link::sim::{SimLink, SimNetwork};
}

#[doc(inline)]
pub use homa_protocol::{config, endpoint, message, stats, units, wire};

pub use error::{
    BindError, CloseReason, ConfigError, Delivery, Limit, Report, RpcError, Unreachable,
};
pub use homa_protocol::{Backend, Config, Endpoint, Message, Stats, Wire};
pub use kernel::KernelSocket;
pub use native::NativeBackend;
pub use socket::Socket;
pub use transport::{Incoming, RequestSink, Respond, Responder, Transport};
