//! The methods that prost's derive adds to a message, by field.

use prost_types::{
    DescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use crate::names;

/// The names of the methods for `field` of `message`. `syntax` is that of the file.
pub(crate) fn accessors(
    message: &DescriptorProto,
    field: &FieldDescriptorProto,
    syntax: &str,
) -> Vec<String> {
    if field.oneof_index.is_some() && !field.proto3_optional() {
        return Vec::new();
    }
    let name = names::snake(field.name());
    let name = name.trim_start_matches("r#");
    if let Some(value) = map_value(message, field) {
        return match value.r#type() {
            Type::Enum => {
                let name = map_field(&names::snake(field.name()));
                vec![format!("get_{name}"), format!("insert_{name}")]
            }
            _ => Vec::new(),
        };
    }
    let is_repeated = field.label() == Label::Repeated;
    let is_optional =
        field.proto3_optional() || (field.label() == Label::Optional && syntax != "proto3");
    match field.r#type() {
        Type::Message | Type::Group => Vec::new(),
        Type::Enum if is_repeated => vec![name.to_owned(), format!("push_{name}")],
        Type::Enum => vec![name.to_owned(), format!("set_{name}")],
        _ if is_optional && !is_repeated => vec![name.to_owned()],
        _ => Vec::new(),
    }
}

/// The name of a field that is a map of enums: prost's derive cannot have keywords there.
pub(crate) fn map_field(name: &str) -> String {
    match name.strip_prefix("r#") {
        Some(keyword) => format!("{keyword}_"),
        None => name.to_owned(),
    }
}

/// The values of a map.
fn map_value<'a>(
    message: &'a DescriptorProto,
    field: &FieldDescriptorProto,
) -> Option<&'a FieldDescriptorProto> {
    let name = field.type_name().rsplit('.').next()?;
    let entry = message.nested_type.iter().find(|nested| {
        nested.name() == name && nested.options.as_ref().is_some_and(|o| o.map_entry())
    })?;
    entry.field.get(1)
}
