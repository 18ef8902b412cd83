//! What is kept of watchers, which nobody sees from outside.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream as _;

use super::{HealthReporter, HealthService, WatchStream};
use crate::Request;
use crate::health::ServingStatus;
use crate::health::pb::HealthCheckRequest;
use crate::health::pb::health_server::Health as _;

async fn watch(service: &HealthService, name: String) -> WatchStream {
    let request = Request::new(HealthCheckRequest { service: name });
    service.watch(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn nothing_is_kept_of_watchers_that_are_gone() {
    let reporter = HealthReporter::new();
    let service = HealthService::from_health_reporter(reporter.clone());
    let mut watchers = Vec::new();
    for number in 0..1_000 {
        let mut watcher = watch(&service, format!("service-{number}")).await;
        // Some have heard what there is and wait, some have not yet.
        if number % 2 == 0 {
            let first = poll_fn(|cx| Pin::new(&mut watcher).poll_next(cx)).await;
            assert!(first.is_some());
        }
        watchers.push(watcher);
    }
    assert_eq!(reporter.statuses.receiver_count(), 1_000);
    assert_eq!(reporter.statuses.borrow().all().len(), 1);
    drop(watchers);
    assert_eq!(reporter.statuses.receiver_count(), 0);
    reporter
        .set_service_status("service-1", ServingStatus::Serving)
        .await;
    reporter.clear_service_status("service-1").await;
    assert_eq!(reporter.statuses.borrow().all().len(), 1);
}
