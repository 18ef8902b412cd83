//! From a URI to a transport: the one place that knows which backends there are.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use homa_transport::{BindError, Config, RpcError, Socket, Transport, native};

const FORMS: &str = "homa://host:port, homa+udp://host:port or homa+mem://name";

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// IP protocol 146: the kernel module, or raw sockets.
    Homa,
    /// The same packets inside UDP.
    Udp,
    /// Within the process.
    Mem,
}

/// Where to listen, or whom to call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Uri {
    wire: Wire,
    /// `host:port`, or a name.
    authority: String,
}

/// Why a URI leads to no transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a URI of ours.
    #[error("{0:?} is no URI to be used here: expected {FORMS}")]
    Uri(String),
    /// A host that has no address, or a port that is none.
    #[error("cannot resolve {authority:?} (expected host:port): {source}")]
    Resolve {
        /// Host and port.
        authority: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody listens by that name in this process.
    #[error("nobody in this process listens as {0:?}")]
    NoListener(String),
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

impl Wire {
    const fn scheme(self) -> &'static str {
        match self {
            Self::Homa => "homa",
            Self::Udp => "homa+udp",
            Self::Mem => "homa+mem",
        }
    }
}

impl FromStr for Uri {
    type Err = OpenError;

    fn from_str(uri: &str) -> Result<Self, OpenError> {
        let unknown = || OpenError::Uri(uri.to_owned());
        let (scheme, rest) = uri.split_once("://").ok_or_else(unknown)?;
        let wires = [Wire::Homa, Wire::Udp, Wire::Mem];
        let wire = wires
            .into_iter()
            .find(|wire| wire.scheme().eq_ignore_ascii_case(scheme))
            .ok_or_else(unknown)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '?', '#', '@']) {
            return Err(unknown());
        }
        Ok(Self {
            wire,
            authority: authority.to_owned(),
        })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.wire.scheme(), self.authority)
    }
}

impl Uri {
    /// An address on a wire. In-process sockets have names instead.
    #[must_use]
    pub fn new(wire: Wire, addr: SocketAddr) -> Self {
        Self {
            wire,
            authority: addr.to_string(),
        }
    }

    /// The wire.
    #[must_use]
    pub const fn wire(&self) -> Wire {
        self.wire
    }

    /// The URI at which others reach a socket that listens on this one: with the port that the system
    /// chose.
    #[must_use]
    pub fn of_listener(&self, listener: &dyn Transport) -> Self {
        match self.wire {
            Wire::Mem => self.clone(),
            Wire::Homa | Wire::Udp => Self::new(self.wire, listener.local_addr()),
        }
    }

    /// The address, as a transport takes it.
    ///
    /// # Errors
    /// If there is none.
    pub async fn resolve(&self) -> Result<SocketAddr, OpenError> {
        let authority = &self.authority;
        if self.wire == Wire::Mem {
            return Socket::mem_resolve(authority)
                .ok_or_else(|| OpenError::NoListener(authority.clone()));
        }
        let failed = |source| OpenError::Resolve {
            authority: authority.clone(),
            source,
        };
        let mut found = look_up(authority).await.map_err(failed)?.into_iter();
        let none = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        found.next().ok_or_else(|| failed(none()))
    }

    /// Opens a socket that others can call. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be used, or this machine does not have the wire.
    pub async fn listen(&self, config: &Config) -> Result<Arc<dyn Transport>, OpenError> {
        let config = config.clone();
        Ok(Arc::new(match self.wire {
            Wire::Mem => Socket::mem_listen(&self.authority, config)?,
            Wire::Udp => Socket::udp(self.resolve().await?, config)?,
            Wire::Homa => return Ok(native::listen(self.resolve().await?, config, None)?),
        }))
    }

    /// Opens a socket to call this URI from. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// As [`Uri::listen`].
    pub fn open_client(&self, config: &Config) -> Result<Arc<dyn Transport>, OpenError> {
        let config = config.clone();
        Ok(Arc::new(match self.wire {
            Wire::Mem => Socket::mem_client(config)?,
            Wire::Udp => Socket::udp_client(config)?,
            Wire::Homa => return Ok(native::client(config, None)?),
        }))
    }
}

/// The addresses of `authority`. An IPv6 address may have a zone, behind `%25` as in URIs (RFC 6874) or `%`.
async fn look_up(authority: &str) -> io::Result<Vec<SocketAddr>> {
    let with_zone = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
        .filter(|(ip, _)| ip.contains('%'));
    let Some((ip, port)) = with_zone else {
        return Ok(tokio::net::lookup_host(authority).await?.collect());
    };
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let mut ip = ip.to_owned();
    // `%25` alone is the interface with the number 25.
    if ip.contains("%25") && !ip.ends_with("%25") {
        ip = ip.replacen("%25", "%", 1);
    }
    Ok(tokio::net::lookup_host((ip, port)).await?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_and_shown_again() {
        for uri in [
            "homa://10.0.0.1:4000",
            "homa+udp://[::1]:0",
            "homa+udp://host.example:1",
            "homa+mem://name",
        ] {
            assert_eq!(uri.parse::<Uri>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn other_uris_are_refused_with_the_forms_there_are() {
        for uri in [
            "",
            "127.0.0.1:1",
            "http://h:1",
            "homa+udp://",
            "homa+udp://h:1/path",
            "homa://u@h:1",
        ] {
            let error = uri.parse::<Uri>().unwrap_err().to_string();
            assert!(error.contains(&format!("{uri:?}")), "{error}");
            assert!(error.contains("homa+udp://host:port"), "{error}");
        }
    }

    #[tokio::test]
    async fn zones_are_understood_in_either_form() {
        // The loopback interface has the number 1 in every network namespace.
        for zone in ["%lo", "%25lo", "%1", "%251"] {
            let uri: Uri = format!("homa+udp://[fe80::2{zone}]:7").parse().unwrap();
            let found = uri.resolve().await.unwrap();
            assert_eq!(found, "[fe80::2%1]:7".parse().unwrap(), "{uri}");
        }
        let uri: Uri = "homa://[fe80::2%no-such-if]:7".parse().unwrap();
        assert!(uri.resolve().await.is_err());
    }

    #[tokio::test]
    async fn a_port_that_is_none_is_an_error_that_names_it() {
        for uri in ["homa+udp://127.0.0.1", "homa+udp://127.0.0.1:65536"] {
            let uri: Uri = uri.parse().unwrap();
            let error = uri.resolve().await.unwrap_err();
            assert!(matches!(error, OpenError::Resolve { .. }), "{error:?}");
            assert!(error.to_string().contains("127.0.0.1"), "{error}");
        }
    }
}
