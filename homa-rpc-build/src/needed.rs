//! What has to be built of files that were only imported.

use std::collections::{HashMap, HashSet};

use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::descriptor_walk::{self, Item};

/// Leaves out imported files that no type is taken from, such as those with options, and the
/// services of all that were only imported.
pub(crate) fn retain(set: &mut FileDescriptorSet, imports: &HashSet<String>) {
    let mut owners = HashMap::new();
    for (index, file) in set.file.iter().enumerate() {
        descriptor_walk::walk_full(file, |name, item| {
            if matches!(item, Item::Message | Item::Enum) {
                owners.insert(format!(".{name}"), index);
            }
        });
    }
    for file in &mut set.file {
        if imports.contains(file.name()) {
            file.service.clear();
        }
    }
    let mut needed: Vec<bool> = set
        .file
        .iter()
        .map(|file| !imports.contains(file.name()))
        .collect();
    let indexes = needed.iter().enumerate();
    let mut to_visit: Vec<usize> = indexes
        .filter_map(|(index, &is_given)| is_given.then_some(index))
        .collect();
    while let Some(file) = to_visit.pop().and_then(|index| set.file.get(index)) {
        for owner in types(file).into_iter().filter_map(|name| owners.get(name)) {
            if let Some(is_needed) = needed.get_mut(*owner).filter(|is_needed| !**is_needed) {
                *is_needed = true;
                to_visit.push(*owner);
            }
        }
    }
    let mut needed = needed.into_iter();
    set.file.retain(|_| needed.next().unwrap_or(true));
}

/// The types that are named in `file`. Extensions are not built.
fn types(file: &FileDescriptorProto) -> Vec<&str> {
    let mut types = Vec::new();
    for message in &file.message_type {
        types_of(message, &mut types);
    }
    for method in file.service.iter().flat_map(|service| &service.method) {
        types.extend([method.input_type(), method.output_type()]);
    }
    types
}

fn types_of<'a>(message: &'a DescriptorProto, types: &mut Vec<&'a str>) {
    types.extend(message.field.iter().map(|field| field.type_name()));
    for nested in &message.nested_type {
        types_of(nested, types);
    }
}
