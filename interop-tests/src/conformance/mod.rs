//! What every way to carry messages has to do, as functions that any of them can be put through.
//!
//! [`sizes`] and [`concurrency`] need a client alone, so they work against any echo server, in another
//! process or of another implementation. The others also hold the server: [`once`],
//! [`at_most_once`], [`peer_death`], [`restart`], [`silence`], [`priorities`]. [`streams`] and
//! [`stream_death`] put calls of homa-rpc through them.

mod ends;
mod messages;
mod once;
mod priorities;
mod streams;

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use homa_transport::{Config, RpcError};
use tokio::runtime::Handle;

use crate::echo::{EchoClient, EchoServer};
use crate::network::{Host, Network, NetworkError};
use crate::wire::{OpenError, Uri, Wire};

pub use ends::{peer_death, restart, silence};
pub use messages::{Load, SIZES, concurrency, sizes};
pub use once::{at_most_once, once};
pub use priorities::priorities;
pub use streams::{stream_death, streams, streams_through};

/// Time after which a check that should have ended is taken to hang: far above what the slowest machine
/// needs, since it proves nothing else.
pub const STUCK_AFTER: Duration = Duration::from_secs(60);

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A socket could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The network in a box could not be changed or read.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A call failed that should not have.
    #[error("a call with {len} bytes failed: {error}")]
    Call {
        /// Bytes of its request.
        len: usize,
        /// What it said.
        error: RpcError,
    },
    /// A response is not the request.
    #[error(
        "{len} bytes came back as {got} bytes, the first {same} of which are as they should be"
    )]
    Bytes {
        /// Bytes of the request.
        len: usize,
        /// Bytes of the response.
        got: usize,
        /// Bytes before the first that differs.
        same: usize,
    },
    /// A call failed that should not have.
    #[error("a call failed: {0}")]
    Status(#[from] homa_rpc::Status),
    /// Something happened that should not.
    #[error("expected {expected}, got {got}")]
    Unexpected {
        /// What should have happened.
        expected: String,
        /// What did.
        got: String,
    },
    /// Nothing happened.
    #[error("no end after {0:?}")]
    Stuck(Duration),
    /// The runtime of one end is gone, or a task in it panicked.
    #[error("a task of the check ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Failure {
    /// Whether it is this machine or version that lacks something, rather than something being wrong.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Open(error) => error.is_unavailable(),
            Self::Network(error) => matches!(error, NetworkError::Unavailable(_)),
            _ => false,
        }
    }

    pub(crate) fn unexpected(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Unexpected {
            expected: expected.into(),
            got: got.into(),
        }
    }
}

/// The defaults, except that both ends take ids to be remembered for longer than any check takes: a call
/// that is taken up again after that may have been executed, so it fails rather than going on, and a busy
/// machine must not make that happen.
#[must_use]
pub fn patient() -> Config {
    Config {
        delivered_memory: STUCK_AFTER,
        ..Config::default()
    }
}

/// Where the two ends of a check are.
#[derive(Clone, Debug)]
pub struct Ends {
    server: Handle,
    client: Handle,
    /// Where the server listens; port 0 is the system's choice.
    uri: Uri,
}

impl Ends {
    /// Both in the runtime of the caller.
    ///
    /// # Panics
    /// Outside a runtime.
    #[must_use]
    pub fn here(uri: Uri) -> Self {
        let here = Handle::current();
        Self {
            server: here.clone(),
            client: here,
            uri,
        }
    }

    /// On two hosts: a server on any port of the first one's address `ip`.
    #[must_use]
    pub fn on_hosts(wire: Wire, server: &Host, ip: IpAddr, client: &Host) -> Self {
        Self {
            server: server.runtime().clone(),
            client: client.runtime().clone(),
            uri: Uri::new(wire, (ip, 0).into()),
        }
    }

    /// On the first two hosts of a network, over IPv4 or IPv6.
    #[must_use]
    pub fn across(network: &Network, wire: Wire, v6: bool) -> Self {
        let server = network.host(0);
        let ip = if v6 { server.v6() } else { server.v4() };
        Self::on_hosts(wire, server, ip, network.host(1))
    }

    /// Opens an echo server.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn serve(&self) -> Result<EchoServer, Failure> {
        let uri = self.uri.clone();
        let open = async move { EchoServer::open(&uri, &patient()).await };
        on(&self.server, open).await
    }

    /// Opens a client of a server.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn client(&self, server: &EchoServer) -> Result<EchoClient, Failure> {
        let uri = server.uri().clone();
        let open = async move { EchoClient::open(&uri, &patient()).await };
        on(&self.client, open).await
    }

    /// Runs a part of a check where the client is.
    ///
    /// # Errors
    /// Those of the part, or if it does not end.
    pub async fn at_client<T: Send + 'static, E>(
        &self,
        part: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, Failure>
    where
        E: Into<Failure> + Send + 'static,
    {
        on(&self.client, part).await
    }
}

/// Runs `part` in another runtime.
async fn on<T: Send + 'static, E>(
    runtime: &Handle,
    part: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, Failure>
where
    E: Into<Failure> + Send + 'static,
{
    let task = runtime.spawn(part);
    ends(task).await??.map_err(Into::into)
}

/// `future`, which has to end at some time.
async fn ends<F: Future>(future: F) -> Result<F::Output, Failure> {
    tokio::time::timeout(STUCK_AFTER, future)
        .await
        .map_err(|_| Failure::Stuck(STUCK_AFTER))
}
