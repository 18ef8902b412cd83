//! Goes over the options of a file that the parser has left to be understood.

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    UninterpretedOption,
};

use crate::names::full;

/// What is done with an option of the item that has a full name.
type Visit<'a> = dyn FnMut(&str, &mut UninterpretedOption) + 'a;

/// Each kind of item has a type of its own for its options.
macro_rules! visit_options {
    ($owner:expr, $name:expr, $visit:expr) => {
        let options = $owner.options.as_mut();
        for option in options
            .map(|options| &mut options.uninterpreted_option)
            .into_iter()
            .flatten()
        {
            $visit($name, option);
        }
    };
}

/// Calls `visit` for every option, with the full name of what it is an option of.
pub(super) fn each(file: &mut FileDescriptorProto, visit: &mut Visit<'_>) {
    let package = file.package().to_owned();
    visit_options!(file, &package, visit);
    for message in &mut file.message_type {
        of_message(message, &package, visit);
    }
    for item in &mut file.enum_type {
        of_enum(item, &package, visit);
    }
    for field in &mut file.extension {
        of_field(field, &package, visit);
    }
    for service in &mut file.service {
        let name = full(&package, service.name());
        visit_options!(service, &name, visit);
        for method in &mut service.method {
            let name = full(&name, method.name());
            visit_options!(method, &name, visit);
        }
    }
}

fn of_message(message: &mut DescriptorProto, parent: &str, visit: &mut Visit<'_>) {
    let name = full(parent, message.name());
    visit_options!(message, &name, visit);
    for field in message.field.iter_mut().chain(&mut message.extension) {
        of_field(field, &name, visit);
    }
    for oneof in &mut message.oneof_decl {
        visit_options!(oneof, &name, visit);
    }
    for range in &mut message.extension_range {
        visit_options!(range, &name, visit);
    }
    for nested in &mut message.nested_type {
        of_message(nested, &name, visit);
    }
    for item in &mut message.enum_type {
        of_enum(item, &name, visit);
    }
}

fn of_enum(item: &mut EnumDescriptorProto, parent: &str, visit: &mut Visit<'_>) {
    let name = full(parent, item.name());
    visit_options!(item, &name, visit);
    for value in &mut item.value {
        visit_options!(value, &name, visit);
    }
}

fn of_field(field: &mut FieldDescriptorProto, parent: &str, visit: &mut Visit<'_>) {
    let name = full(parent, field.name());
    visit_options!(field, &name, visit);
}
