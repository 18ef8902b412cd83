//! The code of the services that homa-rpc brings with it is what the schemas in `proto` give.
//!
//! Set `UPDATE_GENERATED=1` to write it anew. The test is here, and not in homa-rpc, so that it can do that while
//! homa-rpc does not compile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use homa_rpc_build::{Builder, configure};

/// What one file in homa-rpc is made of.
struct Made {
    /// Below `proto`.
    proto: &'static str,
    /// The name of the package.
    package: &'static str,
    /// Where it is kept below `homa-rpc/src`, with `.rs` for the code and `.bin` for the descriptors.
    kept: &'static str,
}

const HEALTH: Made = Made {
    proto: "grpc/health/v1/health.proto",
    package: "grpc.health.v1",
    kept: "health/grpc_health_v1",
};
const REFLECTION_V1: Made = Made {
    proto: "grpc/reflection/v1/reflection.proto",
    package: "grpc.reflection.v1",
    kept: "reflection/grpc_reflection_v1",
};
const REFLECTION_V1ALPHA: Made = Made {
    proto: "grpc/reflection/v1alpha/reflection.proto",
    package: "grpc.reflection.v1alpha",
    kept: "reflection/grpc_reflection_v1alpha",
};

impl Made {
    #[track_caller]
    fn assert_kept(&self, builder: Builder) {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let proto = package.join("../proto");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("checked_in")
            .join(self.package);
        fs::create_dir_all(&out).unwrap();
        let descriptors = out.join("set.bin");
        builder
            .emit_rerun_if_changed(false)
            .out_dir(&out)
            .file_descriptor_set_path(&descriptors)
            .compile_protos(&[proto.join(self.proto)], &[&proto])
            .unwrap();
        let code = out.join(format!("{}.rs", self.package));
        let kept = package.join("../homa-rpc/src").join(self.kept);
        assert_same(&code, &kept.with_extension("rs"));
        assert_same(&descriptors, &kept.with_extension("bin"));
    }
}

#[track_caller]
fn assert_same(made: &PathBuf, kept: &PathBuf) {
    let made = fs::read(made).unwrap();
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(kept, &made).unwrap();
    }
    let found = fs::read(kept).unwrap_or_default();
    let differ = made
        .iter()
        .zip(&found)
        .position(|(made, found)| made != found);
    if made.len() != found.len() || differ.is_some() {
        let at = differ.unwrap_or(made.len().min(found.len()));
        let line = 1 + made.iter().take(at).filter(|byte| **byte == b'\n').count();
        panic!(
            "{}, line {line}: expected {} bytes as the schema gives them, found {}, which differ at byte {at}",
            kept.display(),
            made.len(),
            found.len()
        );
    }
}

#[test]
fn health() {
    HEALTH.assert_kept(configure());
}

#[test]
fn reflection() {
    // The files stay as they are registered.
    let files = ".grpc.reflection.v1.FileDescriptorResponse";
    REFLECTION_V1.assert_kept(configure().bytes(files));
}

/// The messages are those of version 1.
#[test]
fn reflection_v1alpha() {
    let names = [
        "ErrorResponse",
        "ExtensionNumberResponse",
        "ExtensionRequest",
        "FileDescriptorResponse",
        "ListServiceResponse",
        "ServerReflectionRequest",
        "ServerReflectionResponse",
        "ServiceResponse",
    ];
    let builder = names.into_iter().fold(configure(), |builder, name| {
        let path = format!(".grpc.reflection.v1alpha.{name}");
        builder.extern_path(path, format!("crate::reflection::pb::v1::{name}"))
    });
    REFLECTION_V1ALPHA.assert_kept(builder);
}

/// Only because of this may both versions have the same messages.
#[test]
fn the_versions_of_reflection_differ_by_their_package_only() {
    let read = |made: &Made| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
        let text = fs::read_to_string(path.join(made.proto)).unwrap();
        let lines = text.lines().filter(|line| {
            !line.starts_with("//") && !line.starts_with("package ") && !line.starts_with("option ")
        });
        lines.collect::<Vec<_>>().join("\n").trim().to_owned()
    };
    assert_eq!(read(&REFLECTION_V1), read(&REFLECTION_V1ALPHA));
}
