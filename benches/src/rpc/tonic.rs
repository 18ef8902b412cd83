//! tonic over TCP, with the settings that suit each kind of scenario best.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

use super::load::Calls;
use super::scenario::Scenario;
use super::service::messages::{ItemsRequest, Payload};
use super::service::tonic_service::bench_client::BenchClient;
use super::service::tonic_service::bench_server::BenchServer;
use super::service::tonic_service::streams_client::StreamsClient;
use super::service::tonic_service::streams_server::StreamsServer;
use super::service::{Service, payload, payloads};
use super::stream::Items;

/// HTTP/2 windows for small calls: never the limit.
const WINDOW_BYTES: u32 = 16 << 20;
/// Streams at a time: never the limit.
const STREAMS_MAX: u32 = 4096;

/// How flow control is set. Adaptive windows are the faster choice for uploads. They break down with
/// hundreds of small calls at a time, and halve the rate of small items in a stream.
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
            .add_service(StreamsServer::new(Service))
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
pub(crate) struct TonicCalls {
    calls: BenchClient<Channel>,
    streams: StreamsClient<Channel>,
}

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
        Ok(Self {
            calls: BenchClient::new(channel.clone()),
            streams: StreamsClient::new(channel),
        })
    }
}

impl Calls for TonicCalls {
    async fn echo(&mut self, body: Bytes) -> Result<usize, String> {
        let reply = self.calls.echo(payload(body)).await;
        let reply = reply.map_err(|status| status.to_string())?;
        Ok(reply.into_inner().body.len())
    }

    async fn upload(&mut self, body: Bytes) -> Result<usize, String> {
        let reply = self.calls.upload(payload(body)).await;
        let reply = reply.map_err(|status| status.to_string())?;
        Ok(usize::try_from(reply.into_inner().bytes).unwrap_or(usize::MAX))
    }

    type Items = Streaming<Payload>;

    async fn items(&mut self, count: u64, bytes: usize) -> Result<Self::Items, String> {
        let bytes = bytes as u64;
        let items = self.streams.items(ItemsRequest { count, bytes }).await;
        Ok(items.map_err(|status| status.to_string())?.into_inner())
    }

    async fn ping_pong(&mut self, there: mpsc::Receiver<Bytes>) -> Result<Self::Items, String> {
        let back = self.streams.ping_pong(payloads(there)).await;
        Ok(back.map_err(|status| status.to_string())?.into_inner())
    }
}

impl Items for Streaming<Payload> {
    async fn next(&mut self) -> Result<Option<usize>, String> {
        let item = self.message().await.map_err(|status| status.to_string())?;
        Ok(item.map(|item| item.body.len()))
    }
}
