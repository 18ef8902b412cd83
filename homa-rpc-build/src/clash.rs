//! Finds items whose names differ in protobuf and not in Rust, such as the fields `fooBar` and
//! `foo_bar`: what would be generated for them does not compile.

use std::collections::{HashMap, hash_map::Entry};

use heck::ToUpperCamelCase as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

use crate::{
    Error,
    generate::{Shape, names},
    items::{ItemPath, number},
    source::Paths,
};

/// What decides about names besides the files.
pub(crate) struct Settings<'a> {
    pub(crate) shape: Shape,
    /// Whether the prefix of its enum is taken off a value.
    pub(crate) strip_enum_prefix: bool,
    /// Whether modules of packages are side by side with what is in their parents.
    pub(crate) include_tree: bool,
    /// Whether a type or package, by its full name, is not generated.
    pub(crate) is_extern: &'a dyn Fn(&str) -> bool,
}

/// Checks the names of all that is generated for `set`.
pub(crate) fn check(
    set: &FileDescriptorSet,
    paths: &Paths,
    settings: &Settings<'_>,
) -> Result<(), Error> {
    let mut modules: HashMap<Vec<String>, Scope> = HashMap::new();
    if settings.include_tree {
        for file in &set.file {
            declare_packages(file, settings, &mut modules);
        }
    }
    for file in &set.file {
        let checker = Checker {
            file,
            paths,
            settings,
        };
        let module = parts(file.package()).map(names::snake).collect();
        checker.file(modules.entry(module).or_default())?;
    }
    Ok(())
}

/// The names that `package` is made of: none if there is no package.
fn parts(package: &str) -> impl Iterator<Item = &str> {
    package.split('.').filter(|part| !part.is_empty())
}

/// Names in use within a module, message, enum or service, and by what.
#[derive(Default)]
struct Scope(HashMap<String, String>);

impl Scope {
    /// Takes `rust`, or gives who has it.
    fn declare(&mut self, rust: String, what: &str) -> Result<(), String> {
        match self.0.entry(rust) {
            Entry::Occupied(taken) => Err(format!(
                "{} and {what} would both be `{}` in Rust",
                taken.get(),
                taken.key()
            )),
            Entry::Vacant(free) => {
                free.insert(what.to_owned());
                Ok(())
            }
        }
    }
}

/// Makes the package of `file`, and those it is in, modules of one another.
fn declare_packages(
    file: &FileDescriptorProto,
    settings: &Settings<'_>,
    modules: &mut HashMap<Vec<String>, Scope>,
) {
    if (settings.is_extern)(file.package()) {
        return;
    }
    let mut module = Vec::new();
    let mut package = String::new();
    for part in parts(file.package()) {
        package = names::full(&package, part);
        let rust = names::snake(part);
        let scope = modules.entry(module.clone()).or_default();
        scope.0.insert(rust.clone(), format!("package `{package}`"));
        module.push(rust);
    }
}

/// Checks one file.
struct Checker<'a> {
    file: &'a FileDescriptorProto,
    paths: &'a Paths,
    settings: &'a Settings<'a>,
}

impl Checker<'_> {
    fn error(&self, path: &ItemPath, problem: String) -> Error {
        Error::Name {
            location: path.location(self.file, self.paths),
            problem,
        }
    }

    fn declare(
        &self,
        scope: &mut Scope,
        rust: String,
        what: &str,
        path: &ItemPath,
    ) -> Result<(), Error> {
        scope
            .declare(rust, what)
            .map_err(|problem| self.error(path, format!("{problem}: rename one")))
    }

    fn file(&self, scope: &mut Scope) -> Result<(), Error> {
        let (root, package) = (ItemPath::default(), self.file.package());
        for (index, message) in self.file.message_type.iter().enumerate() {
            let path = root.child(number::FILE_MESSAGE, index);
            self.message(message, package, &path, scope)?;
        }
        for (index, item) in self.file.enum_type.iter().enumerate() {
            let path = root.child(number::FILE_ENUM, index);
            self.enumeration(item, package, &path, scope)?;
        }
        for (index, service) in self.file.service.iter().enumerate() {
            self.service(service, &root.child(number::FILE_SERVICE, index), scope)?;
        }
        Ok(())
    }

    fn message(
        &self,
        message: &DescriptorProto,
        parent: &str,
        path: &ItemPath,
        scope: &mut Scope,
    ) -> Result<(), Error> {
        let full = names::full(parent, message.name());
        if (self.settings.is_extern)(&full) {
            return Ok(());
        }
        let what = format!("message `{full}`");
        self.declare(scope, message.name().to_upper_camel_case(), &what, path)?;
        self.fields(message, path)?;

        let mut inner = Scope::default();
        for (index, nested) in message.nested_type.iter().enumerate() {
            let is_map = nested.options.as_ref().is_some_and(|o| o.map_entry());
            if !is_map {
                let path = path.child(number::MESSAGE_MESSAGE, index);
                self.message(nested, &full, &path, &mut inner)?;
            }
        }
        for (index, nested) in message.enum_type.iter().enumerate() {
            let path = path.child(number::MESSAGE_ENUM, index);
            self.enumeration(nested, &full, &path, &mut inner)?;
        }
        self.oneofs(message, path, &mut inner)?;
        if inner.0.is_empty() {
            return Ok(());
        }
        let what = format!("the module of what is in message `{full}`");
        self.declare(scope, names::snake(message.name()), &what, path)
    }

    /// Fields of a struct: those of the message outside of oneofs, and its oneofs.
    fn fields(&self, message: &DescriptorProto, path: &ItemPath) -> Result<(), Error> {
        let mut fields = Scope::default();
        for (index, field) in message.field.iter().enumerate() {
            if field.oneof_index.is_none() || field.proto3_optional() {
                let what = format!("field `{}`", field.name());
                let path = path.child(number::MESSAGE_FIELD, index);
                self.declare(&mut fields, names::snake(field.name()), &what, &path)?;
            }
        }
        for (index, oneof) in oneofs(message) {
            let what = format!("oneof `{oneof}`");
            let path = path.child(number::MESSAGE_ONEOF, index);
            self.declare(&mut fields, names::snake(oneof), &what, &path)?;
        }
        Ok(())
    }

    /// Enums of oneofs, and their variants.
    fn oneofs(
        &self,
        message: &DescriptorProto,
        path: &ItemPath,
        inner: &mut Scope,
    ) -> Result<(), Error> {
        for (oneof_index, oneof) in oneofs(message) {
            let what = format!("oneof `{oneof}`");
            let mut rust = oneof.to_upper_camel_case();
            if inner.0.contains_key(&rust) {
                // prost-build's way out of a clash with a nested type.
                rust.push_str("OneOf");
            }
            let oneof_path = path.child(number::MESSAGE_ONEOF, oneof_index);
            self.declare(inner, rust, &what, &oneof_path)?;

            let mut variants = Scope::default();
            for (index, field) in message.field.iter().enumerate() {
                if field.oneof_index.map(usize::try_from) == Some(Ok(oneof_index)) {
                    let rust = field.name().to_upper_camel_case();
                    let what = format!("field `{}`", field.name());
                    let path = path.child(number::MESSAGE_FIELD, index);
                    self.declare(&mut variants, rust, &what, &path)?;
                }
            }
        }
        Ok(())
    }

    fn enumeration(
        &self,
        item: &EnumDescriptorProto,
        parent: &str,
        path: &ItemPath,
        scope: &mut Scope,
    ) -> Result<(), Error> {
        let full = names::full(parent, item.name());
        if (self.settings.is_extern)(&full) {
            return Ok(());
        }
        let rust = item.name().to_upper_camel_case();
        self.declare(scope, rust.clone(), &format!("enum `{full}`"), path)?;

        let mut variants = Scope::default();
        let mut numbers = Vec::new();
        for (index, value) in item.value.iter().enumerate() {
            // Of several names for a number only the first gets a variant.
            if numbers.contains(&value.number()) {
                continue;
            }
            numbers.push(value.number());
            let mut name = value.name().to_upper_camel_case();
            if self.settings.strip_enum_prefix {
                name = without_prefix(&rust, name);
            }
            let path = path.child(number::ENUM_VALUE, index);
            let what = format!("value `{}`", value.name());
            variants.declare(name, &what).map_err(|problem| {
                let hint = "rename one, or set the option `retain_enum_prefix` of the builder";
                self.error(&path, format!("{problem}: {hint}"))
            })?;
        }
        Ok(())
    }

    fn service(
        &self,
        service: &ServiceDescriptorProto,
        path: &ItemPath,
        scope: &mut Scope,
    ) -> Result<(), Error> {
        let full = names::full(self.file.package(), service.name());
        let base = service.name().to_upper_camel_case();
        let shape = self.settings.shape;
        let sides = [
            ("client", shape.build_client),
            ("server", shape.build_server),
        ];
        for (side, _) in sides.into_iter().filter(|&(_, is_built)| is_built) {
            let rust = names::module(&base, side).to_string();
            let what = format!("the {side} of service `{full}`");
            self.declare(scope, rust, &what, path)?;
        }
        let mut methods = Scope::default();
        for (index, method) in service.method.iter().enumerate() {
            let rust = names::method(&names::snake(method.name())).to_string();
            let what = format!("method `{}`", method.name());
            let path = path.child(number::SERVICE_METHOD, index);
            self.declare(&mut methods, rust, &what, &path)?;
        }
        Ok(())
    }
}

/// Index and name of the oneofs of `message`, without those that stand for `optional`.
fn oneofs(message: &DescriptorProto) -> impl Iterator<Item = (usize, &str)> {
    let is_real = |index: usize| {
        let mut fields = message.field.iter();
        fields.any(|field| {
            field.oneof_index.map(usize::try_from) == Some(Ok(index)) && !field.proto3_optional()
        })
    };
    let named = message.oneof_decl.iter().map(|oneof| oneof.name());
    named.enumerate().filter(move |&(index, _)| is_real(index))
}

/// The name of a value of the enum `prefix`, as prost-build shortens it: only before a new word.
fn without_prefix(prefix: &str, name: String) -> String {
    match name.strip_prefix(prefix) {
        Some(rest) if rest.starts_with(char::is_uppercase) => rest.to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_taken_off_before_a_new_word_only() {
        let without = |name: &str| without_prefix("Foo", name.to_owned());
        assert_eq!(without("FooBar"), "Bar");
        assert_eq!(without("Foobar"), "Foobar");
        assert_eq!(without("Foo"), "Foo");
        assert_eq!(without("Foo1"), "Foo1");
    }
}
