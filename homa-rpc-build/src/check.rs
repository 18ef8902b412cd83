//! Refuses descriptors for which no code can be generated, before any is written.

use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::{
    Error, attributes,
    generate::names,
    items::{self, ItemPath, number},
    source::Paths,
};

/// Checks every file and every method.
pub(crate) fn check(set: &FileDescriptorSet, paths: &Paths) -> Result<(), Error> {
    for file in &set.file {
        if !matches!(file.syntax(), "" | "proto2" | "proto3") {
            return Err(Error::Edition {
                location: paths.display(file.name()).to_string(),
            });
        }
        check_identifiers(file, paths)?;
        check_methods(file, paths)?;
    }
    Ok(())
}

/// `_` is a name in protobuf, but nothing is left of it in the case that Rust wants.
fn check_identifiers(file: &FileDescriptorProto, paths: &Paths) -> Result<(), Error> {
    let is_possible = |name: &str| {
        attributes::is_identifier(name) && name.contains(|c: char| c.is_ascii_alphanumeric())
    };
    let refuse = |location, name: &str| {
        Err(Error::Name {
            location,
            problem: format!("`{name}` cannot be made a name of Rust: rename it"),
        })
    };
    let package = file.package();
    if !package.is_empty() && !package.split('.').all(is_possible) {
        return refuse(paths.display(file.name()).to_string(), package);
    }
    let mut found = None;
    items::walk(file, |path, name| {
        if found.is_none() && !is_possible(name) {
            found = Some((path, name.to_owned()));
        }
    });
    match found {
        Some((path, name)) => refuse(path.location(file, paths), &name),
        None => Ok(()),
    }
}

fn check_methods(file: &FileDescriptorProto, paths: &Paths) -> Result<(), Error> {
    for (service_index, service) in file.service.iter().enumerate() {
        let service_path = ItemPath::default().child(number::FILE_SERVICE, service_index);
        for (method_index, method) in service.method.iter().enumerate() {
            if method.client_streaming() || method.server_streaming() {
                return Err(Error::Streaming {
                    location: service_path
                        .child(number::SERVICE_METHOD, method_index)
                        .location(file, paths),
                    service: names::full(file.package(), service.name()),
                    method: method.name().to_owned(),
                });
            }
        }
    }
    Ok(())
}
