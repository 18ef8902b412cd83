//! What users see of a call: requests, responses, statuses, metadata, codecs, limits, methods.

pub(crate) mod codec;
mod error;
pub(crate) mod limits;
pub mod metadata;
pub(crate) mod method;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod status;
#[cfg(feature = "types")]
pub mod types;

pub use error::BoxError;
pub(crate) use error::not_sent;
