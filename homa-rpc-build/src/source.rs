//! From `.proto` files to descriptors, and errors with the place they come from.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use prost_types::FileDescriptorSet;
use protox::{prost::Message as _, prost_reflect::DescriptorPool};

use crate::{Error, compile::Input};

/// Paths on disk by import name. Files built into the compiler have none.
#[derive(Default)]
pub(crate) struct Paths(HashMap<String, PathBuf>);

impl Paths {
    /// The file as a user knows it: its path, or its import name if it has none.
    pub(crate) fn display<'a>(&'a self, name: &'a str) -> std::path::Display<'a> {
        self.0
            .get(name)
            .map_or(Path::new(name), PathBuf::as_path)
            .display()
    }

    /// Every path, in a fixed order.
    pub(crate) fn sorted(&self) -> Vec<&Path> {
        let mut paths: Vec<_> = self.0.values().map(PathBuf::as_path).collect();
        paths.sort_unstable();
        paths
    }
}

/// Reads and checks `protos` and all that they import.
pub(crate) fn compile(protos: &[PathBuf], includes: &[PathBuf]) -> Result<Input, Error> {
    let located = |error| locate(&error, protos, includes);
    let mut compiler = protox::Compiler::new(includes).map_err(located)?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(protos)
        .map_err(located)?;
    let paths = compiler
        .files()
        .filter_map(|file| Some((file.name().to_owned(), file.path()?.to_owned())))
        .collect();
    let imports = compiler
        .files()
        .filter(|file| file.is_import())
        .map(|file| file.name().to_owned())
        .collect();
    Ok(Input {
        imports,
        set: compiler.file_descriptor_set(),
        encoded: compiler.encode_file_descriptor_set(),
        paths: Paths(paths),
    })
}

/// The encoded form of descriptors that did not come from files.
pub(crate) fn encode(set: &FileDescriptorSet) -> Vec<u8> {
    set.encode_to_vec()
}

/// Checks descriptors that did not come from files as the compiler checks files: names, numbers,
/// that everything named is there.
pub(crate) fn validate(set: &FileDescriptorSet) -> Result<(), Error> {
    DescriptorPool::from_file_descriptor_set(set.clone())
        .map(drop)
        .map_err(|error| {
            let file = error.file().unwrap_or("descriptor set");
            Error::Invalid(format!("{file}: {error}"))
        })
}

/// Gives an error of the compiler the path, line and column it belongs to.
///
/// The compiler shows the position only in its `Debug` form, as `name:line:column: text`, where
/// the name is relative to an include path; and none at all for an unexpected end of file.
fn locate(error: &protox::Error, protos: &[PathBuf], includes: &[PathBuf]) -> Error {
    let Some(name) = error.file() else {
        return Error::Invalid(unlocated(error, protos, includes));
    };
    let path = includes
        .iter()
        .map(|include| include.join(name))
        .find(|path| path.exists());
    let source = path
        .as_ref()
        .and_then(|path| fs::read_to_string(path).ok())
        .unwrap_or_default();
    let shown = path.as_deref().unwrap_or(Path::new(name)).display();
    if let Some((line, column)) = edition_position(&source) {
        return Error::Edition {
            location: format!("{shown}:{line}:{column}"),
        };
    }

    let debug = format!("{error:?}");
    let text = match debug
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(':'))
    {
        // "name::3:8: text" is how a missing import is shown.
        Some(rest) => format!("{shown}:{}", rest.trim_start_matches(':')),
        None if debug.contains("reached end of file") => {
            let (line, column) = end_position(&source);
            format!("{shown}:{line}:{column}: {error}")
        }
        None => format!("{shown}: {debug}"),
    };
    Error::Invalid(text)
}

/// The text of an error without a file: a path that was asked for and is not there.
fn unlocated(error: &protox::Error, protos: &[PathBuf], includes: &[PathBuf]) -> String {
    let missing = protos.iter().find(|proto| {
        !proto.exists() && !includes.iter().any(|include| include.join(proto).exists())
    });
    missing.map_or_else(
        || format!("{error:?}"),
        |proto| {
            let searched: Vec<_> = includes
                .iter()
                .map(|include| include.display().to_string())
                .collect();
            format!(
                "{}: file not found, include paths: {}",
                proto.display(),
                searched.join(", ")
            )
        },
    )
}

/// Line and column, from 1, of `edition` if that is the first word of the file.
fn edition_position(source: &str) -> Option<(usize, usize)> {
    let mut rest = source.trim_start_matches('\u{feff}').trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n')?.1.trim_start();
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1.trim_start();
        } else {
            break;
        }
    }
    let after = rest.strip_prefix("edition")?;
    after.trim_start().strip_prefix('=')?;
    let before = source.strip_suffix(rest)?;
    Some(end_position(before))
}

/// Line and column, both from 1, of what follows `text`.
fn end_position(text: &str) -> (usize, usize) {
    let line = text.matches('\n').count() + 1;
    let last = text.rsplit('\n').next().unwrap_or_default();
    (line, last.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edition_is_found_behind_comments() {
        let source = "// a\n/* edition = \"2023\"; */\n  edition = \"2023\";\n";
        assert_eq!(edition_position(source), Some((3, 3)));
    }

    #[test]
    fn edition_elsewhere_is_not_taken_for_the_declaration() {
        assert_eq!(
            edition_position("syntax = \"proto3\"; // edition = 1"),
            None
        );
        assert_eq!(edition_position("editions = \"x\";"), None);
        assert_eq!(edition_position("// edition = \"2023\";"), None);
        assert_eq!(edition_position(""), None);
    }

    #[test]
    fn position_after_text_counts_lines_and_characters_from_one() {
        assert_eq!(end_position(""), (1, 1));
        assert_eq!(end_position("ab\nü"), (2, 2));
        assert_eq!(end_position("ab\n"), (2, 1));
    }
}
