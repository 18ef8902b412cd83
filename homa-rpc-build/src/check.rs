//! Refuses descriptors for which no code can be generated, before any is written.

use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::{Error, generate::names, source::Paths};

/// Field numbers in `descriptor.proto`: `FileDescriptorProto.service`, `ServiceDescriptorProto.method`.
const SERVICE: i32 = 6;
const METHOD: i32 = 2;

/// Checks every file and every method.
pub(crate) fn check(set: &FileDescriptorSet, paths: &Paths) -> Result<(), Error> {
    for file in &set.file {
        if !matches!(file.syntax(), "" | "proto2" | "proto3") {
            return Err(Error::Edition {
                location: paths.display(file.name()).to_string(),
            });
        }
        for (service_index, service) in file.service.iter().enumerate() {
            for (method_index, method) in service.method.iter().enumerate() {
                if method.client_streaming() || method.server_streaming() {
                    return Err(Error::Streaming {
                        location: location(file, service_index, method_index, paths),
                        service: names::full(file.package(), service.name()),
                        method: method.name().to_owned(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// `file:line:column` of a method, or only the file if there is no source information.
fn location(file: &FileDescriptorProto, service: usize, method: usize, paths: &Paths) -> String {
    let path = paths.display(file.name());
    let wanted = [
        Ok(SERVICE),
        i32::try_from(service),
        Ok(METHOD),
        i32::try_from(method),
    ];
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let span = locations
        .filter(|location| location.path.iter().map(|&step| Ok(step)).eq(wanted))
        .find_map(|location| location.span.first_chunk::<2>());
    match span {
        Some([line, column]) => format!("{path}:{}:{}", line + 1, column + 1),
        None => path.to_string(),
    }
}
