//! From a URI to a transport: the one place that knows which backends there are.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use homa_rpc::transport::{self, Place, UriError};
use homa_transport::{BindError, Config, RpcError, Socket, Transport, native};

pub use homa_rpc::transport::Wire;

/// Where to listen, or whom to call: a URI of homa-rpc, which opens bare transports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri(transport::Uri);

/// Why a URI leads to no transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a URI of ours.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// A host that has no address.
    #[error("cannot resolve the host of {uri}: {source}")]
    Resolve {
        /// The URI.
        uri: Uri,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody listens by that name in this process.
    #[error("nobody in this process listens as {0}")]
    NoListener(Uri),
    /// The socket could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The socket was opened and does not work.
    #[error(transparent)]
    Socket(#[from] RpcError),
}

impl OpenError {
    /// Whether it is this machine that lacks something, rather than something being wrong.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Bind(error) => matches!(
                error,
                BindError::RawNotPermitted { .. } | BindError::Kernel(_)
            ),
            _ => false,
        }
    }
}

impl FromStr for Uri {
    type Err = OpenError;

    fn from_str(uri: &str) -> Result<Self, OpenError> {
        Ok(Self(uri.parse()?))
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Uri {
    /// An address on a wire.
    ///
    /// # Panics
    /// If it is [`Wire::Mem`], whose sockets have names instead.
    #[must_use]
    pub fn new(wire: Wire, addr: SocketAddr) -> Self {
        let uri = transport::Uri::of_address(wire, addr);
        Self(uri.unwrap_or_else(|| unreachable!("a socket on {wire:?} has no address")))
    }

    /// The wire.
    #[must_use]
    pub const fn wire(&self) -> Wire {
        self.0.wire()
    }

    /// The URI at which others reach a socket that listens on this one: with the port that the system
    /// chose.
    #[must_use]
    pub fn of_listener(&self, listener: &dyn Transport) -> Self {
        let uri = transport::Uri::of_address(self.wire(), listener.local_addr());
        uri.map_or_else(|| self.clone(), Self)
    }

    /// The address, as a transport takes it.
    ///
    /// # Errors
    /// If there is none.
    pub async fn resolve(&self) -> Result<SocketAddr, OpenError> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        let found = match self.0.place() {
            Place::Address(addr) => return Ok(*addr),
            Place::Process { name } => {
                let listener = Socket::mem_resolve(name);
                return listener.ok_or_else(|| OpenError::NoListener(self.clone()));
            }
            Place::Host { name, port } => tokio::net::lookup_host((name.as_str(), *port)).await,
            _ => return Err(self.unresolved(none())),
        };
        let mut found = found.map_err(|source| self.unresolved(source))?;
        found.next().ok_or_else(|| self.unresolved(none()))
    }

    fn unresolved(&self, source: io::Error) -> OpenError {
        OpenError::Resolve {
            uri: self.clone(),
            source,
        }
    }

    /// Opens a socket that others can call. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be used, or this machine does not have the wire.
    pub async fn listen(&self, config: &Config) -> Result<Arc<dyn Transport>, OpenError> {
        let config = config.clone();
        if let Place::Process { name } = self.0.place() {
            return Ok(Arc::new(Socket::mem_listen(name, config)?));
        }
        let addr = self.resolve().await?;
        Ok(match self.wire() {
            Wire::Homa => native::listen(addr, config, None)?,
            _ => Arc::new(Socket::udp(addr, config)?),
        })
    }

    /// Opens a socket to call this URI from. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// As [`Uri::listen`].
    pub fn open_client(&self, config: &Config) -> Result<Arc<dyn Transport>, OpenError> {
        let config = config.clone();
        Ok(match self.wire() {
            Wire::Homa => native::client(config, None)?,
            Wire::Mem => Arc::new(Socket::mem_client(config)?),
            _ => Arc::new(Socket::udp_client(config)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn uris_of_every_wire_are_opened_and_found() {
        for uri in ["homa+udp://127.0.0.1:0", "homa+mem://wire_test"] {
            let uri: Uri = uri.parse().unwrap();
            let listener = uri.listen(&Config::default()).await.unwrap();
            let found = uri.of_listener(&*listener).resolve().await.unwrap();
            assert_eq!(found, listener.local_addr(), "{uri}");
        }
        let nobody: Uri = "homa+mem://nobody".parse().unwrap();
        let error = nobody.resolve().await.unwrap_err().to_string();
        assert!(error.contains("homa+mem://nobody"), "{error}");
    }

    #[tokio::test]
    async fn a_host_without_address_is_an_error_that_names_the_uri() {
        let uri: Uri = "homa+udp://no-such-host.invalid:1".parse().unwrap();
        let error = uri.resolve().await.unwrap_err();
        assert!(matches!(error, OpenError::Resolve { .. }), "{error:?}");
        assert!(error.to_string().contains(&uri.to_string()), "{error}");
    }
}
