//! Names that the parser gives otherwise than protoc.

use std::collections::HashSet;

use prost_types::{DescriptorProto, FileDescriptorProto};

/// Gives the oneofs that stand for `optional` fields names that nothing else has.
pub(super) fn rename_synthetic_oneofs(file: &mut FileDescriptorProto) {
    file.message_type.iter_mut().for_each(rename_in);
}

fn rename_in(message: &mut DescriptorProto) {
    message.nested_type.iter_mut().for_each(rename_in);
    let synthetic: Vec<(usize, String)> = message
        .field
        .iter()
        .filter(|field| field.proto3_optional())
        .filter_map(|field| {
            let index = usize::try_from(field.oneof_index?).ok()?;
            Some((index, field.name().to_owned()))
        })
        .collect();
    if synthetic.is_empty() {
        return;
    }
    let is_synthetic = |index| synthetic.iter().any(|&(other, _)| other == index);
    let oneofs = message.oneof_decl.iter().enumerate();
    let real = oneofs.filter(|&(index, _)| !is_synthetic(index));
    let enums = &message.enum_type;
    let mut taken: HashSet<String> = real
        .map(|(_, oneof)| oneof.name())
        .chain(message.field.iter().map(|field| field.name()))
        .chain(message.extension.iter().map(|field| field.name()))
        .chain(message.nested_type.iter().map(|nested| nested.name()))
        .chain(enums.iter().map(|nested| nested.name()))
        .chain(
            enums
                .iter()
                .flat_map(|e| &e.value)
                .map(|value| value.name()),
        )
        .map(str::to_owned)
        .collect();
    for (index, field) in synthetic {
        let mut name = if field.starts_with('_') {
            field
        } else {
            format!("_{field}")
        };
        while !taken.insert(name.clone()) {
            name.insert(0, 'X');
        }
        if let Some(oneof) = message.oneof_decl.get_mut(index) {
            oneof.name = Some(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{FieldDescriptorProto, OneofDescriptorProto};

    use super::*;

    #[test]
    fn a_synthetic_oneof_gets_the_name_that_protoc_gives_it() {
        let field = |name: &str, oneof, is_optional| FieldDescriptorProto {
            name: Some(name.to_owned()),
            oneof_index: Some(oneof),
            proto3_optional: is_optional,
            ..FieldDescriptorProto::default()
        };
        let oneof = |name: &str| OneofDescriptorProto {
            name: Some(name.to_owned()),
            ..OneofDescriptorProto::default()
        };
        let mut message = DescriptorProto {
            field: vec![
                field("y", 0, None),
                field("x", 1, Some(true)),
                field("_z", 2, Some(true)),
                field("X_x", 3, Some(true)),
            ],
            oneof_decl: vec![oneof("_x"), oneof("_x"), oneof("X_z"), oneof("_X_x")],
            ..DescriptorProto::default()
        };
        rename_in(&mut message);
        let names: Vec<_> = message
            .oneof_decl
            .iter()
            .map(|oneof| oneof.name())
            .collect();
        assert_eq!(names, ["_x", "XX_x", "X_z", "_X_x"]);
    }
}
