//! Generates the clients and server traits of the examples.

use std::{env, path::Path};

use homa_rpc_build::manual;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = env::var("OUT_DIR")?;
    homa_rpc_build::configure()
        .build_client_trait(true)
        .compile_protos(
            &[
                "../proto/helloworld/greeter.proto",
                "../proto/keyvalue/keyvalue.proto",
                "../proto/chat/chat.proto",
            ],
            &["../proto"],
        )?;
    // With its descriptors, for reflection.
    homa_rpc_build::configure()
        .file_descriptor_set_path(Path::new(&out).join("routeguide.bin"))
        .compile_protos(&["../proto/routeguide/route_guide.proto"], &["../proto"])?;

    // A service without a .proto file: its messages are in src/json.rs.
    let summarize = manual::Method::builder()
        .name("summarize")
        .route_name("Summarize")
        .comment("Says how many numbers there are, and what they are together.")
        .input_type("crate::json::Numbers")
        .output_type("crate::json::Summary")
        .codec_path("crate::json::JsonCodec")
        .no_side_effects()
        .build();
    let statistics = manual::Service::builder()
        .package("statistics")
        .name("Statistics")
        .comment("Looks at numbers.")
        .method(summarize)
        .build();
    manual::Builder::new().compile(&[statistics])?;
    Ok(())
}
