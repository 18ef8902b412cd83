//! Who may send how much of its message, at which priority.

pub(in crate::endpoint) mod budget;
pub(in crate::endpoint) mod priority;
pub(in crate::endpoint) mod scheduler;
