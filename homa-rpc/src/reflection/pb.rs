//! Messages, clients and servers of both versions, and their descriptors.
//!
//! Made from `proto/grpc/reflection`; `homa-rpc-build/tests/checked_in.rs` compares.

/// `grpc.reflection.v1`.
#[allow(missing_docs, unreachable_pub, reason = "generated code")]
pub mod v1 {
    include!("grpc_reflection_v1.rs");

    /// The encoded `google.protobuf.FileDescriptorSet`.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("grpc_reflection_v1.bin");
}

/// `grpc.reflection.v1alpha`. Its messages are those of [`v1`]: only the names of package and service differ.
#[allow(missing_docs, unreachable_pub, reason = "generated code")]
pub mod v1alpha {
    pub use super::v1::{
        ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FileDescriptorResponse,
        ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
        server_reflection_request, server_reflection_response,
    };

    include!("grpc_reflection_v1alpha.rs");

    /// The encoded `google.protobuf.FileDescriptorSet`.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("grpc_reflection_v1alpha.bin");
}
