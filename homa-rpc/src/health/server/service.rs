//! [`HealthService`]: answers the calls.

use std::collections::HashMap;

use tokio::sync::watch;

use super::reporter::HealthReporter;
use super::statuses::Statuses;
use super::watch::WatchStream;
use crate::health::pb::health_check_response::ServingStatus;
use crate::health::pb::health_server::Health;
use crate::health::pb::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::status::Status;

/// Services in one response at most, the server as a whole among them: what gRPC's proposal A90 says.
const LIST_MAX: usize = 100;

/// The health service of a [`HealthReporter`].
#[derive(Debug)]
pub struct HealthService {
    statuses: watch::Sender<Statuses>,
}

impl HealthService {
    /// A service that says what is set by `health_reporter`.
    #[must_use]
    pub fn from_health_reporter(health_reporter: HealthReporter) -> Self {
        Self {
            statuses: health_reporter.statuses,
        }
    }
}

#[crate::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        let status = self.statuses.borrow().of(&service);
        let status = status.ok_or_else(|| Status::not_found("the service is not registered"))?;
        let status = ServingStatus::from(status).into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let known = self.statuses.borrow();
        let all = known.all();
        if all.len() > LIST_MAX {
            let text = format!(
                "expected at most {LIST_MAX} services to list, there are {}",
                all.len()
            );
            return Err(Status::resource_exhausted(text));
        }
        let entry = |(name, status): (&str, _)| {
            let status = ServingStatus::from(status).into();
            (name.to_owned(), HealthCheckResponse { status })
        };
        let statuses: HashMap<_, _> = all.map(entry).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = WatchStream;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let stream = WatchStream::new(service, self.statuses.subscribe());
        Ok(Response::new(stream))
    }
}
