//! Why there can be no reflection service.

/// Why a reflection service cannot be built of these descriptors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no `google.protobuf.FileDescriptorSet`.
    #[error("expected an encoded FileDescriptorSet: {0}")]
    DecodeError(#[from] prost::DecodeError),
    /// They are one, in which something is missing or appears twice.
    #[error("invalid FileDescriptorSet: {0}")]
    InvalidFileDescriptorSet(String),
}
