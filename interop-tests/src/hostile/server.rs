//! The process that is attacked: an RPC server whose counters can be asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use homa_rpc::{Request, Response, Server, Status};
use homa_transport::{Config, Transport};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::oneshot;

use super::BoxError;
use super::messages::{Payload, Received, bench_server::Bench, bench_server::BenchServer};
use crate::wire::Uri;

/// A request that begins so is held for [`HOLD_TIME`]: its call is live meanwhile.
pub(super) const HOLD: &[u8] = b"hold";
const HOLD_TIME: Duration = Duration::from_millis(100);

/// Counters by name.
pub(super) type Counters = BTreeMap<String, u64>;

#[derive(Debug)]
struct Echo;

#[homa_rpc::async_trait]
impl Bench for Echo {
    async fn echo(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        let payload = request.into_inner();
        if payload.body.starts_with(HOLD) {
            tokio::time::sleep(HOLD_TIME).await;
        }
        Ok(Response::new(payload))
    }

    async fn upload(&self, request: Request<Payload>) -> Result<Response<Received>, Status> {
        let bytes = request.into_inner().body.len() as u64;
        Ok(Response::new(Received { bytes }))
    }
}

/// Serves until its input ends. Says first where it listens; each line of input is answered with the
/// counters, as one line of JSON.
///
/// # Errors
/// If it cannot listen, or stops.
pub async fn serve(uri: &Uri) -> Result<(), BoxError> {
    let socket = uri.listen(&Config::default()).await?;
    println!("{}", uri.of_listener(&*socket));
    let server = Server::builder().add_service(BenchServer::new(Echo));
    let server = server.bind_socket(Arc::clone(&socket))?;
    let monitor = server.monitor();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(stopped));
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while input.next_line().await?.is_some() {
        println!(
            "{}",
            serde_json::to_string(&counters(&*socket, monitor.stats()))?
        );
    }
    drop(stop);
    Ok(serving.await??)
}

fn counters(socket: &dyn Transport, calls: homa_rpc::ServerStats) -> Counters {
    let mut counters: Counters = socket
        .stats()
        .iter()
        .map(|(name, _, value)| (name.to_owned(), value))
        .collect();
    for (name, value) in [
        ("handlers_spawned", calls.handlers_spawned),
        ("handlers_panicked", calls.handlers_panicked),
        ("calls_refused", calls.calls_refused),
        ("calls_in_progress", calls.calls_in_progress),
    ] {
        counters.insert(name.to_owned(), value);
    }
    counters
}
