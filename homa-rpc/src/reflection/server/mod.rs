//! The server's side: [`Builder`] makes the service of either version.

mod answer;
mod builder;
mod error;
mod index;
mod stream;
pub mod v1;
pub mod v1alpha;

pub use builder::Builder;
pub use error::Error;
pub use stream::ServerReflectionInfoStream;
