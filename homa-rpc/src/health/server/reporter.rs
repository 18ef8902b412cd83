//! [`HealthReporter`]: sets what the health service says.

use std::future::Future;

use tokio::sync::watch;

use super::statuses::{Phase, Statuses};
use crate::health::ServingStatus;
use crate::server::NamedService;

/// Sets what the health service says. Clones set the same; they can be used from any thread, and never wait.
///
/// Each change wakes all streams of `Watch`, which look whether it concerns their service. A stream
/// that is read slowly tells the latest status and skips those before.
#[derive(Clone, Debug)]
pub struct HealthReporter {
    pub(super) statuses: watch::Sender<Statuses>,
}

impl HealthReporter {
    /// A reporter that knows the server as a whole, which is serving.
    #[must_use]
    pub fn new() -> Self {
        Self {
            statuses: watch::Sender::new(Statuses::new()),
        }
    }

    /// The service `S` takes calls: `set_serving::<GreeterServer<MyGreeter>>()`.
    pub async fn set_serving<S: NamedService>(&self) {
        self.set_service_status(S::NAME, ServingStatus::Serving)
            .await;
    }

    /// The service `S` takes no calls.
    pub async fn set_not_serving<S: NamedService>(&self) {
        self.set_service_status(S::NAME, ServingStatus::NotServing)
            .await;
    }

    /// Sets the status of the service with this full name, and registers it if it was not known. The
    /// empty name is the server as a whole, whose status does not follow from those of its services.
    pub async fn set_service_status(&self, service_name: impl AsRef<str>, status: ServingStatus) {
        let name = service_name.as_ref();
        self.statuses
            .send_if_modified(|statuses| statuses.set(name, status));
    }

    /// Forgets the service. Who watches it hears SERVICE_UNKNOWN, and is told if it comes back.
    pub async fn clear_service_status(&self, service_name: &str) {
        self.statuses
            .send_if_modified(|statuses| statuses.clear(service_name));
    }

    /// Says of all services that they take no calls, now and for ever, whatever is set later: for instance
    /// some seconds before the server stops. Streams of `Watch` go on.
    pub fn shutdown(&self) {
        self.advance(Phase::NotServing);
    }

    /// A signal for [`BoundServer::serve_with_shutdown`](crate::BoundServer::serve_with_shutdown): waits for
    /// `signal`, and before the server learns of it, all services are said to take no calls. Streams of
    /// `Watch` tell that and end, so that the server need not wait for them.
    pub fn shutdown_on<F: Future>(&self, signal: F) -> impl Future<Output = F::Output> + use<F> {
        let reporter = self.clone();
        async move {
            let output = signal.await;
            reporter.advance(Phase::Ended);
            output
        }
    }

    fn advance(&self, phase: Phase) {
        self.statuses
            .send_if_modified(|statuses| statuses.advance(phase));
    }
}

impl Default for HealthReporter {
    fn default() -> Self {
        Self::new()
    }
}
