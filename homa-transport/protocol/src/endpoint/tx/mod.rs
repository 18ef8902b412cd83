//! What leaves, and when.

pub(in crate::endpoint) mod black_hole;
pub(in crate::endpoint) mod cutoffs;
pub(in crate::endpoint) mod outgoing;
pub(in crate::endpoint) mod send;
pub(in crate::endpoint) mod start_msg;
pub(in crate::endpoint) mod transmit;
