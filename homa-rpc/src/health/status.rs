//! [`ServingStatus`]: what can be said of a service.

use std::fmt;

use super::pb;

/// Whether a service takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServingStatus {
    /// Not known yet.
    Unknown,
    /// It takes calls.
    Serving,
    /// It takes none at the moment.
    NotServing,
}

impl fmt::Display for ServingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::Serving => "Serving",
            Self::NotServing => "NotServing",
        })
    }
}

impl From<ServingStatus> for pb::health_check_response::ServingStatus {
    fn from(status: ServingStatus) -> Self {
        match status {
            ServingStatus::Unknown => Self::Unknown,
            ServingStatus::Serving => Self::Serving,
            ServingStatus::NotServing => Self::NotServing,
        }
    }
}
