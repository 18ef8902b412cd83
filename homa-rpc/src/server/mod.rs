//! The server side: [`Server`] listens, routes and dispatches; generated services plug in.

mod admission;
mod bound;
mod builder;
mod cancel;
mod dispatch;
mod layered;
mod methods;
mod overload;
mod quota;
mod reply;
mod router;
mod routes;
pub(crate) mod service;
mod stats;
mod stream;
pub(crate) mod streaming;
pub(crate) mod unary;

pub use bound::{BoundServer, ServerError, ServerMonitor};
pub use builder::{Server, ServerBuilder};
pub use layered::{Layered, layered};
pub use router::Router;
pub use routes::Routes;
pub use service::NamedService;
pub use stats::ServerStats;
