//! Places in the source that the descriptors leave out.

use std::collections::BTreeSet;

use prost_types::{FileDescriptorSet, source_code_info::Location};

use crate::descriptor_walk;

/// Gives every item a place in the source, if any has one: prost-build panics otherwise.
pub(crate) fn complete_places(set: &mut FileDescriptorSet) {
    for file in &mut set.file {
        let Some(info) = &file.source_code_info else {
            continue;
        };
        let known: BTreeSet<_> = info.location.iter().map(|place| &place.path).collect();
        let mut missing = Vec::new();
        descriptor_walk::walk(file, |path, _| {
            let path = path.into_vec();
            if !known.contains(&path) {
                missing.push(Location {
                    path,
                    ..Location::default()
                });
            }
        });
        file.source_code_info
            .get_or_insert_default()
            .location
            .extend(missing);
    }
}

/// Gives fields that are groups the comment of the message that such a field declares as well.
pub(crate) fn document_groups(set: &mut FileDescriptorSet) {
    for file in &mut set.file {
        let groups = descriptor_walk::groups(file);
        let Some(info) = &mut file.source_code_info else {
            continue;
        };
        for (field, message) in groups {
            let comment_of = |path: &[i32]| {
                let mut places = info.location.iter();
                let place = places.find(|place| place.path == path)?;
                place.leading_comments.clone()
            };
            let (field, comment) = (field.into_vec(), comment_of(&message.into_vec()));
            let mut places = info.location.iter_mut();
            match places.find(|place| place.path == field) {
                Some(place) => place.leading_comments = place.leading_comments.take().or(comment),
                None => info.location.push(Location {
                    path: field,
                    leading_comments: comment,
                    ..Location::default()
                }),
            }
        }
    }
}
