//! homa-rpc over any of its wires.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use homa_rpc::client::CallService;
use homa_rpc::{BoundServer, Channel, Server, Streaming};
use homa_transport::{Config, Socket, Transport};
use tokio::sync::mpsc;

use super::load::Calls;
use super::service::messages::bench_client::BenchClient;
use super::service::messages::bench_server::BenchServer;
use super::service::messages::streams_client::StreamsClient;
use super::service::messages::streams_server::StreamsServer;
use super::service::messages::{ItemsRequest, Payload};
use super::service::{Service, payload, payloads};
use super::stack::Stack;
use super::stream::Items;

/// Name of the in-process server.
const MEM_URI: &str = "homa+mem://homa-bench";

/// The socket, where this program opens it itself: then its counters can be shown.
pub(crate) type Counters = Option<Arc<dyn Transport>>;

/// A server that listens, and its URI.
///
/// # Errors
/// Why it cannot listen.
pub(crate) fn bind(
    stack: Stack,
    config: Config,
) -> Result<(BoundServer, String, Counters), String> {
    let server = Server::builder()
        .add_service(BenchServer::new(Service))
        .add_service(StreamsServer::new(Service));
    let text = |error: &dyn std::error::Error| error.to_string();
    if stack == Stack::HomaUdp {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = Socket::udp(any, config).map_err(|error| text(&error))?;
        let uri = format!("homa+udp://{}", socket.local_addr());
        let socket: Arc<dyn Transport> = Arc::new(socket);
        let server = server
            .bind_socket(Arc::clone(&socket))
            .map_err(|error| text(&error))?;
        return Ok((server, uri, Some(socket)));
    }
    let uri = match stack {
        Stack::HomaMem => MEM_URI,
        _ => "homa://127.0.0.1:0",
    };
    let server = server.bind(uri).map_err(|error| text(&error))?;
    let uri = server.local_uris().into_iter().next().unwrap_or_default();
    Ok((server, uri, None))
}

/// Calls over homa-rpc.
#[derive(Clone, Debug)]
pub(crate) struct HomaCalls<S = Channel, T = S> {
    calls: BenchClient<S>,
    streams: StreamsClient<T>,
}

impl HomaCalls {
    /// Must be called inside the runtime.
    ///
    /// # Errors
    /// Why `uri` cannot be called.
    pub(crate) fn new(uri: &str, config: Config) -> Result<(Self, Counters), String> {
        let mut builder = Channel::builder();
        let mut counters = None;
        if uri.starts_with("homa+udp:") {
            let socket = Socket::udp_client(config).map_err(|e| e.to_string())?;
            let socket: Arc<dyn Transport> = Arc::new(socket);
            builder = builder.socket(Arc::clone(&socket));
            counters = Some(socket);
        }
        let channel = builder.build(uri).map_err(|error| error.to_string())?;
        let calls = Self {
            calls: BenchClient::new(channel.clone()),
            streams: StreamsClient::new(channel),
        };
        Ok((calls, counters))
    }
}

impl<S: CallService + Sync, T: CallService + Sync> Calls for HomaCalls<S, T> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rpc::load;
    use crate::rpc::scenario::Scenario;

    /// Without a channel in between: what is tested are the loads.
    #[tokio::test]
    async fn every_scenario_counts_what_it_moves() {
        let calls = HomaCalls {
            calls: BenchClient::new(BenchServer::new(Service)),
            streams: StreamsClient::new(StreamsServer::new(Service)),
        };
        for scenario in Scenario::ALL {
            let mut duration = Duration::from_millis(10);
            let measured = loop {
                let measured = load::run(&calls, scenario, duration).await.unwrap();
                if measured.calls > 0 {
                    break measured;
                }
                // On a machine that is busy.
                duration *= 2;
            };
            let name = scenario.name;
            assert!(!measured.times.is_empty(), "{name}");
            assert!(
                measured.bytes >= measured.calls * 100,
                "{name}: {measured:?}"
            );
        }
    }
}
