//! homa-rpc over any of its wires.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use homa_rpc::{BoundServer, Channel, Server};
use homa_transport::{Config, Socket, Transport};

use super::load::Calls;
use super::service::messages::bench_client::BenchClient;
use super::service::messages::bench_server::BenchServer;
use super::service::{Service, payload};
use super::stack::Stack;

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
    let server = Server::builder().add_service(BenchServer::new(Service));
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
pub(crate) struct HomaCalls(BenchClient);

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
        Ok((Self(BenchClient::new(channel)), counters))
    }
}

impl Calls for HomaCalls {
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
