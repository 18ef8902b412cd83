//! Tests of the other packages against what was not written here, and on networks.
//!
//! - [`googleapis`], [`awkward`], [`careful`]: code generated from definitions of others, or hard on a
//!   generator;
//! - [`conformance`]: what every way to carry messages has to do;
//! - [`hostile`]: a server under attack, while a good client calls it;
//! - [`network`]: a network in a box, with slow links and priority queues;
//! - [`head_of_line`]: how long short calls take beside long ones;
//! - [`wire`]: from a URI to a transport;
//! - [`echo`]: the server and client that the checks use;
//! - [`options`]: what command lines have in common;
//! - [`relay`]: a bad network for UDP, without any privileges;
//! - [`skip`]: tests that cannot run say so;
//! - [`streams`]: a service with a method of each kind.

pub mod conformance;
pub mod echo;
pub mod head_of_line;
pub mod hostile;
pub mod network;
pub mod options;
pub mod relay;
pub mod skip;
pub mod streams;
pub mod wire;

/// Google's long-running operations and locations, with all that they import.
#[allow(missing_docs, reason = "comments written by others")]
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

/// A documented schema: what is generated for it passes the strictest lints.
#[deny(missing_docs, warnings, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod documented {
    include!(concat!(env!("OUT_DIR"), "/strict.rs"));
}

/// Schemas with comments, names and numbers that rustdoc, rustc or clippy mind in Rust. Code in
/// comments is no test of this package, either.
#[deny(missing_docs, warnings, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod careful {
    include!(concat!(env!("OUT_DIR"), "/harmless.rs"));
}

/// The forms that options give to generated code, for services named like what Rust code uses.
#[allow(missing_docs, reason = "the schema has no comments")]
pub mod forms {
    /// `generate_default_stubs`.
    pub mod boxed_stubs {
        include!(concat!(env!("OUT_DIR"), "/boxed_stubs/all.rs"));
    }
    /// `use_arc_self`.
    pub mod boxed_arc {
        include!(concat!(env!("OUT_DIR"), "/boxed_arc/all.rs"));
    }
    /// `native_async`.
    pub mod native {
        include!(concat!(env!("OUT_DIR"), "/native/all.rs"));
    }
    /// `native_async`, `use_arc_self` and `generate_default_stubs`.
    pub mod native_arc {
        include!(concat!(env!("OUT_DIR"), "/native_arc/all.rs"));
    }
}

/// The example of the transport's README is a test.
#[cfg(doctest)]
#[doc = include_str!("../../homa-transport/README.md")]
struct TransportReadme;
