//! What the example programs in `src/bin` share: the generated code and the service that is worth
//! testing by itself.

pub mod cli;
pub mod json;
pub mod rename;
pub mod store;

/// Generated from `proto/helloworld/greeter.proto`.
pub mod helloworld {
    homa_rpc::include_proto!("helloworld");
}

/// Generated from `proto/keyvalue/keyvalue.proto`.
pub mod keyvalue {
    homa_rpc::include_proto!("keyvalue");
}
