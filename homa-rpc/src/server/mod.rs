//! The server side: [`Server`] listens, routes and dispatches; generated services plug in.

mod bound;
mod builder;
mod cancel;
mod dispatch;
mod gate;
mod reply;
mod router;
mod unary;

pub use bound::{BoundServer, ServerError};
pub use builder::{Server, ServerBuilder};
pub use router::{NamedService, Router};
pub use unary::{unary, unimplemented_method};

pub use crate::limits::MessageLimits;
