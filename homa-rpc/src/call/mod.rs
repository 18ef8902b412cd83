//! A call while it runs: its [`CallContext`], its deadline.

pub(crate) mod context;
pub(crate) mod deadline;

pub use context::{CallContext, Scope, detached};
