//! Where the files of a compilation are.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Paths on disk by import name. Files built into the compiler have none.
#[derive(Default)]
pub(crate) struct Paths(HashMap<String, PathBuf>);

impl Paths {
    pub(crate) const fn new(paths: HashMap<String, PathBuf>) -> Self {
        Self(paths)
    }

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
