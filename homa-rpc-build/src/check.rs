//! Refuses descriptors for which no code can be generated, before any is written.

use std::collections::HashSet;

use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::{
    Error, Problem, Problems, attributes,
    descriptor_walk::{self, ItemPath, number},
    names,
    paths::Paths,
    source::EDITION,
};

/// Checks every file; the methods only of those that are not in `imports`.
pub(crate) fn check(
    set: &FileDescriptorSet,
    imports: &HashSet<String>,
    paths: &Paths,
) -> Result<(), Error> {
    let in_all = |find: fn(&FileDescriptorProto, &Paths) -> Vec<Problem>| {
        let problems = set.file.iter().flat_map(|file| find(file, paths));
        problems.collect::<Vec<_>>()
    };
    Problems::none_or(in_all(editions), Error::Edition)?;
    Problems::none_or(in_all(identifiers), Error::Name)?;
    let given = set
        .file
        .iter()
        .filter(|file| !imports.contains(file.name()));
    let streams = given.flat_map(|file| streams(file, paths)).collect();
    Problems::none_or(streams, Error::Streaming)
}

fn editions(file: &FileDescriptorProto, paths: &Paths) -> Vec<Problem> {
    if matches!(file.syntax(), "" | "proto2" | "proto3") {
        return Vec::new();
    }
    let location = paths.display(file.name()).to_string();
    vec![Problem::new(location, EDITION)]
}

/// `_` is a name in protobuf, but nothing is left of it in the case that Rust wants.
fn identifiers(file: &FileDescriptorProto, paths: &Paths) -> Vec<Problem> {
    let is_possible = |name: &str| {
        attributes::is_identifier(name) && name.contains(|c: char| c.is_ascii_alphanumeric())
    };
    let problem = |location, name: &str| {
        Problem::new(
            location,
            format!("`{name}` cannot be made a name of Rust: rename it"),
        )
    };
    let mut problems = Vec::new();
    let package = file.package();
    if !package.is_empty() && !package.split('.').all(is_possible) {
        problems.push(problem(paths.display(file.name()).to_string(), package));
    }
    descriptor_walk::walk(file, |path, name| {
        if !is_possible(name) {
            problems.push(problem(path.location(file, paths), name));
        }
    });
    problems
}

fn streams(file: &FileDescriptorProto, paths: &Paths) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (service_index, service) in file.service.iter().enumerate() {
        let service_path = ItemPath::default().child(number::FILE_SERVICE, service_index);
        for (method_index, method) in service.method.iter().enumerate() {
            if method.client_streaming() || method.server_streaming() {
                let path = service_path.child(number::SERVICE_METHOD, method_index);
                let text = format!(
                    "method `{}` of service `{}` uses `stream`: streaming is not supported yet, \
                     only unary methods are: leave it out of the file, or build only messages, \
                     with `build_client(false)` and `build_server(false)`",
                    method.name(),
                    names::full(file.package(), service.name()),
                );
                problems.push(Problem::new(path.location(file, paths), text));
            }
        }
    }
    problems
}
