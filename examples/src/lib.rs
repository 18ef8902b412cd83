//! What the example programs in `src/bin` share: the generated code and the service that is worth
//! testing by itself.

pub mod cli;
pub mod guide;
pub mod json;
pub mod places;
pub mod rename;
pub mod room;
pub mod store;

/// Generated from `proto/helloworld/greeter.proto`.
pub mod helloworld {
    homa_rpc::include_proto!("helloworld");
}

/// Generated from `proto/keyvalue/keyvalue.proto`.
pub mod keyvalue {
    homa_rpc::include_proto!("keyvalue");
}

/// Generated from `proto/routeguide/route_guide.proto`.
pub mod routeguide {
    homa_rpc::include_proto!("routeguide");

    /// The encoded descriptors, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = homa_rpc::include_file_descriptor_set!("routeguide");
}

/// Generated from `proto/chat/chat.proto`.
pub mod chat {
    homa_rpc::include_proto!("chat");
}
