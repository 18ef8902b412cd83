//! The RPCs in progress: their states, and where they are found.

pub(in crate::endpoint) mod rpc;
pub(in crate::endpoint) mod table;
