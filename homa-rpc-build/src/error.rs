use std::{fmt, io, path::PathBuf};

/// Why a `.proto` file could not be compiled.
///
/// `Debug` prints the same text as `Display`, because that is what Cargo shows when a build
/// script returns an error from `main`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The files are not valid protobuf, or one of them is missing.
    #[error("{0}")]
    Invalid(String),

    /// A file uses protobuf editions.
    #[error(
        "{location}: edition files are not supported yet: expected `syntax = \"proto3\"` or \
         `syntax = \"proto2\"`, found `edition`"
    )]
    Edition {
        /// File, and line and column where they are known, as `file:line:column`.
        location: String,
    },

    /// A method has a stream as its argument or its result.
    #[error(
        "{location}: method `{method}` of service `{service}` uses `stream`: streaming is not \
         supported yet, only unary methods are"
    )]
    Streaming {
        /// File, and line and column where they are known, as `file:line:column`.
        location: String,
        /// Full name of the service, such as `helloworld.Greeter`.
        service: String,
        /// Name of the method as in the `.proto` file.
        method: String,
    },

    /// A name cannot be used in Rust, or two become one there.
    #[error("{location}: {problem}")]
    Name {
        /// File, and line and column where they are known, as `file:line:column`.
        location: String,
        /// Which name, and why not.
        problem: String,
    },

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
