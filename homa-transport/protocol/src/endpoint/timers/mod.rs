//! What happens when nothing happens.

pub(in crate::endpoint) mod intervals;
pub(in crate::endpoint) mod rest;
pub(in crate::endpoint) mod timeout;
pub(in crate::endpoint) mod wheel;
