//! Defaults of enum fields, a thing of proto2.

use std::collections::HashMap;

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type,
};

use crate::names::full;

/// Replaces defaults that are another name for a number by the first one, which has the variant.
pub(crate) fn without_aliases(set: &mut FileDescriptorSet) {
    let mut enums = Enums::new();
    for file in &set.file {
        collect(
            &file.message_type,
            &file.enum_type,
            file.package(),
            &mut enums,
        );
    }
    for file in &mut set.file {
        for message in &mut file.message_type {
            replace(message, &enums);
        }
    }
}

/// By the full name of an enum, the first name for each of those names of values that come later.
type Enums = HashMap<String, HashMap<String, String>>;

fn collect(
    messages: &[DescriptorProto],
    items: &[EnumDescriptorProto],
    parent: &str,
    enums: &mut Enums,
) {
    for item in items {
        let mut first: HashMap<i32, &str> = HashMap::new();
        let mut aliases = HashMap::new();
        for value in &item.value {
            let name = *first.entry(value.number()).or_insert_with(|| value.name());
            if name != value.name() {
                aliases.insert(value.name().to_owned(), name.to_owned());
            }
        }
        enums.insert(format!(".{}", full(parent, item.name())), aliases);
    }
    for message in messages {
        let name = full(parent, message.name());
        collect(&message.nested_type, &message.enum_type, &name, enums);
    }
}

fn replace(message: &mut DescriptorProto, enums: &Enums) {
    for field in &mut message.field {
        if field.r#type() == Type::Enum {
            let aliases = enums.get(field.type_name());
            if let Some(default) = &mut field.default_value
                && let Some(first) = aliases.and_then(|aliases| aliases.get(default))
            {
                default.clone_from(first);
            }
        }
    }
    for nested in &mut message.nested_type {
        replace(nested, enums);
    }
}
