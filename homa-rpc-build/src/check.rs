//! Refuses descriptors for which no code can be generated, before any is written.

use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::{Error, Problem, Problems, attributes, descriptor_walk, paths::Paths, source::EDITION};

/// Checks every file.
pub(crate) fn check(set: &FileDescriptorSet, paths: &Paths) -> Result<(), Error> {
    let in_all = |find: fn(&FileDescriptorProto, &Paths) -> Vec<Problem>| {
        let problems = set.file.iter().flat_map(|file| find(file, paths));
        problems.collect::<Vec<_>>()
    };
    Problems::none_or(in_all(editions), Error::Edition)?;
    Problems::none_or(in_all(identifiers), Error::Name)
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
