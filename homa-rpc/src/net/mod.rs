//! Where to call and where to listen: URIs, and the sockets that they stand for.

mod error;
pub(crate) mod listen;
pub(crate) mod sockets;
pub(crate) mod uri;

pub use error::ChannelError;
