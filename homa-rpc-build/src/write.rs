//! Writes files, none of them over another.

use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Component, Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::Error;

/// What this process has written: where, what it was for, and a hash of the content.
static WRITTEN: Mutex<Option<HashMap<PathBuf, (String, u64)>>> = Mutex::new(None);

/// Files to be written.
#[derive(Default)]
pub(crate) struct Outputs(Vec<Output>);

struct Output {
    path: PathBuf,
    /// What it is for, as a user would say it.
    what: String,
    content: Vec<u8>,
}

impl Outputs {
    pub(crate) fn add(
        &mut self,
        path: PathBuf,
        what: impl Into<String>,
        content: impl Into<Vec<u8>>,
    ) {
        self.0.push(Output {
            path,
            what: what.into(),
            content: content.into(),
        });
    }

    /// Writes all files, or none if one would take the place of another.
    pub(crate) fn write(self) -> Result<(), Error> {
        let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        let written = written.get_or_insert_default();
        let mut places: HashMap<PathBuf, &str> = HashMap::new();
        for output in &self.0 {
            let place = place(&output.path);
            if let Some((what, hash)) = written.get(&place) {
                let is_there = fs::read(&place).is_ok_and(|content| hash_of(&content) == *hash);
                if is_there && *hash != hash_of(&output.content) {
                    let remedy = "give all files to one run, give each run a directory of its own \
                                  by `out_dir`, or name what the other run builds by `extern_path`";
                    return Err(overwritten(output, what, remedy));
                }
            }
            if let Some(first) = places.insert(place, &output.what) {
                let remedy = "choose another name for one of them";
                return Err(overwritten(output, first, remedy));
            }
        }
        for output in self.0 {
            let hash = hash_of(&output.content);
            let place = place(&output.path);
            write(output.path, &output.content)?;
            written.insert(place, (output.what, hash));
        }
        Ok(())
    }
}

fn overwritten(output: &Output, first: &str, remedy: &'static str) -> Error {
    Error::Overwritten {
        path: output.path.clone(),
        first: first.to_owned(),
        second: output.what.clone(),
        remedy,
    }
}

/// Writes a file, unless that is what is in it: Cargo looks at the time of the last change.
fn write(path: PathBuf, content: &[u8]) -> Result<(), Error> {
    if fs::read(&path).is_ok_and(|found| found == content) {
        return Ok(());
    }
    fs::write(&path, content).map_err(|source| Error::Write { path, source })
}

/// One path for each file, however it is written.
fn place(path: &Path) -> PathBuf {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return path.to_owned();
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| {
        let parts = folder.components();
        parts.filter(|part| *part != Component::CurDir).collect()
    });
    folder.join(name)
}

fn hash_of(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}
