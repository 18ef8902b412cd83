//! The items of a `.proto` file, in the order of its descriptor.

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto, field_descriptor_proto::Type,
};

use crate::{names::full, paths::Paths};

/// Field numbers in `descriptor.proto`: the steps of paths in source information.
pub(crate) mod number {
    pub(crate) const FILE_IMPORT: i32 = 3;
    pub(crate) const FILE_MESSAGE: i32 = 4;
    pub(crate) const FILE_ENUM: i32 = 5;
    pub(crate) const FILE_SERVICE: i32 = 6;
    pub(crate) const MESSAGE_FIELD: i32 = 2;
    pub(crate) const MESSAGE_MESSAGE: i32 = 3;
    pub(crate) const MESSAGE_ENUM: i32 = 4;
    pub(crate) const MESSAGE_ONEOF: i32 = 8;
    pub(crate) const ENUM_VALUE: i32 = 2;
    pub(crate) const SERVICE_METHOD: i32 = 2;
}

/// The place of an item in a descriptor: numbers of fields and indexes, by turns.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ItemPath(Vec<i32>);

impl ItemPath {
    /// The item at `index` of the field `number`.
    pub(crate) fn child(&self, number: i32, index: usize) -> Self {
        let mut path = self.0.clone();
        path.extend([number, i32::try_from(index).unwrap_or(i32::MAX)]);
        Self(path)
    }

    pub(crate) fn into_vec(self) -> Vec<i32> {
        self.0
    }

    /// `file:line:column`, or only the file if there is no source information.
    pub(crate) fn location(&self, file: &FileDescriptorProto, paths: &Paths) -> String {
        self.location_in(file, &paths.display(file.name()).to_string())
    }

    /// The same, for a file that is known as `shown`.
    pub(crate) fn location_in(&self, file: &FileDescriptorProto, shown: &str) -> String {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let span = locations
            .filter(|location| location.path == self.0)
            .find_map(|location| location.span.first_chunk::<2>());
        match span {
            Some([line, column]) => format!("{shown}:{}:{}", line + 1, column + 1),
            None => shown.to_owned(),
        }
    }
}

/// Calls `visit` with the place and the name of every item of `file`. The messages that stand for
/// the entries of maps are among them.
pub(crate) fn walk(file: &FileDescriptorProto, mut visit: impl FnMut(ItemPath, &str)) {
    let root = ItemPath::default();
    for (index, message) in file.message_type.iter().enumerate() {
        walk_message(message, root.child(number::FILE_MESSAGE, index), &mut visit);
    }
    for (index, item) in file.enum_type.iter().enumerate() {
        walk_enum(item, root.child(number::FILE_ENUM, index), &mut visit);
    }
    for (index, service) in file.service.iter().enumerate() {
        walk_service(service, root.child(number::FILE_SERVICE, index), &mut visit);
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Message,
    Enum,
    Service,
    Other,
}

/// Calls `visit` with the full name of every item of `file`.
pub(crate) fn walk_full(file: &FileDescriptorProto, mut visit: impl FnMut(String, Item)) {
    let package = file.package();
    for message in &file.message_type {
        full_message(message, package, &mut visit);
    }
    for item in &file.enum_type {
        full_enum(item, package, &mut visit);
    }
    for field in &file.extension {
        visit(full(package, field.name()), Item::Other);
    }
    for service in &file.service {
        let name = full(package, service.name());
        for method in &service.method {
            visit(full(&name, method.name()), Item::Other);
        }
        visit(name, Item::Service);
    }
}

fn full_message(message: &DescriptorProto, parent: &str, visit: &mut impl FnMut(String, Item)) {
    let name = full(parent, message.name());
    for field in message.field.iter().chain(&message.extension) {
        visit(full(&name, field.name()), Item::Other);
    }
    for oneof in &message.oneof_decl {
        visit(full(&name, oneof.name()), Item::Other);
    }
    for nested in &message.nested_type {
        full_message(nested, &name, visit);
    }
    for item in &message.enum_type {
        full_enum(item, &name, visit);
    }
    visit(name, Item::Message);
}

/// The values of an enum are beside it, not in it.
fn full_enum(item: &EnumDescriptorProto, parent: &str, visit: &mut impl FnMut(String, Item)) {
    for value in &item.value {
        visit(full(parent, value.name()), Item::Other);
    }
    visit(full(parent, item.name()), Item::Enum);
}

/// The fields that are groups, a thing of proto2, each with the message it declares.
pub(crate) fn groups(file: &FileDescriptorProto) -> Vec<(ItemPath, ItemPath)> {
    let mut found = Vec::new();
    for (index, message) in file.message_type.iter().enumerate() {
        let path = ItemPath::default().child(number::FILE_MESSAGE, index);
        groups_in(message, &path, &mut found);
    }
    found
}

fn groups_in(message: &DescriptorProto, path: &ItemPath, found: &mut Vec<(ItemPath, ItemPath)>) {
    let nested = message.nested_type.iter().enumerate();
    for (index, group) in nested {
        let group_path = path.child(number::MESSAGE_MESSAGE, index);
        groups_in(group, &group_path, found);
        let end = format!(".{}.{}", message.name(), group.name());
        let is_field = |field: &FieldDescriptorProto| {
            field.r#type() == Type::Group && field.type_name().ends_with(&end)
        };
        if let Some(index) = message.field.iter().position(is_field) {
            found.push((path.child(number::MESSAGE_FIELD, index), group_path));
        }
    }
}

fn walk_message(message: &DescriptorProto, path: ItemPath, visit: &mut impl FnMut(ItemPath, &str)) {
    for (index, field) in message.field.iter().enumerate() {
        visit(path.child(number::MESSAGE_FIELD, index), field.name());
    }
    for (index, nested) in message.nested_type.iter().enumerate() {
        walk_message(nested, path.child(number::MESSAGE_MESSAGE, index), visit);
    }
    for (index, nested) in message.enum_type.iter().enumerate() {
        walk_enum(nested, path.child(number::MESSAGE_ENUM, index), visit);
    }
    for (index, oneof) in message.oneof_decl.iter().enumerate() {
        visit(path.child(number::MESSAGE_ONEOF, index), oneof.name());
    }
    visit(path, message.name());
}

fn walk_enum(item: &EnumDescriptorProto, path: ItemPath, visit: &mut impl FnMut(ItemPath, &str)) {
    for (index, value) in item.value.iter().enumerate() {
        visit(path.child(number::ENUM_VALUE, index), value.name());
    }
    visit(path, item.name());
}

fn walk_service(
    service: &ServiceDescriptorProto,
    path: ItemPath,
    visit: &mut impl FnMut(ItemPath, &str),
) {
    for (index, method) in service.method.iter().enumerate() {
        visit(path.child(number::SERVICE_METHOD, index), method.name());
    }
    visit(path, service.name());
}
