//! Generates the clients and server traits of the examples.

use homa_rpc_build::manual;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    homa_rpc_build::configure()
        .build_client_trait(true)
        .compile_protos(
            &[
                "../proto/helloworld/greeter.proto",
                "../proto/keyvalue/keyvalue.proto",
            ],
            &["../proto"],
        )?;

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
