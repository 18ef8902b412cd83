//! Generates code for the definitions that the tests serve.

use std::{env, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let google = "../proto/third_party/googleapis";
    homa_rpc_build::configure()
        .include_file("googleapis.rs")
        .compile_protos(
            &[
                format!("{google}/google/longrunning/operations_proto.proto"),
                format!("{google}/google/cloud/location/locations.proto"),
            ],
            &[google],
        )?;

    let awkward = "../homa-rpc-build/tests/protos";
    let out = env::var("OUT_DIR")?;
    homa_rpc_build::configure()
        .include_file("awkward.rs")
        .file_descriptor_set_path(Path::new(&out).join("awkward.bin"))
        .compile_protos(
            &[
                format!("{awkward}/features/service.proto"),
                format!("{awkward}/no_package.proto"),
            ],
            &[awkward],
        )?;
    Ok(())
}
