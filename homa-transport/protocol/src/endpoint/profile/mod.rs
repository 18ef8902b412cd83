//! The rules that an endpoint follows: its own, or those of the Homa papers.

#[cfg(feature = "sim")]
pub(in crate::endpoint) mod experiment;
pub(in crate::endpoint) mod rules;
