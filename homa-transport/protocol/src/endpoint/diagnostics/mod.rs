//! What the simulator and a person see of an endpoint.

pub(in crate::endpoint) mod inspect;
pub(in crate::endpoint) mod trace;
