//! Paths for the well-known types, which prost-build has too.

use crate::Error;

/// The package of the well-known types.
const PACKAGE: &str = ".google.protobuf";

/// Whether prost-build has a Rust type or module of its own for `path`, and refuses another.
pub(crate) fn is_mapped(path: &str) -> bool {
    let Some(name) = path.strip_prefix(PACKAGE) else {
        return false;
    };
    matches!(
        name,
        "" | ".BoolValue"
            | ".BytesValue"
            | ".DoubleValue"
            | ".Empty"
            | ".FloatValue"
            | ".Int32Value"
            | ".Int64Value"
            | ".StringValue"
            | ".UInt32Value"
            | ".UInt64Value"
    )
}

/// Gives `paths`, each a protobuf path that is mapped and a Rust path, to prost-build, which takes
/// them only if it is to `compile` the well-known types. The default needs no naming.
pub(crate) fn set(
    prost: &mut prost_build::Config,
    paths: Vec<(String, String)>,
    compile: bool,
) -> Result<(), Error> {
    for (proto_path, rust_path) in paths {
        let is_default = proto_path == PACKAGE && rust_path == "::prost_types";
        if compile {
            prost.extern_path(proto_path, rust_path);
        } else if !is_default {
            return Err(Error::Option {
                option: "extern_path",
                expected: "`compile_well_known_types(true)` beside it, for this path",
                value: proto_path,
            });
        }
    }
    Ok(())
}
