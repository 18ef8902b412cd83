//! Finds items whose names differ in protobuf and not in Rust, such as the fields `fooBar` and
//! `foo_bar`: what would be generated for them does not compile. The methods that prost adds to a
//! message count too.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

use crate::{
    Error, Problem, Problems,
    accessors::accessors,
    descriptor_walk::{ItemPath, number},
    generate::Shape,
    names,
    paths::Paths,
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
    let mut problems = Vec::new();
    for file in &set.file {
        let mut checker = Checker {
            file,
            paths,
            settings,
            problems: &mut problems,
        };
        let module = parts(file.package()).map(names::snake).collect();
        checker.file(modules.entry(module).or_default());
    }
    Problems::none_or(problems, Error::Name)
}

/// The names that `package` is made of: none if there is no package.
fn parts(package: &str) -> impl Iterator<Item = &str> {
    package.split('.').filter(|part| !part.is_empty())
}

/// Names in use within a module, message, enum or service, and by what.
#[derive(Default)]
struct Scope(HashMap<String, Holder>);

/// What has a name.
struct Holder {
    what: String,
    is_package: bool,
}

impl Scope {
    /// Reserves `rust`, or returns its owner.
    fn declare(&mut self, rust: String, what: &str) -> Result<(), &Holder> {
        match self.0.entry(rust) {
            Entry::Occupied(taken) => Err(taken.into_mut()),
            Entry::Vacant(free) => {
                free.insert(Holder {
                    what: what.to_owned(),
                    is_package: false,
                });
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
        let holder = Holder {
            what: format!("package `{package}`"),
            is_package: true,
        };
        scope.0.insert(rust.clone(), holder);
        module.push(rust);
    }
}

/// What can be done about a clash.
const RENAME: &str = "rename one";

/// What can be done about a message that is called like a package.
const PART: &str = "rename one; or compile the files of one of them in a run of its own and name \
                    its module by `extern_path` in the other; or go without `include_file` and \
                    put the packages into modules of your own";

/// Checks one file.
struct Checker<'a> {
    file: &'a FileDescriptorProto,
    paths: &'a Paths,
    settings: &'a Settings<'a>,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, path: &ItemPath, text: String) {
        let location = path.location(self.file, self.paths);
        self.problems.push(Problem::new(location, text));
    }

    /// Reserves a name, or notes its owner. Returns whether the name was free.
    fn declare(&mut self, scope: &mut Scope, rust: &str, what: &str, path: &ItemPath) -> bool {
        self.declare_or(scope, rust, what, path, RENAME)
    }

    fn declare_or(
        &mut self,
        scope: &mut Scope,
        rust: &str,
        what: &str,
        path: &ItemPath,
        remedy: &str,
    ) -> bool {
        let Err(holder) = scope.declare(rust.to_owned(), what) else {
            return true;
        };
        let remedy = if holder.is_package { PART } else { remedy };
        let holder = &holder.what;
        let text = format!("{holder} and {what} would both be `{rust}` in Rust: {remedy}");
        self.problem(path, text);
        false
    }

    fn file(&mut self, scope: &mut Scope) {
        let (file, root) = (self.file, ItemPath::default());
        for (index, message) in file.message_type.iter().enumerate() {
            let path = root.child(number::FILE_MESSAGE, index);
            self.message(message, file.package(), &path, scope);
        }
        for (index, item) in file.enum_type.iter().enumerate() {
            let path = root.child(number::FILE_ENUM, index);
            self.enumeration(item, file.package(), &path, scope);
        }
        for (index, service) in file.service.iter().enumerate() {
            self.service(service, &root.child(number::FILE_SERVICE, index), scope);
        }
    }

    fn message(
        &mut self,
        message: &DescriptorProto,
        parent: &str,
        path: &ItemPath,
        scope: &mut Scope,
    ) {
        let full = names::full(parent, message.name());
        if (self.settings.is_extern)(&full) {
            return;
        }
        let what = format!("message `{full}`");
        let is_free = self.declare(scope, &names::camel(message.name()), &what, path);
        self.fields(message, path);
        self.accessors(message, path);

        let mut inner = Scope::default();
        for (index, nested) in message.nested_type.iter().enumerate() {
            let is_map = nested.options.as_ref().is_some_and(|o| o.map_entry());
            if !is_map {
                let path = path.child(number::MESSAGE_MESSAGE, index);
                self.message(nested, &full, &path, &mut inner);
            }
        }
        for (index, nested) in message.enum_type.iter().enumerate() {
            let path = path.child(number::MESSAGE_ENUM, index);
            self.enumeration(nested, &full, &path, &mut inner);
        }
        self.oneofs(message, path, &mut inner);
        if is_free && !inner.0.is_empty() {
            let what = format!("the module of what is in message `{full}`");
            self.declare(scope, &names::snake(message.name()), &what, path);
        }
    }

    /// Fields of a struct: those of the message outside of oneofs, and its oneofs.
    fn fields(&mut self, message: &DescriptorProto, path: &ItemPath) {
        let mut fields = Scope::default();
        for (index, field) in message.field.iter().enumerate() {
            if field.oneof_index.is_none() || field.proto3_optional() {
                let what = format!("field `{}`", field.name());
                let path = path.child(number::MESSAGE_FIELD, index);
                self.declare(&mut fields, &names::snake(field.name()), &what, &path);
            }
        }
        for (index, oneof) in oneofs(message) {
            let what = format!("oneof `{oneof}`");
            let path = path.child(number::MESSAGE_ONEOF, index);
            self.declare(&mut fields, &names::snake(oneof), &what, &path);
        }
    }

    /// Methods of a struct. Those of fields with the same name are no news.
    fn accessors(&mut self, message: &DescriptorProto, path: &ItemPath) {
        let mut methods: HashMap<String, (&str, String)> = HashMap::new();
        for (index, field) in message.field.iter().enumerate() {
            let rust = names::snake(field.name());
            for method in accessors(message, field, self.file.syntax()) {
                match methods.entry(method) {
                    Entry::Occupied(taken) if taken.get().1 != rust => {
                        let text = format!(
                            "field `{}` and field `{}` would both have the method `{}` in Rust: \
                             {RENAME}",
                            taken.get().0,
                            field.name(),
                            taken.key(),
                        );
                        self.problem(&path.child(number::MESSAGE_FIELD, index), text);
                        break;
                    }
                    Entry::Occupied(_) => {}
                    Entry::Vacant(free) => {
                        free.insert((field.name(), rust.clone()));
                    }
                }
            }
        }
    }

    /// Enums of oneofs, and their variants.
    fn oneofs(&mut self, message: &DescriptorProto, path: &ItemPath, inner: &mut Scope) {
        for (oneof_index, oneof) in oneofs(message) {
            let what = format!("oneof `{oneof}`");
            let mut rust = names::camel(oneof);
            if inner.0.contains_key(&rust) {
                // prost-build's way out of a clash with a nested type.
                rust.push_str("OneOf");
            }
            let oneof_path = path.child(number::MESSAGE_ONEOF, oneof_index);
            self.declare(inner, &rust, &what, &oneof_path);

            let mut variants = Scope::default();
            for (index, field) in message.field.iter().enumerate() {
                if field.oneof_index.map(usize::try_from) == Some(Ok(oneof_index)) {
                    let what = format!("field `{}`", field.name());
                    let path = path.child(number::MESSAGE_FIELD, index);
                    self.declare(&mut variants, &names::camel(field.name()), &what, &path);
                }
            }
        }
    }

    fn enumeration(
        &mut self,
        item: &EnumDescriptorProto,
        parent: &str,
        path: &ItemPath,
        scope: &mut Scope,
    ) {
        let full = names::full(parent, item.name());
        if (self.settings.is_extern)(&full) {
            return;
        }
        let rust = names::camel(item.name());
        self.declare(scope, &rust, &format!("enum `{full}`"), path);

        let mut variants = Scope::default();
        let mut numbers = HashSet::new();
        for (index, value) in item.value.iter().enumerate() {
            // Of several names for a number only the first gets a variant.
            if !numbers.insert(value.number()) {
                continue;
            }
            let mut name = names::camel(value.name());
            if self.settings.strip_enum_prefix {
                name = without_prefix(&rust, name);
            }
            let path = path.child(number::ENUM_VALUE, index);
            let what = format!("value `{}`", value.name());
            let remedy = "rename one, or set the option `retain_enum_prefix` of the builder";
            self.declare_or(&mut variants, &name, &what, &path, remedy);
        }
    }

    fn service(&mut self, service: &ServiceDescriptorProto, path: &ItemPath, scope: &mut Scope) {
        let full = names::full(self.file.package(), service.name());
        let base = names::camel(service.name());
        let shape = self.settings.shape;
        let sides = [
            ("client", shape.build_client),
            ("server", shape.build_server),
        ];
        for (side, _) in sides.into_iter().filter(|&(_, is_built)| is_built) {
            let rust = names::module(&base, side).to_string();
            let what = format!("the {side} of service `{full}`");
            if !self.declare(scope, &rust, &what, path) {
                break;
            }
        }
        // Those of the server's trait.
        let has_stream_types = shape.build_server && !shape.default_stubs;
        let (mut methods, mut stream_types) = (Scope::default(), Scope::default());
        for (index, method) in service.method.iter().enumerate() {
            let rust = names::method(&names::snake(method.name())).to_string();
            let what = format!("method `{}`", method.name());
            let path = path.child(number::SERVICE_METHOD, index);
            let is_free = self.declare(&mut methods, &rust, &what, &path);
            if is_free && has_stream_types && method.server_streaming() {
                let rust = names::stream_type(method.name()).to_string();
                let what = format!("the stream of method `{}`", method.name());
                self.declare(&mut stream_types, &rust, &what, &path);
            }
        }
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
