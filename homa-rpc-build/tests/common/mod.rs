//! A folder with `.proto` files, and what compiling them gives.

#![allow(dead_code, reason = "each of the tests uses some of it")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use homa_rpc_build::{Builder, Error, configure};

pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    /// An empty folder for the case `name` of `test`.
    pub(crate) fn new(test: &str, name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("out")).unwrap();
        Self { path }
    }

    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Compiles some of the files with the options that `set` sets.
    pub(crate) fn compile_with(
        &self,
        files: &[&str],
        set: impl FnOnce(Builder) -> Builder,
    ) -> Result<(), Error> {
        let files: Vec<_> = files.iter().map(|file| self.path.join(file)).collect();
        let builder = configure()
            .emit_rerun_if_changed(false)
            .out_dir(self.path.join("out"));
        set(builder).compile_protos(&files, &[&self.path])
    }

    pub(crate) fn compile(&self, files: &[&str]) -> Result<(), Error> {
        self.compile_with(files, |builder| builder)
    }

    /// The text of the error, without the folder.
    #[track_caller]
    pub(crate) fn error(&self, files: &[&str]) -> String {
        let error = self.compile(files).unwrap_err();
        self.without_folder(&error)
    }

    pub(crate) fn without_folder(&self, error: &Error) -> String {
        let folder = format!("{}/", self.path.display());
        error.to_string().replace(&folder, "")
    }

    /// The code of a package.
    #[track_caller]
    pub(crate) fn code(&self, package: &str) -> String {
        fs::read_to_string(self.path.join("out").join(format!("{package}.rs"))).unwrap()
    }

    /// The names of the files that were written.
    pub(crate) fn written(&self) -> Vec<String> {
        let files = fs::read_dir(self.path.join("out")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}
