//! The health service: what it says of services, and to whom.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt as _;
use homa_rpc::health::ServingStatus;
use homa_rpc::health::pb::health_check_response::ServingStatus as Said;
use homa_rpc::health::pb::health_client::HealthClient;
use homa_rpc::health::pb::health_server::{Health, HealthServer};
use homa_rpc::health::pb::{HealthCheckRequest, HealthCheckResponse, HealthListRequest};
use homa_rpc::health::server::{HealthReporter, HealthService, health_reporter};
use homa_rpc::server::NamedService;
use homa_rpc::{Code, Status, Streaming};
use tokio::sync::oneshot;

/// A client that calls the service directly.
type Client = HealthClient<HealthServer<HealthService>>;

fn service() -> (HealthReporter, Client) {
    let reporter = HealthReporter::new();
    let service = HealthService::from_health_reporter(reporter.clone());
    (reporter, HealthClient::new(HealthServer::new(service)))
}

fn asking(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn check(client: &Client, service: &str) -> Result<Said, Status> {
    let response = client.check(asking(service)).await?;
    Ok(response.into_inner().status())
}

async fn watch(client: &Client, service: &str) -> Streaming<HealthCheckResponse> {
    client.watch(asking(service)).await.unwrap().into_inner()
}

async fn next(watched: &mut Streaming<HealthCheckResponse>) -> Option<Said> {
    let response = watched.message().await.unwrap();
    response.map(|response| response.status())
}

/// Nothing more is to be read now.
fn assert_waits(watched: &mut Streaming<HealthCheckResponse>) {
    let mut context = Context::from_waker(Waker::noop());
    // A body may need some polls to see that its source has nothing.
    for _ in 0..3 {
        let poll = pin!(watched.message()).poll(&mut context);
        assert!(poll.is_pending(), "{poll:?}");
    }
}

#[tokio::test]
async fn a_new_server_serves_and_knows_no_service() {
    let (_reporter, client) = service();
    assert_eq!(check(&client, "").await.unwrap(), Said::Serving);
    let status = check(&client, "some.Service").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn check_and_watch_say_what_was_set_last() {
    let (reporter, client) = service();
    let mut watched = watch(&client, "a.A").await;
    assert_eq!(next(&mut watched).await, Some(Said::ServiceUnknown));
    for (set, said) in [
        (ServingStatus::NotServing, Said::NotServing),
        (ServingStatus::Serving, Said::Serving),
        (ServingStatus::Unknown, Said::Unknown),
    ] {
        reporter.set_service_status("a.A", set).await;
        assert_eq!(check(&client, "a.A").await.unwrap(), said);
        assert_eq!(next(&mut watched).await, Some(said));
    }
    assert_eq!(check(&client, "").await.unwrap(), Said::Serving);
}

#[tokio::test]
async fn a_service_is_named_by_its_type() {
    let (reporter, client) = service();
    type Named = HealthServer<HealthService>;
    reporter.set_serving::<Named>().await;
    assert_eq!(check(&client, Named::NAME).await.unwrap(), Said::Serving);
    reporter.set_not_serving::<Named>().await;
    assert_eq!(check(&client, Named::NAME).await.unwrap(), Said::NotServing);
}

#[tokio::test]
async fn a_service_that_was_cleared_is_unknown_and_may_come_back() {
    let (reporter, client) = service();
    reporter
        .set_service_status("a.A", ServingStatus::Serving)
        .await;
    let mut watched = watch(&client, "a.A").await;
    assert_eq!(next(&mut watched).await, Some(Said::Serving));
    reporter.clear_service_status("a.A").await;
    assert_eq!(next(&mut watched).await, Some(Said::ServiceUnknown));
    let status = check(&client, "a.A").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    reporter
        .set_service_status("a.A", ServingStatus::Serving)
        .await;
    assert_eq!(next(&mut watched).await, Some(Said::Serving));
}

#[tokio::test]
async fn a_watcher_hears_changes_of_its_own_service_only() {
    let (reporter, client) = service();
    let mut watched = watch(&client, "a.A").await;
    assert_eq!(next(&mut watched).await, Some(Said::ServiceUnknown));
    reporter
        .set_service_status("b.B", ServingStatus::Serving)
        .await;
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    reporter.clear_service_status("a.A").await;
    assert_waits(&mut watched);
}

#[tokio::test]
async fn a_slow_watcher_sees_the_latest_status_only() {
    let (reporter, client) = service();
    let response = HealthService::from_health_reporter(reporter.clone());
    let watched = response.watch(homa_rpc::Request::new(asking("")));
    let mut watched = watched.await.unwrap().into_inner();
    let mut next = async || watched.next().await.unwrap().unwrap().status();
    assert_eq!(next().await, Said::Serving);
    for round in 0..1_000 {
        let status = [ServingStatus::Serving, ServingStatus::Unknown][round % 2];
        reporter.set_service_status("", status).await;
    }
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    assert_eq!(next().await, Said::NotServing);
    assert_eq!(check(&client, "").await.unwrap(), Said::NotServing);
}

#[tokio::test]
async fn list_has_all_services_up_to_100() {
    let (reporter, client) = service();
    let list = || client.list(HealthListRequest {});
    for number in 1..100 {
        let name = format!("some.Service{number}");
        reporter
            .set_service_status(&name, ServingStatus::NotServing)
            .await;
    }
    let statuses = list().await.unwrap().into_inner().statuses;
    assert_eq!(statuses.len(), 100);
    assert_eq!(statuses[""].status(), Said::Serving);
    assert_eq!(statuses["some.Service99"].status(), Said::NotServing);

    reporter
        .set_service_status("one.TooMany", ServingStatus::Serving)
        .await;
    let status = list().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("there are 101"), "{status}");
    reporter.clear_service_status("one.TooMany").await;
    assert!(list().await.is_ok());
}

#[tokio::test]
async fn after_a_shutdown_nothing_serves_whatever_is_set() {
    let (reporter, client) = service();
    reporter
        .set_service_status("a.A", ServingStatus::Serving)
        .await;
    let mut watched = watch(&client, "a.A").await;
    assert_eq!(next(&mut watched).await, Some(Said::Serving));
    reporter.shutdown();
    assert_eq!(next(&mut watched).await, Some(Said::NotServing));
    for name in ["a.A", "b.B", ""] {
        reporter
            .set_service_status(name, ServingStatus::Serving)
            .await;
        assert_eq!(check(&client, name).await.unwrap(), Said::NotServing);
    }
    let statuses = client.list(HealthListRequest {}).await.unwrap();
    let mut statuses = statuses.into_inner().statuses.into_values();
    assert!(statuses.all(|said| said.status() == Said::NotServing));
    // Who watches may go on.
    assert_waits(&mut watched);
}

#[tokio::test]
async fn the_signal_of_a_server_tells_watchers_and_ends_their_streams() {
    let (reporter, client) = service();
    let mut watched = watch(&client, "").await;
    let mut unknown = watch(&client, "a.A").await;
    assert_eq!(next(&mut watched).await, Some(Said::Serving));
    assert_eq!(next(&mut unknown).await, Some(Said::ServiceUnknown));
    let (stop, stopped) = oneshot::channel();
    let stopping = tokio::spawn(reporter.shutdown_on(stopped));
    assert_waits(&mut watched);
    stop.send("the reason").unwrap();
    assert_eq!(stopping.await.unwrap(), Ok("the reason"));
    assert_eq!(next(&mut watched).await, Some(Said::NotServing));
    assert_eq!(next(&mut watched).await, None);
    assert_eq!(next(&mut unknown).await, None);
    // Who comes now is told as well, and not kept.
    let mut late = watch(&client, "").await;
    assert_eq!(next(&mut late).await, Some(Said::NotServing));
    assert_eq!(next(&mut late).await, None);
}

#[tokio::test]
async fn a_signal_that_never_comes_changes_nothing() {
    let (reporter, client) = service();
    let mut stopping = Box::pin(reporter.shutdown_on(std::future::pending::<()>()));
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(stopping.as_mut().poll(&mut context), Poll::Pending);
    drop(stopping);
    assert_eq!(check(&client, "").await.unwrap(), Said::Serving);
}

#[tokio::test]
async fn health_reporter_gives_a_service_and_its_handle() {
    let (reporter, server) = health_reporter();
    let client = HealthClient::new(server);
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    let response = client.check(asking("")).await.unwrap();
    assert_eq!(response.get_ref().status(), Said::NotServing);
}
