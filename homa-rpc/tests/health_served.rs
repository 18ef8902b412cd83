//! The health service over every wire: what a server's end and a client's end mean for who watches.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod support;

use std::time::Duration;

use homa_rpc::health::ServingStatus;
use homa_rpc::health::pb::health_check_response::ServingStatus as Said;
use homa_rpc::health::pb::health_client::HealthClient;
use homa_rpc::health::pb::{HealthCheckRequest, HealthCheckResponse};
use homa_rpc::health::server::{HealthReporter, health_reporter};
use homa_rpc::{Channel, Server, ServerError, ServerMonitor, Streaming};
use support::Wire;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Far longer than any of these tests: none of them may depend on it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3_600);

struct Served {
    reporter: HealthReporter,
    client: HealthClient,
    monitor: ServerMonitor,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServerError>>,
}

fn serve(wire: Wire) -> Served {
    let (client, server) = wire.pair();
    let uri = format!("homa+udp://{}", server.local_addr());
    let channel = Channel::builder().socket(client).build(&uri).unwrap();
    let (reporter, service) = health_reporter();
    let bound = Server::builder()
        .add_service(service)
        .drain_timeout(DRAIN_TIMEOUT)
        .bind_socket(server)
        .unwrap();
    let (stop, stopped) = oneshot::channel();
    Served {
        client: HealthClient::new(channel),
        monitor: bound.monitor(),
        task: tokio::spawn(bound.serve_with_shutdown(reporter.shutdown_on(stopped))),
        reporter,
        stop,
    }
}

async fn watch(client: &HealthClient) -> Streaming<HealthCheckResponse> {
    let everything = HealthCheckRequest::default();
    client.watch(everything).await.unwrap().into_inner()
}

async fn next(watched: &mut Streaming<HealthCheckResponse>) -> Option<Said> {
    let response = watched.message().await.unwrap();
    response.map(|response| response.status())
}

async fn a_server_that_ends_tells_who_watches_and_does_not_wait_for_them(wire: Wire) {
    let served = serve(wire);
    let mut watchers = Vec::new();
    for _ in 0..10 {
        let mut watched = watch(&served.client).await;
        assert_eq!(next(&mut watched).await, Some(Said::Serving));
        watchers.push(watched);
    }
    served.stop.send(()).unwrap();
    for watched in &mut watchers {
        assert_eq!(next(watched).await, Some(Said::NotServing));
        assert_eq!(next(watched).await, None);
    }
    served.task.await.unwrap().unwrap();
}

async fn changes_come_to_a_client_that_waits(wire: Wire) {
    let served = serve(wire);
    let mut watched = watch(&served.client).await;
    for (set, said) in [
        (ServingStatus::Serving, Said::Serving),
        (ServingStatus::NotServing, Said::NotServing),
        (ServingStatus::Serving, Said::Serving),
    ] {
        served.reporter.set_service_status("", set).await;
        assert_eq!(next(&mut watched).await, Some(said));
    }
}

async fn a_client_that_stops_watching_leaves_no_call(wire: Wire) {
    let served = serve(wire);
    let mut watchers = Vec::new();
    for _ in 0..10 {
        let mut watched = watch(&served.client).await;
        assert_eq!(next(&mut watched).await, Some(Said::Serving));
        watchers.push(watched);
    }
    assert_eq!(served.monitor.stats().calls_in_progress, 10);
    drop(watchers);
    while served.monitor.stats().calls_in_progress > 0 {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

on_every_wire! {
    a_server_that_ends_tells_who_watches_and_does_not_wait_for_them,
    changes_come_to_a_client_that_waits,
    a_client_that_stops_watching_leaves_no_call,
}
