//! The server's side: [`health_reporter`] makes the service and the handle that sets what it says.

mod reporter;
mod service;
mod statuses;
#[cfg(test)]
mod tests;
mod watch;

pub use reporter::HealthReporter;
pub use service::HealthService;
pub use watch::WatchStream;

use super::pb::health_server::HealthServer;

/// A service to be added to a server, and the handle that sets what it says.
///
/// In the beginning the server as a whole, whose name is empty, is [`Serving`](super::ServingStatus::Serving),
/// and no service is known.
#[must_use]
pub fn health_reporter() -> (HealthReporter, HealthServer<HealthService>) {
    let reporter = HealthReporter::new();
    let service = HealthService::from_health_reporter(reporter.clone());
    (reporter, HealthServer::new(service))
}
