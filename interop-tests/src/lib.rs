//! Code generated from definitions that were not written for homa-rpc, or are hard on a code
//! generator; the tests beside it serve and call it.

/// Google's long-running operations and locations, with all that they import.
#[allow(
    missing_docs,
    clippy::doc_lazy_continuation,
    reason = "comments written by others"
)]
pub mod googleapis {
    include!(concat!(env!("OUT_DIR"), "/googleapis.rs"));
}

/// Names that are keywords or clash with what generated code uses; several packages, and none.
#[allow(
    missing_docs,
    non_camel_case_types,
    reason = "the schema is so on purpose"
)]
pub mod awkward {
    include!(concat!(env!("OUT_DIR"), "/awkward.rs"));
}
