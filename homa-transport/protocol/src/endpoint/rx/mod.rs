//! Packets that arrive.

pub(in crate::endpoint) mod control;
pub(in crate::endpoint) mod data;
pub(in crate::endpoint) mod inbound;
pub(in crate::endpoint) mod receive;
