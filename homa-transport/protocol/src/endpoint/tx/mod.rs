//! Messages and packets on their way out.

pub(in crate::endpoint) mod cutoffs;
pub(in crate::endpoint) mod outbound;
pub(in crate::endpoint) mod outgoing;
pub(in crate::endpoint) mod pacer;
pub(in crate::endpoint) mod retransmit;
pub(in crate::endpoint) mod send;
pub(in crate::endpoint) mod start_msg;
pub(in crate::endpoint) mod transmit;
