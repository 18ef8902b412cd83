//! Names of types, as protoc looks them up.
//!
//! A file sees itself, what it imports, and what those import publicly. The library that checks the
//! descriptors also sees the packages of all other files. So it gets full names only.

use std::collections::{BTreeSet, HashMap};

use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, UninterpretedOption,
    field_descriptor_proto::Type,
};

use super::{adapt::MINUS_INFINITY, options};
use crate::{descriptor_walk, names::full};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Package,
    /// A message or an enum.
    Type,
    Service,
    /// A field or an extension, with its type as far as it is known, and the name of that.
    Field(Option<Type>, String),
    Other,
}

/// The names in all files so far.
#[derive(Default)]
pub(super) struct Names {
    /// Every name, with the files that define it: a package can have several.
    names: HashMap<String, Vec<(usize, Kind)>>,
    files: HashMap<String, usize>,
    /// For each file, what its importers see: itself, and its public imports.
    public: Vec<BTreeSet<usize>>,
}

impl Names {
    /// Gives every type that `file` names its full name. All that the file imports must have been
    /// here before. A name that is not found stays as it is: whoever checks the file will tell.
    pub(super) fn resolve(&mut self, file: &mut FileDescriptorProto) {
        let index = self.public.len();
        let visible = self.add(file, index);
        let scope = Scope {
            names: self,
            visible,
        };
        let package = file.package().to_owned();
        for message in &mut file.message_type {
            scope.message(message, &package);
        }
        for field in &mut file.extension {
            scope.field(field, &package);
        }
        for service in &mut file.service {
            let name = full(&package, service.name());
            for method in &mut service.method {
                let name = full(&name, method.name());
                scope.replace(&mut method.input_type, &name, |_| true);
                scope.replace(&mut method.output_type, &name, |_| true);
            }
        }
        // Options need to know the types of fields.
        let visible = scope.visible;
        self.add_fields(file, index);
        let scope = Scope {
            names: self,
            visible,
        };
        options::each(file, &mut |name, option| scope.option(option, name));
    }

    /// Takes the names in `file` up, and gives the files that it sees.
    fn add(&mut self, file: &FileDescriptorProto, index: usize) -> BTreeSet<usize> {
        self.files.insert(file.name().to_owned(), index);
        let mut visible = BTreeSet::from([index]);
        let mut public = BTreeSet::from([index]);
        for (number, import) in (0..).zip(&file.dependency) {
            let Some(seen) = self.files.get(import).and_then(|&at| self.public.get(at)) else {
                continue;
            };
            visible.extend(seen);
            if file.public_dependency.contains(&number) {
                public.extend(seen);
            }
        }
        self.public.push(public);

        let mut package = String::new();
        for part in file.package().split('.').filter(|part| !part.is_empty()) {
            package = full(&package, part);
            self.insert(package.clone(), index, Kind::Package);
        }
        descriptor_walk::walk_full(file, |name, item| {
            let kind = match item {
                descriptor_walk::Item::Message | descriptor_walk::Item::Enum => Kind::Type,
                descriptor_walk::Item::Service => Kind::Service,
                descriptor_walk::Item::Other => Kind::Other,
            };
            self.insert(name, index, kind);
        });
        visible
    }

    /// Takes up the types of fields and extensions, now that their names are full.
    fn add_fields(&mut self, file: &FileDescriptorProto, index: usize) {
        for field in &file.extension {
            self.add_field(field, file.package(), index);
        }
        for message in &file.message_type {
            self.add_fields_of(message, file.package(), index);
        }
    }

    fn add_fields_of(&mut self, message: &DescriptorProto, parent: &str, index: usize) {
        let name = full(parent, message.name());
        for field in message.field.iter().chain(&message.extension) {
            self.add_field(field, &name, index);
        }
        for nested in &message.nested_type {
            self.add_fields_of(nested, &name, index);
        }
    }

    fn add_field(&mut self, field: &FieldDescriptorProto, parent: &str, index: usize) {
        let kind = field.r#type.and_then(|kind| Type::try_from(kind).ok());
        let name = field.type_name().trim_start_matches('.').to_owned();
        let kind = Kind::Field(kind, name);
        self.insert(full(parent, field.name()), index, kind);
    }

    fn insert(&mut self, name: String, index: usize, kind: Kind) {
        let found = self.names.entry(name).or_default();
        match found.last_mut() {
            Some((file, last)) if *file == index && *last != Kind::Type => *last = kind,
            Some((file, _)) if *file == index => {}
            _ => found.push((index, kind)),
        }
    }
}

/// What a file sees.
struct Scope<'a> {
    names: &'a Names,
    visible: BTreeSet<usize>,
}

impl Scope<'_> {
    fn find(&self, name: &str) -> Option<&Kind> {
        let mut found = self.names.names.get(name)?.iter();
        let (_, kind) = found.find(|(file, _)| self.visible.contains(file))?;
        Some(kind)
    }

    /// The full name of `name`, as it is used in the item `scope`: the innermost one counts. The
    /// first part of a name with dots decides, whether the rest is there or not.
    fn look_up(&self, name: &str, scope: &str, fits: impl Fn(&Kind) -> bool) -> Option<String> {
        if let Some(name) = name.strip_prefix('.') {
            return self.find(name).map(|_| name.to_owned());
        }
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        let mut scope = scope;
        loop {
            scope = scope.rsplit_once('.').map_or("", |(outer, _)| outer);
            let candidate = full(scope, first);
            match self.find(&candidate) {
                Some(kind) if rest.is_empty() && fits(kind) => return Some(candidate),
                Some(Kind::Package | Kind::Type | Kind::Service) if !rest.is_empty() => {
                    let candidate = full(&candidate, rest);
                    return self.find(&candidate).map(|_| candidate);
                }
                _ if scope.is_empty() => return None,
                _ => {}
            }
        }
    }

    fn replace(&self, name: &mut Option<String>, scope: &str, fits: impl Fn(&Kind) -> bool) {
        if let Some(name) = name
            && let Some(found) = self.look_up(name, scope, fits)
        {
            *name = format!(".{found}");
        }
    }

    fn message(&self, message: &mut DescriptorProto, parent: &str) {
        let name = full(parent, message.name());
        for field in message.field.iter_mut().chain(&mut message.extension) {
            self.field(field, &name);
        }
        for nested in &mut message.nested_type {
            self.message(nested, &name);
        }
    }

    fn field(&self, field: &mut FieldDescriptorProto, parent: &str) {
        let name = full(parent, field.name());
        self.replace(&mut field.type_name, &name, |kind| *kind == Kind::Type);
        self.replace(&mut field.extendee, &name, |_| true);
    }

    /// Gives the extensions in the name of an option their full names. Infinities, which the parser
    /// leaves as names, become numbers.
    fn option(&self, option: &mut UninterpretedOption, item: &str) {
        let item = full(item, "option");
        for part in &mut option.name {
            if part.is_extension {
                let is_extension = |kind: &Kind| matches!(kind, Kind::Field(..));
                if let Some(found) = self.look_up(&part.name_part, &item, is_extension) {
                    part.name_part = format!(".{found}");
                }
            }
        }
        let value = match option.identifier_value.as_deref() {
            Some(MINUS_INFINITY) => f64::NEG_INFINITY,
            Some("inf") if self.is_float(option) => f64::INFINITY,
            Some("nan") if self.is_float(option) => f64::NAN,
            _ => return,
        };
        option.identifier_value = None;
        option.double_value = Some(value);
    }

    /// Whether an option, given by its full names, has a type with infinities.
    fn is_float(&self, option: &UninterpretedOption) -> bool {
        let mut message = String::new();
        let mut is_float = false;
        for part in &option.name {
            let name = match part.name_part.strip_prefix('.') {
                Some(extension) => extension.to_owned(),
                None => full(&message, &part.name_part),
            };
            let Some(Kind::Field(kind, type_name)) = self.find(&name) else {
                return false;
            };
            is_float = matches!(kind, Some(Type::Float | Type::Double));
            message.clone_from(type_name);
        }
        is_float
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses files in order and gives the types of the fields of the last one.
    fn types(sources: &[(&str, &str)]) -> Vec<String> {
        let mut names = Names::default();
        let mut types = Vec::new();
        for (name, source) in sources {
            let mut file = protox_parse::parse(name, source).unwrap();
            names.resolve(&mut file);
            let fields = file.message_type.iter().flat_map(|message| &message.field);
            types = fields.map(|field| field.type_name().to_owned()).collect();
        }
        types
    }

    const NEAR: (&str, &str) = ("near", "package a.common.near; message Near {}");
    const FAR: (&str, &str) = ("far", "package a.b.common.far; message Far {}");
    const LEAF: &str = "package a.b.leaf; import 'near'; \
                        message Leaf { optional common.near.Near n = 1; }";

    #[test]
    fn packages_of_files_that_are_not_imported_are_not_seen() {
        let expected = [".a.common.near.Near"];
        assert_eq!(types(&[NEAR, FAR, ("leaf", LEAF)]), expected);
        assert_eq!(types(&[FAR, NEAR, ("leaf", LEAF)]), expected);
        let near_imports_far = (
            "near",
            "package a.common.near; import 'far'; message Near {}",
        );
        assert_eq!(types(&[FAR, near_imports_far, ("leaf", LEAF)]), expected);
    }

    #[test]
    fn packages_of_files_that_are_imported_publicly_are_seen() {
        let near = (
            "near",
            "package a.common.near; import public 'far'; message Near {}",
        );
        assert_eq!(types(&[FAR, near, ("leaf", LEAF)]), ["common.near.Near"]);
    }

    #[test]
    fn the_innermost_type_counts_and_fields_are_no_types() {
        let source = "package p; message A {} message M { message A {} optional A a = 1; \
                      optional B B = 2; optional .p.A c = 3; optional None d = 4; \
                      optional A.None e = 5; } enum B { Z = 0; }";
        assert_eq!(
            types(&[("x", source)]),
            [".p.M.A", ".p.B", ".p.A", "None", "A.None"]
        );
    }
}
