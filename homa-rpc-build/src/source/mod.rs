//! From `.proto` files to descriptors, and errors with the place they come from.

mod adapt;
mod files;
mod fix;
mod options;
mod position;
mod scope;

use std::{collections::HashSet, path::PathBuf};

use prost_reflect::{DescriptorError, DescriptorPool};
use prost_types::FileDescriptorSet;

use crate::{Error, Problem, Problems, paths::Paths};
pub(crate) use files::EDITION;
use files::{File, Loader};
use scope::Names;

/// Descriptors, and what is known of where they came from.
pub(crate) struct Input {
    /// All files, imports included, each before those that import it.
    pub(crate) set: FileDescriptorSet,
    /// The same, encoded; unlike `set` it keeps custom options.
    pub(crate) encoded: Vec<u8>,
    /// All files, if nobody has checked them yet.
    pub(crate) unchecked: Option<FileDescriptorSet>,
    /// Where the files are on disk.
    pub(crate) paths: Paths,
    /// Names of files that were only imported.
    pub(crate) imports: HashSet<String>,
}

/// Reads and checks `protos` and all that they import.
pub(crate) fn compile(protos: &[PathBuf], includes: &[PathBuf]) -> Result<Input, Error> {
    let mut loader = Loader::new(includes);
    for proto in protos {
        loader.add(proto);
    }
    let files = loader.finish()?;
    let paths = files
        .iter()
        .filter_map(|file| Some((file.name().to_owned(), file.path.clone()?)))
        .collect();
    let imports = files
        .iter()
        .filter(|file| !file.is_given)
        .map(|file| file.name().to_owned())
        .collect();
    let pool = check(files)?;
    Ok(Input {
        imports,
        unchecked: None,
        set: FileDescriptorSet {
            file: pool
                .files()
                .map(|file| file.file_descriptor_proto().clone())
                .collect(),
        },
        encoded: pool.encode_to_vec(),
        paths: Paths::new(paths),
    })
}

/// Checks files in order: each comes after all that it imports. Importers of a wrong file are skipped.
fn check(files: Vec<File>) -> Result<DescriptorPool, Error> {
    let mut pool = DescriptorPool::new();
    let mut names = Names::default();
    let mut wrong = HashSet::new();
    let mut problems = Vec::new();
    for mut file in files {
        let mut imports = file.descriptor.dependency.iter();
        if imports.any(|import| wrong.contains(import)) {
            wrong.insert(file.name().to_owned());
            continue;
        }
        names.resolve(&mut file.descriptor);
        let (name, path) = (file.name().to_owned(), file.path.clone());
        if let Err(error) = pool.add_file_descriptor_proto(file.descriptor) {
            let shown = path.unwrap_or_else(|| PathBuf::from(&name));
            problems.push(problem(&error, &shown.display().to_string()));
            wrong.insert(name);
        }
    }
    Problems::none_or(problems, Error::Invalid)?;
    Ok(pool)
}

/// What is wrong with the file `shown`, with its place.
fn problem(error: &DescriptorError, shown: &str) -> Problem {
    let location = match (error.line(), error.column()) {
        (Some(line), Some(column)) => format!("{shown}:{}:{}", line + 1, column + 1),
        _ => shown.to_owned(),
    };
    Problem::new(location, error.to_string())
}

/// The encoded form of descriptors that did not come from files.
pub(crate) fn encode(set: &FileDescriptorSet) -> Vec<u8> {
    use prost_reflect::prost::Message as _;
    set.encode_to_vec()
}

/// Checks descriptors that did not come from files as the compiler checks files: names, numbers,
/// that everything named is there.
pub(crate) fn validate(set: &FileDescriptorSet) -> Result<(), Error> {
    DescriptorPool::from_file_descriptor_set(set.clone())
        .map(drop)
        .map_err(|error| {
            let file = error.file().unwrap_or("descriptor set");
            Error::Invalid(Problems::one(file, error.to_string()))
        })
}
