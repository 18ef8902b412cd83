//! What is known of each other host and port.

pub(in crate::endpoint) mod address;
pub(in crate::endpoint) mod address_validation;
pub(in crate::endpoint) mod black_hole;
pub(in crate::endpoint) mod peer;
pub(in crate::endpoint) mod probe_rate;
pub(in crate::endpoint) mod replay_memory;
pub(in crate::endpoint) mod replay_window;
pub(in crate::endpoint) mod rest;
pub(in crate::endpoint) mod round_trip;
pub(in crate::endpoint) mod start_habit;
pub(in crate::endpoint) mod table;
pub(in crate::endpoint) mod token;
