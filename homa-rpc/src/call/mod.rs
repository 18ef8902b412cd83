//! A call while it runs: its [`Context`], its deadline.

pub(crate) mod context;
pub(crate) mod deadline;

pub use context::{Context, Scope, detached};
