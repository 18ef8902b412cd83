use std::{fmt, io, path::PathBuf};

use crate::Problems;

/// Why a `.proto` file could not be compiled.
///
/// `Debug` prints the same text as `Display`, because that is what Cargo shows when a build
/// script returns an error from `main`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Files are not valid protobuf, or missing.
    #[error("{0}")]
    Invalid(Problems),

    /// Files use protobuf editions.
    #[error("{0}")]
    Edition(Problems),

    /// Names cannot be used in Rust, or two become one there.
    #[error("{0}")]
    Name(Problems),

    /// An option of the builder, or of a service without a `.proto` file, has a wrong value.
    #[error("option `{option}`: expected {expected}, found `{value}`")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// What the value must be.
        expected: &'static str,
        /// The value that was given.
        value: String,
    },

    /// No directory to write to is known.
    #[error(
        "no directory to write to: expected the option `out_dir`, or the environment variable \
         OUT_DIR, which Cargo sets for build scripts"
    )]
    NoOutDir,

    /// A file would be written twice, with different content.
    #[error("{} would be overwritten: {first} and {second} both go there: {remedy}", path.display())]
    Overwritten {
        /// The file.
        path: PathBuf,
        /// What is in it, or would be.
        first: String,
        /// What would take its place.
        second: String,
        /// What can be done.
        remedy: &'static str,
    },

    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason given by the system.
        source: io::Error,
    },

    /// `prost-build` could not generate code.
    #[error("cannot generate code: {0}")]
    Generate(#[source] io::Error),

    /// The generated code is not Rust. The text of an option can cause that.
    #[error("the code generated for {origin} is not Rust: {text}")]
    NotRust {
        /// What it was generated for.
        origin: String,
        /// What the parser says.
        text: String,
    },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
