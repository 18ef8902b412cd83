//! From descriptors to files of generated code, with all that is checked before.

use std::{collections::BTreeMap, path::PathBuf};

use prost_build::Module;
use prost_types::FileDescriptorSet;

use crate::{
    Error, attributes, check,
    comments::{self, Docs},
    defaults,
    generate::{Generator, Options},
    name_collisions, needed,
    output::{self, Package},
    source::{self, Input},
    write::Outputs,
};

/// What to generate, and where to put it.
pub(crate) struct Build {
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

impl Build {
    pub(crate) fn run(mut self, mut input: Input) -> Result<(), Error> {
        needed::retain(&mut input.set, &input.imports);
        let shape = self.options.shape;
        if !(shape.build_client || shape.build_server) {
            // There is nothing to generate for them.
            input
                .set
                .file
                .iter_mut()
                .for_each(|file| file.service.clear());
        }
        check::check(&input.set, &input.paths)?;
        if let Some(all) = &input.unchecked {
            source::validate(all)?;
        }
        let settings = name_collisions::Settings {
            shape,
            strip_enum_prefix: self.strip_enum_prefix,
            include_tree: self.include_file.is_some(),
            is_extern: &|name| self.is_extern(name),
        };
        name_collisions::check(&input.set, &input.paths, &settings)?;

        let in_out_dir = self.out_dir.is_none();
        let directory = output::directory(self.out_dir.take())?;
        let mut outputs = Outputs::default();
        if let Some(path) = self.descriptor_set.take() {
            outputs.add(path, "the descriptor set", input.encoded);
        }
        defaults::without_aliases(&mut input.set);
        comments::document_groups(&mut input.set);
        comments::complete_places(&mut input.set);
        let docs = Docs::take(&mut input.set);
        let include_file = self.include_file.take();
        let mut packages = BTreeMap::new();
        for (module, package, code) in self.generate(input.set, docs)? {
            let what = output::origin(&package.name);
            outputs.add(directory.join(&package.file), what, code);
            packages.insert(module, package);
        }
        if let Some(path) = include_file {
            let tree = output::include_tree(&packages, in_out_dir)?;
            outputs.add(directory.join(path), "the include file", tree);
        }
        outputs.write()
    }

    /// The code of each package.
    fn generate(
        mut self,
        set: FileDescriptorSet,
        docs: Docs,
    ) -> Result<Vec<(Module, Package, String)>, Error> {
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
            .service_generator(Box::new(Generator::new(self.options, docs.clone())));
        let code = self.prost.generate(requests).map_err(Error::Generate)?;
        code.into_iter()
            .map(|(module, code)| {
                let name = names.get(&module).cloned().unwrap_or_default();
                let file = module.to_file_name_or(&self.default_package_filename);
                let code = docs.put_back(&own_words(&code));
                let code = output::format(&code, &output::origin(&name), module.parts().last())?;
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
}

/// What prost-build says the same way for every enum, as strict lints want it.
fn own_words(code: &str) -> String {
    let allow = "#[allow(deprecated, reason = \"a value of the schema, whoever uses it\")]";
    code.replace("in the ProtoBuf definition", "in the `.proto` file")
        .replace("if the ProtoBuf definition", "if the `.proto` file")
        .replace("#[allow(deprecated)]", allow)
}
