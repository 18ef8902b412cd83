//! Messages on their way: what was sent and granted, what has arrived.

pub(in crate::endpoint) mod grant_delay;
pub(in crate::endpoint) mod inbound;
pub(in crate::endpoint) mod outbound;
pub(in crate::endpoint) mod retransmit;
pub(in crate::endpoint) mod start;
