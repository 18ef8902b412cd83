//! The RPCs in progress, from their beginning to their end.

pub(in crate::endpoint) mod rpc;
pub(in crate::endpoint) mod table;
pub(in crate::endpoint) mod teardown;
