//! Generates the clients and servers of `proto/bench`: those of homa-rpc with the messages, and those of
//! tonic, which use the same messages.

use std::error::Error;
use std::path::PathBuf;

const PROTOS: [&str; 2] = ["../proto/bench/bench.proto", "../proto/bench/stream.proto"];
const ROOT: &str = "../proto";

fn main() -> Result<(), Box<dyn Error>> {
    homa_rpc_build::configure()
        .bytes(".")
        .compile_protos(&PROTOS, &[ROOT])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("tonic");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .out_dir(out)
        .extern_path(".bench", "crate::rpc::service::messages")
        .compile_fds(protox::compile(PROTOS, [ROOT])?)?;
    Ok(())
}
