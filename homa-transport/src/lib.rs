//! The Homa transport protocol in userspace.

pub mod endpoint;
pub mod error;
pub mod link;
pub mod message;
pub mod stats;
pub mod transport;
pub mod units;
pub mod wire;

pub use error::{BindError, CloseReason, ConfigError, Delivery, RpcError, Unreachable};
pub use message::Message;
pub use stats::Stats;
pub use transport::{Incoming, RequestSink, Responder, Transport};
