//! From descriptors to files of generated code, with all that is checked before.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use prost_build::Module;
use prost_types::FileDescriptorSet;

use crate::{
    Error, attributes, check, clash, comments,
    generate::{Generator, Options},
    output::{self, Package},
    source::{self, Paths},
};

/// What to generate, and where to put it.
pub(crate) struct Job {
    pub(crate) prost: prost_build::Config,
    pub(crate) options: Options,
    pub(crate) extern_paths: Vec<String>,
    pub(crate) compile_well_known_types: bool,
    pub(crate) strip_enum_prefix: bool,
    pub(crate) default_package_filename: String,
    /// Where the encoded descriptors go.
    pub(crate) descriptor_set: Option<PathBuf>,
    pub(crate) include_file: Option<PathBuf>,
    /// `None` is Cargo's output directory.
    pub(crate) out_dir: Option<PathBuf>,
}

/// Descriptors, and what is known of where they came from.
pub(crate) struct Input {
    /// All files, imports included, each before those that import it.
    pub(crate) set: FileDescriptorSet,
    /// The same, encoded; unlike `set` it keeps custom options.
    pub(crate) encoded: Vec<u8>,
    /// Where the files are on disk.
    pub(crate) paths: Paths,
    /// Names of files that were only imported.
    pub(crate) imports: HashSet<String>,
}

impl Job {
    pub(crate) fn run(mut self, mut input: Input) -> Result<(), Error> {
        self.drop_services_not_wanted(&mut input);
        check::check(&input.set, &input.paths)?;
        source::validate(&input.set)?;
        let settings = clash::Settings {
            shape: self.options.shape,
            strip_enum_prefix: self.strip_enum_prefix,
            include_tree: self.include_file.is_some(),
            is_extern: &|name| self.is_extern(name),
        };
        clash::check(&input.set, &input.paths, &settings)?;

        let in_out_dir = self.out_dir.is_none();
        let directory = output::directory(self.out_dir.take())?;
        if let Some(path) = self.descriptor_set.take() {
            output::write(path, &input.encoded)?;
        }
        comments::document_groups(&mut input.set);
        comments::make_safe(&mut input.set);
        comments::complete_places(&mut input.set);
        let include_file = self.include_file.take();
        let mut packages = BTreeMap::new();
        for (module, package, code) in self.generate(input.set)? {
            output::write(directory.join(&package.file), code.as_bytes())?;
            packages.insert(module, package);
        }
        if let Some(path) = include_file {
            let tree = output::include_tree(&packages, in_out_dir)?;
            output::write(directory.join(path), tree.as_bytes())?;
        }
        Ok(())
    }

    /// The code of each package.
    fn generate(mut self, set: FileDescriptorSet) -> Result<Vec<(Module, Package, String)>, Error> {
        let module = |package: &str| Module::from_protobuf_package_name(package);
        let names: BTreeMap<Module, String> = set
            .file
            .iter()
            .map(|file| (module(file.package()), file.package().to_owned()))
            .collect();
        let files = set.file.into_iter();
        let requests = files.map(|file| (module(file.package()), file)).collect();
        self.prost
            .format(false) // it panics at code that is not Rust
            .service_generator(Box::new(Generator::new(self.options)));
        let code = self.prost.generate(requests).map_err(Error::Generate)?;
        code.into_iter()
            .map(|(module, code)| {
                let name = names.get(&module).cloned().unwrap_or_default();
                let file = module.to_file_name_or(&self.default_package_filename);
                let code = own_words(&code);
                let code = output::format(&code, &format!("package `{name}`"))?;
                Ok((module, Package { file, name }, code))
            })
            .collect()
    }

    /// Whether a type or a package is found elsewhere.
    fn is_extern(&self, name: &str) -> bool {
        let own = self.extern_paths.iter();
        own.map(String::as_str)
            .chain((!self.compile_well_known_types).then_some(".google.protobuf"))
            .any(|path| attributes::matches(path, name))
    }

    /// Without clients and servers there is nothing to generate. The services of an imported file
    /// are where its messages are.
    fn drop_services_not_wanted(&self, input: &mut Input) {
        let shape = self.options.shape;
        for file in &mut input.set.file {
            let is_elsewhere =
                input.imports.contains(file.name()) && self.is_extern(file.package());
            if is_elsewhere || !(shape.build_client || shape.build_server) {
                file.service.clear();
            }
        }
    }
}

/// What prost-build says the same way for every enum, as strict lints want it.
fn own_words(code: &str) -> String {
    let allow = "#[allow(deprecated, reason = \"a value of the schema, whoever uses it\")]";
    code.replace("in the ProtoBuf definition", "in the `.proto` file")
        .replace("if the ProtoBuf definition", "if the `.proto` file")
        .replace("#[allow(deprecated)]", allow)
}
