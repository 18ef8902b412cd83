//! The Homa transport protocol in userspace.

pub mod config;
pub mod endpoint;
pub mod error;
pub mod link;
pub mod message;
#[cfg(feature = "sim")]
pub mod sim;
mod socket;
pub mod stats;
pub mod transport;
pub mod units;
pub mod wire;

pub use config::{Config, Wire};
pub use endpoint::Endpoint;
pub use error::{BindError, CloseReason, ConfigError, Delivery, RpcError, Unreachable};
pub use message::Message;
pub use socket::Socket;
pub use stats::Stats;
pub use transport::{Incoming, RequestSink, Responder, Transport};
