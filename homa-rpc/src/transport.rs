//! What carries calls: [`Channel`] and [`Server`], with the sockets, settings and errors that they take and
//! give.
//!
//! The names are those of `tonic::transport`, but for its `Endpoint`: there are no connections to describe.
//! What is at the root of the crate as well is the same there.
//!
//! ```no_run
//! use homa_rpc::transport::{Channel, Config, Error, Server};
//!
//! # async fn example() -> Result<(), Error> {
//! let config = Config {
//!     shards: 2,
//!     ..Config::default()
//! };
//! let channel = Channel::builder().config(config.clone()).build("homa+udp://10.0.0.7:4000")?;
//! Server::builder().config(config).serve("homa+udp://0.0.0.0:4000").await?;
//! # Ok(())
//! # }
//! ```

pub use homa_transport::{
    BindError, CloseReason, Config, ConfigError, Delivery, NativeBackend, RpcError, Socket, Stats,
    Transport,
};

pub use crate::client::{Channel, ChannelBuilder, ChannelError};
pub use crate::net::uri::{Place, Uri, UriError, Wire};
pub use crate::server::{BoundServer, Server, ServerBuilder, ServerError};

/// Why a channel or a server cannot be made, or a server not run. For functions that do several of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of a channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// Of a server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Of a URI.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// Of a socket that was opened without either.
    #[error(transparent)]
    Bind(#[from] BindError),
}
