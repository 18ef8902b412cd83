//! Generates the clients and server traits of the examples.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    homa_rpc_build::configure().compile_protos(
        &[
            "../proto/helloworld/greeter.proto",
            "../proto/keyvalue/keyvalue.proto",
        ],
        &["../proto"],
    )?;
    Ok(())
}
