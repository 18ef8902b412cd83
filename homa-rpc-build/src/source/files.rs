//! Finds and parses files and all that they import.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Component, Path, PathBuf},
};

use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use protox_parse::ParseError;

use super::{
    adapt::{Adapted, MAX_DEPTH},
    fix, position,
};
use crate::{
    Error, Problem, Problems,
    descriptor_walk::{ItemPath, number},
};

/// What is said of a file with an edition.
pub(crate) const EDITION: &str = "edition files are not supported yet: expected `syntax = \
                                  \"proto3\"` or `syntax = \"proto2\"`, found `edition`";

/// How long a chain of imports may be: each needs stack.
const MAX_CHAIN: usize = 200;

/// A file that was parsed.
pub(super) struct File {
    pub(super) descriptor: FileDescriptorProto,
    /// Where it is on disk, unless it is built in.
    pub(super) path: Option<PathBuf>,
    /// Whether it was asked for, and not only imported.
    pub(super) is_given: bool,
}

impl File {
    /// The name by which others import it.
    pub(super) fn name(&self) -> &str {
        self.descriptor.name()
    }

    fn shown(&self) -> String {
        let name = Path::new(self.name());
        let path = self.path.as_deref().unwrap_or(name);
        path.display().to_string()
    }
}

/// Loads files, each once and after all that it imports.
pub(super) struct Loader<'a> {
    includes: &'a [PathBuf],
    files: Vec<File>,
    /// Where in `files` a file is, by its name. Files that cannot be used have none.
    indexes: HashMap<String, Option<usize>>,
    problems: Vec<Problem>,
    editions: Vec<Problem>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(includes: &'a [PathBuf]) -> Self {
        Self {
            includes,
            files: Vec::new(),
            indexes: HashMap::new(),
            problems: Vec::new(),
            editions: Vec::new(),
        }
    }

    /// All files, imports first.
    pub(super) fn finish(self) -> Result<Vec<File>, Error> {
        Problems::none_or(self.problems, Error::Invalid)?;
        Problems::none_or(self.editions, Error::Edition)?;
        Ok(self.files)
    }

    /// Loads a file that was asked for: by its path, or by its name under one of the includes.
    pub(super) fn add(&mut self, proto: &Path) {
        let inside = self
            .includes
            .iter()
            .find_map(|include| name_under(proto, include));
        let Some(name) = inside.clone().or_else(|| name_of(proto.components())) else {
            return self.not_included(proto);
        };
        let Some(path) = self.find(&name) else {
            if is_built_in(&name) {
                self.load(&name, None, &mut Vec::new());
                return self.give(&name);
            }
            return self.not_included(proto);
        };
        if inside.is_some() && normal(&path) != normal(proto) {
            let text = format!(
                "this file is hidden by {}, which comes first in the include paths: give that \
                 one, or change the order of the include paths",
                path.display()
            );
            return self.problem(proto.display().to_string(), text);
        }
        if !self.indexes.contains_key(&name) {
            self.load(&name, Some(path), &mut Vec::new());
        }
        self.give(&name);
    }

    fn give(&mut self, name: &str) {
        let index = self.indexes.get(name).copied().flatten();
        if let Some(file) = index.and_then(|index| self.files.get_mut(index)) {
            file.is_given = true;
        }
    }

    fn problem(&mut self, location: impl Into<String>, text: impl Into<String>) {
        self.problems.push(Problem::new(location, text));
    }

    fn not_included(&mut self, proto: &Path) {
        let shown = proto.display().to_string();
        let includes: Vec<_> = self
            .includes
            .iter()
            .map(|include| include.display().to_string())
            .collect();
        let includes = includes.join(", ");
        let text = if proto.exists() {
            format!("the file is not in any include path: expected one of {includes}")
        } else {
            format!("file not found, include paths: {includes}")
        };
        self.problem(shown, text);
    }

    /// The file with this name that comes first in the include paths.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let paths = self.includes.iter().map(|include| include.join(name));
        paths.into_iter().find(|path| path.exists())
    }

    /// Parses a file and loads its imports. `importing` is the chain of files that led here.
    fn load(&mut self, name: &str, path: Option<PathBuf>, importing: &mut Vec<String>) {
        self.indexes.insert(name.to_owned(), None);
        let Some(descriptor) = self.parse(name, path.as_deref()) else {
            return;
        };
        let file = File {
            descriptor,
            path,
            is_given: false,
        };
        importing.push(name.to_owned());
        let is_complete = self.load_imports(&file, importing);
        importing.pop();
        if is_complete {
            self.indexes.insert(name.to_owned(), Some(self.files.len()));
            self.files.push(file);
        }
    }

    /// Whether all that `file` imports can be used.
    fn load_imports(&mut self, file: &File, importing: &mut Vec<String>) -> bool {
        let mut seen = HashSet::new();
        let mut is_complete = true;
        if importing.len() > MAX_CHAIN {
            let text = format!("imports of imports: expected at most {MAX_CHAIN} levels");
            self.problem(file.shown(), text);
            return false;
        }
        for (index, import) in file.descriptor.dependency.iter().enumerate() {
            let import_path = ItemPath::default().child(number::FILE_IMPORT, index);
            let location = import_path.location_in(&file.descriptor, &file.shown());
            if !seen.insert(import) {
                self.problem(location, format!("import '{import}' was listed twice"));
            } else if importing.contains(import) {
                let chain = importing.join(" -> ");
                let text = format!("files import one another: {chain} -> {import}");
                self.problem(location, text);
                is_complete = false;
            } else if !self.indexes.contains_key(import) {
                // The well-known files are those that are built in, even if there are copies.
                let path = self.find(import).filter(|_| !is_built_in(import));
                if path.is_none() && !is_built_in(import) {
                    self.problem(location, format!("import '{import}' not found"));
                    is_complete = false;
                    continue;
                }
                self.load(import, path, importing);
            }
            is_complete &= matches!(self.indexes.get(import), Some(Some(_)));
        }
        is_complete
    }

    fn parse(&mut self, name: &str, path: Option<&Path>) -> Option<FileDescriptorProto> {
        let Some(path) = path else {
            let file = DescriptorPool::global().get_file_by_name(name)?;
            return Some(file.file_descriptor_proto().clone());
        };
        let shown = path.display().to_string();
        let bytes = fs::read(path)
            .map_err(|error| self.problem(&shown, format!("cannot read the file: {error}")))
            .ok()?;
        let source = String::from_utf8(bytes)
            .map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                self.problem(&shown, format!("the file is not UTF-8 text: see byte {at}"));
            })
            .ok()?;
        let source = source.strip_prefix('\u{feff}').unwrap_or(&source);
        if let Some((line, column)) = position::of_edition(source) {
            let location = format!("{shown}:{line}:{column}");
            self.editions.push(Problem::new(location, EDITION));
            return None;
        }
        let adapted = Adapted::new(source);
        if let Some(at) = adapted.too_deep {
            let text = format!("brackets within brackets: expected at most {MAX_DEPTH} levels");
            self.problem(place(&adapted, at, &shown), text);
            return None;
        }
        match protox_parse::parse(name, &adapted.text) {
            Ok(mut file) => {
                adapted.correct_places(&mut file);
                fix::rename_synthetic_oneofs(&mut file);
                Some(file)
            }
            Err(error) => {
                self.problems.push(syntax_error(&error, &adapted, &shown));
                None
            }
        }
    }
}

/// What the parser says, with its place in the file.
fn syntax_error(error: &ParseError, adapted: &Adapted, shown: &str) -> Problem {
    let text = error.to_string();
    let is_end = text.contains("reached end of file");
    let Some(span) = error.span().or_else(|| {
        let end = adapted.text.len();
        is_end.then_some(end..end)
    }) else {
        return Problem::new(shown, text);
    };
    let location = place(adapted, span.start, shown);
    let found = adapted.text.get(span).unwrap_or_default();
    let text = if text == "invalid group name" && found.starts_with(['"', '\'']) {
        format!(
            "invalid import {found}: expected a path from one of the include paths, with `/`, \
             and without `.`, `..` and empty parts"
        )
    } else {
        text
    };
    Problem::new(location, text)
}

/// What `at` in the text is in the file `shown`.
fn place(adapted: &Adapted, at: usize, shown: &str) -> String {
    let before = adapted.text.get(..at).unwrap_or_default();
    let (line, column) = position::after(before);
    let last = before.rsplit('\n').next().unwrap_or_default();
    let column = column - (last.len() - adapted.column(line - 1, last.len()));
    format!("{shown}:{line}:{column}")
}

/// The files of `google/protobuf` that are built in.
fn is_built_in(name: &str) -> bool {
    name.starts_with("google/protobuf/")
        && DescriptorPool::global().get_file_by_name(name).is_some()
}

/// A path without what changes nothing.
fn normal(path: &Path) -> Vec<Component<'_>> {
    let parts = path.components();
    parts.filter(|part| *part != Component::CurDir).collect()
}

/// The name of `path` for imports, if it is in the folder `include`.
fn name_under(path: &Path, include: &Path) -> Option<String> {
    let (path, include) = (normal(path), normal(include));
    let inside = path.strip_prefix(include.as_slice())?;
    name_of(inside.iter().copied())
}

fn name_of<'a>(parts: impl Iterator<Item = Component<'a>>) -> Option<String> {
    let parts: Option<Vec<_>> = parts
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    parts
        .filter(|parts| !parts.is_empty())
        .map(|parts| parts.join("/"))
}
