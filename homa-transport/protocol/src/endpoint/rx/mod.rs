//! What packets do that arrive.

pub(in crate::endpoint) mod address_validation;
pub(in crate::endpoint) mod control;
pub(in crate::endpoint) mod data;
pub(in crate::endpoint) mod migration;
pub(in crate::endpoint) mod receive;
