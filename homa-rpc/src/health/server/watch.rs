//! [`WatchStream`]: the status of one service, now and after each change.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::sync::watch;

use super::statuses::Statuses;
use crate::health::pb::HealthCheckResponse;
use crate::health::pb::health_check_response::ServingStatus;
use crate::message::status::Status;

/// The responses of one call of `Watch`. All that is kept for it is in here, and goes with it.
pub struct WatchStream {
    /// `None` once it has ended.
    next: Option<Pin<Box<dyn Future<Output = Option<Told>> + Send>>>,
}

/// What is told, and who tells what comes after it.
type Told = (ServingStatus, Watcher);

struct Watcher {
    service: String,
    statuses: watch::Receiver<Statuses>,
    /// What the client heard last.
    told: Option<ServingStatus>,
}

impl WatchStream {
    pub(super) fn new(service: String, statuses: watch::Receiver<Statuses>) -> Self {
        let watcher = Watcher {
            service,
            statuses,
            told: None,
        };
        Self {
            next: Some(Box::pin(watcher.next())),
        }
    }
}

impl Watcher {
    /// What is to be told next. `None`: nothing ever.
    async fn next(mut self) -> Option<Told> {
        loop {
            let (status, ended) = {
                let statuses = self.statuses.borrow_and_update();
                let status = statuses.of(&self.service);
                let status = status.map_or(ServingStatus::ServiceUnknown, ServingStatus::from);
                (status, statuses.has_ended())
            };
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((status, self));
            }
            if ended || self.statuses.changed().await.is_err() {
                return None;
            }
        }
    }
}

impl Stream for WatchStream {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let told = ready!(next.as_mut().poll(cx));
        self.next = None;
        Poll::Ready(told.map(|(status, watcher)| {
            self.next = Some(Box::pin(watcher.next()));
            Ok(HealthCheckResponse {
                status: status.into(),
            })
        }))
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").finish_non_exhaustive()
    }
}
