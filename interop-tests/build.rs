//! Generates code for the definitions that the tests serve.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

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
    let out = PathBuf::from(env::var("OUT_DIR")?);
    homa_rpc_build::configure()
        .include_file("awkward.rs")
        .file_descriptor_set_path(out.join("awkward.bin"))
        .compile_protos(
            &[
                format!("{awkward}/features/service.proto"),
                format!("{awkward}/no_package.proto"),
                format!("{awkward}/names/top.proto"),
                format!("{awkward}/names/services.proto"),
                format!("{awkward}/names/keywords.proto"),
            ],
            &[awkward],
        )?;
    homa_rpc_build::configure()
        .include_file("strict.rs")
        .build_client_trait(true)
        .bytes(".")
        .btree_map(".")
        .boxed(".strict.v1.Item.time")
        .enable_type_names(true)
        .compile_protos(&[format!("{awkward}/strict/v1/store.proto")], &[awkward])?;
    let harmless = ["comments", "lints", "names"];
    homa_rpc_build::configure()
        .include_file("harmless.rs")
        .build_client_trait(true)
        .compile_protos(
            &harmless.map(|name| format!("{awkward}/harmless/{name}.proto")),
            &[awkward],
        )?;
    homa_rpc_build::configure()
        .bytes(".")
        .compile_protos(&["../proto/bench/bench.proto"], &["../proto"])?;
    homa_rpc_build::configure().bytes(".").compile_protos(
        &["../homa-rpc/tests/support/streams.proto"],
        &["../homa-rpc/tests/support"],
    )?;
    every_form(&out, Path::new(awkward))
}

/// The same services in the forms that options give them.
fn every_form(out: &Path, protos: &Path) -> Result<(), Box<dyn std::error::Error>> {
    for (form, native_async, use_arc_self) in [
        ("boxed_stubs", false, false),
        ("boxed_arc", false, true),
        ("native", true, false),
        ("native_arc", true, true),
    ] {
        let directory = out.join(form);
        fs::create_dir_all(&directory)?;
        homa_rpc_build::configure()
            .out_dir(&directory)
            .include_file("all.rs")
            .native_async(native_async)
            .use_arc_self(use_arc_self)
            .generate_default_stubs(native_async == use_arc_self)
            .build_client_trait(true)
            .compile_protos(&[protos.join("names/services.proto")], &[protos])?;
    }
    Ok(())
}
