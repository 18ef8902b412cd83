//! tonic over TCP, with the settings that suit each kind of scenario best.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

use super::load::Calls;
use super::scenario::Scenario;
use super::service::tonic_service::bench_client::BenchClient;
use super::service::tonic_service::bench_server::BenchServer;
use super::service::{Service, payload};

/// HTTP/2 windows for small calls: never the limit.
const WINDOW_BYTES: u32 = 16 << 20;
/// Streams at a time: never the limit.
const STREAMS_MAX: u32 = 4096;

/// How flow control is set. Adaptive windows are the faster choice for bulk, and break down with
/// hundreds of small calls at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Windows {
    Large,
    Adaptive,
}

impl Windows {
    /// Both, in the order of a server's addresses.
    const ALL: [Self; 2] = [Self::Large, Self::Adaptive];

    const fn of(scenario: Scenario) -> Self {
        if scenario.bulk > 0 {
            Self::Adaptive
        } else {
            Self::Large
        }
    }
}

/// Serves on two ports, one for each kind of windows, and returns their URIs.
///
/// # Errors
/// Why it cannot listen.
pub(crate) fn serve() -> Result<Vec<String>, String> {
    let mut uris = Vec::new();
    for windows in Windows::ALL {
        let text = |error: std::io::Error| error.to_string();
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(text)?;
        let incoming = incoming.with_nodelay(Some(true));
        uris.push(format!("http://{}", incoming.local_addr().map_err(text)?));
        let server = Server::builder().max_concurrent_streams(STREAMS_MAX);
        let mut server = match windows {
            Windows::Large => server
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES),
            Windows::Adaptive => server.http2_adaptive_window(Some(true)),
        };
        let serving = server
            .add_service(BenchServer::new(Service))
            .serve_with_incoming(incoming);
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("homa-bench rpc: tonic's server failed: {error}");
            }
        });
    }
    Ok(uris)
}

/// A connection with each kind of windows.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    large: TonicCalls,
    adaptive: TonicCalls,
}

impl Connections {
    /// Connects to the `uris` that [`serve`] returned.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn open(uris: &[String]) -> Result<Self, String> {
        let [large, adaptive] = uris else {
            return Err(format!("tonic's server has two addresses, not {uris:?}"));
        };
        Ok(Self {
            large: TonicCalls::connect(large, Windows::Large).await?,
            adaptive: TonicCalls::connect(adaptive, Windows::Adaptive).await?,
        })
    }

    /// The faster one.
    pub(crate) const fn best_for(&self, scenario: Scenario) -> &TonicCalls {
        match Windows::of(scenario) {
            Windows::Large => &self.large,
            Windows::Adaptive => &self.adaptive,
        }
    }
}

/// Calls over one connection of tonic.
#[derive(Clone, Debug)]
pub(crate) struct TonicCalls(BenchClient<Channel>);

impl TonicCalls {
    async fn connect(uri: &str, windows: Windows) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(uri.to_owned())
            .map_err(|error| error.to_string())?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5));
        let endpoint = match windows {
            Windows::Large => endpoint
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES),
            Windows::Adaptive => endpoint.http2_adaptive_window(true),
        };
        let channel = endpoint.connect().await.map_err(|e| e.to_string())?;
        Ok(Self(BenchClient::new(channel)))
    }
}

impl Calls for TonicCalls {
    async fn echo(&mut self, body: Bytes) -> Result<usize, String> {
        let reply = self.0.echo(payload(body)).await;
        let reply = reply.map_err(|status| status.to_string())?;
        Ok(reply.into_inner().body.len())
    }

    async fn upload(&mut self, body: Bytes) -> Result<usize, String> {
        let reply = self.0.upload(payload(body)).await;
        let reply = reply.map_err(|status| status.to_string())?;
        Ok(usize::try_from(reply.into_inner().bytes).unwrap_or(usize::MAX))
    }
}
