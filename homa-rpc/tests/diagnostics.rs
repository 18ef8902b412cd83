//! What the compiler says to mistakes that everybody makes once.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the libraries that this test was built with.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_owned()
}

/// The library as it was built last.
fn homa_rpc(folder: &Path) -> PathBuf {
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with("libhoma_rpc-") && name.ends_with(".rlib")
    };
    let entries = fs::read_dir(folder).unwrap();
    let libraries = entries.map(|entry| entry.unwrap().path()).filter(is_ours);
    let built = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    libraries.max_by_key(built).unwrap()
}

/// What the compiler writes about `source`, which it must refuse.
fn refusal(name: &str, source: &str) -> String {
    let folder = libraries();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.rs"));
    fs::write(&file, source).unwrap();
    let compiler = option_env!("RUSTC").unwrap_or("rustc");
    let output = Command::new(compiler)
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .arg("--out-dir")
        .arg(env!("CARGO_TARGET_TMPDIR"))
        .arg("-L")
        .arg(format!("dependency={}", folder.display()))
        .arg("--extern")
        .arg(format!("homa_rpc={}", homa_rpc(&folder).display()))
        .arg(&file)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{name} was compiled");
    String::from_utf8(output.stderr).unwrap()
}

/// A generated trait and a handler for it, as far as they matter here.
const HANDLER: &str = "
pub struct Hello;
pub fn serve() {
    let _server = homa_rpc::Server::builder().add_service(Hello);
}
pub fn serve_inline() {
    let _server = homa_rpc::Server::builder().add_inline_service(Hello);
}
";

#[test]
fn a_handler_that_is_added_without_its_server_is_told_how() {
    let text = refusal("no_server", HANDLER);
    let first = text.lines().next().unwrap_or_default();
    assert!(
        first.contains("`Hello` is not a service that can be served"),
        "{text}"
    );
    for part in [
        "what implements a generated trait `Greeter` is served as `GreeterServer::new(..)`",
        "add_service(Hello)",
        "add_inline_service(Hello)",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}
