use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use prost_types::FileDescriptorSet;

use crate::{
    Error, attributes, check, comments,
    generate::{Generator, Options},
    source::{self, Paths},
};

/// Options for compiling `.proto` files. See [`configure`](crate::configure).
///
/// Paths that select items are those of protobuf: `.` means everything, `.package.Message` an item
/// and what is in it, `Message.field` whatever ends so.
pub struct Builder {
    prost: prost_build::Config,
    options: Options,
    /// prost-build replaces these lists at each call, so they are collected here.
    btree_map: Vec<String>,
    bytes: Vec<String>,
    skip_debug: Vec<String>,
    extern_paths: Vec<String>,
    descriptor_set: Option<PathBuf>,
    emit_rerun_if_changed: bool,
    /// The first wrong value given to an option.
    error: Option<Error>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            prost: prost_build::Config::new(),
            options: Options::default(),
            btree_map: Vec::new(),
            bytes: Vec::new(),
            skip_debug: Vec::new(),
            extern_paths: Vec::new(),
            descriptor_set: None,
            emit_rerun_if_changed: env::var_os("CARGO").is_some(),
            error: None,
        }
    }

    /// Whether to generate clients. Default: yes.
    #[must_use]
    pub fn build_client(mut self, enable: bool) -> Self {
        self.options.build_client = enable;
        self
    }

    /// Whether to generate server traits and servers. Default: yes.
    #[must_use]
    pub fn build_server(mut self, enable: bool) -> Self {
        self.options.build_server = enable;
        self
    }

    /// The directory to write to. Default: Cargo's `OUT_DIR`.
    #[must_use]
    pub fn out_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.prost.out_dir(directory.as_ref());
        self
    }

    /// Writes one more file, with a tree of modules that includes all the others.
    #[must_use]
    pub fn include_file(mut self, path: impl AsRef<Path>) -> Self {
        self.prost.include_file(path.as_ref());
        self
    }

    /// Writes the encoded descriptors of all files, imports included, to `path`, as reflection
    /// needs them. Custom options are kept.
    #[must_use]
    pub fn file_descriptor_set_path(mut self, path: impl AsRef<Path>) -> Self {
        self.descriptor_set = Some(path.as_ref().to_owned());
        self
    }

    /// Adds an attribute to messages, enums and oneofs that match `path`.
    #[must_use]
    pub fn type_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.prost.type_attribute(path, attribute);
        self
    }

    /// Adds an attribute to fields that match `path`.
    #[must_use]
    pub fn field_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.prost.field_attribute(path, attribute);
        self
    }

    /// Adds an attribute to messages that match `path`.
    #[must_use]
    pub fn message_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.prost.message_attribute(path, attribute);
        self
    }

    /// Adds an attribute to enums and oneofs that match `path`.
    #[must_use]
    pub fn enum_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.prost.enum_attribute(path, attribute);
        self
    }

    /// Adds an attribute to the clients of services that match `path`.
    #[must_use]
    pub fn client_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        self.options
            .client_attributes
            .add("client_attribute", path, attribute, &mut self.error);
        self
    }

    /// Adds an attribute to the client modules of packages that match `path`.
    #[must_use]
    pub fn client_mod_attribute(
        mut self,
        path: impl AsRef<str>,
        attribute: impl AsRef<str>,
    ) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        let attributes = &mut self.options.client_mod_attributes;
        attributes.add("client_mod_attribute", path, attribute, &mut self.error);
        self
    }

    /// Adds an attribute to the server types (`GreeterServer`) of services that match `path`.
    #[must_use]
    pub fn server_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        self.options
            .server_attributes
            .add("server_attribute", path, attribute, &mut self.error);
        self
    }

    /// Adds an attribute to the server modules of packages that match `path`.
    #[must_use]
    pub fn server_mod_attribute(
        mut self,
        path: impl AsRef<str>,
        attribute: impl AsRef<str>,
    ) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        let attributes = &mut self.options.server_mod_attributes;
        attributes.add("server_mod_attribute", path, attribute, &mut self.error);
        self
    }

    /// Adds an attribute to the server traits of services that match `path`.
    #[must_use]
    pub fn trait_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        self.options
            .trait_attributes
            .add("trait_attribute", path, attribute, &mut self.error);
        self
    }

    /// Uses the type or module `rust_path` for the message or package `proto_path` instead of
    /// generating it, and generates no service of that package.
    ///
    /// `proto_path` starts with a dot, `rust_path` with `::` or `crate::`.
    #[must_use]
    pub fn extern_path(mut self, proto_path: impl AsRef<str>, rust_path: impl AsRef<str>) -> Self {
        let (proto_path, rust_path) = (proto_path.as_ref(), rust_path.as_ref());
        if rust_path.starts_with("::") || rust_path.starts_with("crate::") {
            self.prost.extern_path(proto_path, rust_path);
            self.extern_paths.push(proto_path.to_owned());
        } else {
            self.error.get_or_insert_with(|| Error::Option {
                option: "extern_path",
                expected: "a Rust path that starts with `::` or `crate::`",
                value: rust_path.to_owned(),
            });
        }
        self
    }

    /// Puts fields that match `path` into a `Box`.
    #[must_use]
    pub fn boxed(mut self, path: impl AsRef<str>) -> Self {
        self.prost.boxed(path);
        self
    }

    /// Makes `bytes` fields that match `path` a `bytes::Bytes`, which is a view of the message
    /// received, instead of a `Vec<u8>`, which is a copy.
    #[must_use]
    pub fn bytes(mut self, path: impl AsRef<str>) -> Self {
        self.bytes.push(path.as_ref().to_owned());
        self
    }

    /// Makes `map` fields that match `path` a `BTreeMap`.
    #[must_use]
    pub fn btree_map(mut self, path: impl AsRef<str>) -> Self {
        self.btree_map.push(path.as_ref().to_owned());
        self
    }

    /// Generates no `Debug` for messages that match `path`, so that it can be written by hand.
    #[must_use]
    pub fn skip_debug(mut self, path: impl AsRef<str>) -> Self {
        self.skip_debug.push(path.as_ref().to_owned());
        self
    }

    /// Generates the well-known types (`google.protobuf.*`) instead of using those of
    /// `prost-types`. Default: no.
    #[must_use]
    pub fn compile_well_known_types(mut self, enable: bool) -> Self {
        self.options.compile_well_known_types = enable;
        self
    }

    /// Whether paths and service names carry the protobuf package, as they should: the other side
    /// expects it. Default: yes.
    #[must_use]
    pub fn emit_package(mut self, enable: bool) -> Self {
        self.options.emit_package = enable;
        self
    }

    /// Carries no comments over for messages, fields, services and methods that match `path`.
    #[must_use]
    pub fn disable_comments(mut self, path: impl AsRef<str>) -> Self {
        self.options.disable_comments.push(path.as_ref().to_owned());
        self
    }

    /// Gives the methods of server traits `self: Arc<Self>` instead of `&self`. Default: no.
    #[must_use]
    pub fn use_arc_self(mut self, enable: bool) -> Self {
        self.options.use_arc_self = enable;
        self
    }

    /// Gives the methods of server traits a body that answers UNIMPLEMENTED, so that a method added
    /// to the `.proto` doesn't break implementations. Default: no.
    #[must_use]
    pub fn generate_default_stubs(mut self, enable: bool) -> Self {
        self.options.default_stubs = enable;
        self
    }

    /// The codec of all methods: a path to a type with two parameters, what it encodes and what it
    /// decodes, that implements `Default` and `homa_rpc`'s `Codec`. Default:
    /// `homa_rpc::codegen::ProstCodec`.
    #[must_use]
    pub fn codec_path(mut self, path: impl AsRef<str>) -> Self {
        match path.as_ref().parse() {
            Ok(tokens) => self.options.codec = tokens,
            Err(_) => {
                self.error.get_or_insert_with(|| Error::Option {
                    option: "codec_path",
                    expected: "a path to a type",
                    value: path.as_ref().to_owned(),
                });
            }
        }
        self
    }

    /// Whether to tell Cargo to run the build script again when one of the files read changes,
    /// imports included. Default: if run by Cargo.
    #[must_use]
    pub fn emit_rerun_if_changed(mut self, enable: bool) -> Self {
        self.emit_rerun_if_changed = enable;
        self
    }

    /// Compiles `protos`, which are looked up, as are their imports, in the directories `includes`.
    /// The files of `google/protobuf` are built in.
    ///
    /// # Errors
    ///
    /// Invalid or missing files, editions, streaming methods (see [`Error`]), a wrong value given
    /// to an option, a directory that can't be written to.
    pub fn compile_protos(
        self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        fn owned(paths: &[impl AsRef<Path>]) -> Vec<PathBuf> {
            paths.iter().map(|path| path.as_ref().to_owned()).collect()
        }
        let compiled = source::compile(&owned(protos), &owned(includes))?;
        if self.emit_rerun_if_changed {
            for path in compiled.paths.sorted() {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
        self.generate(compiled.set, &compiled.encoded, &compiled.paths)
    }

    /// Generates code for descriptors that were made elsewhere. Imports must be among them.
    ///
    /// # Errors
    ///
    /// Editions, streaming methods, a wrong value given to an option, a directory that can't be
    /// written to.
    pub fn compile_fds(self, set: FileDescriptorSet) -> Result<(), Error> {
        let encoded = source::encode(&set);
        self.generate(set, &encoded, &Paths::default())
    }

    fn generate(
        mut self,
        mut set: FileDescriptorSet,
        encoded: &[u8],
        paths: &Paths,
    ) -> Result<(), Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.drop_services_not_wanted(&mut set);
        check::check(&set, paths)?;
        comments::make_safe(&mut set);
        if let Some(path) = self.descriptor_set {
            fs::write(&path, encoded).map_err(|source| Error::Write { path, source })?;
        }

        self.prost.btree_map(self.btree_map);
        self.prost.bytes(self.bytes);
        self.prost.skip_debug(self.skip_debug);
        self.prost.disable_comments(&self.options.disable_comments);
        if self.options.compile_well_known_types {
            self.prost.compile_well_known_types();
        }
        self.prost
            .service_generator(Box::new(Generator::new(self.options)));
        self.prost.compile_fds(set).map_err(Error::Generate)
    }

    /// Services under an external path exist elsewhere, as do the messages they use; and without
    /// clients and servers there is nothing to generate.
    fn drop_services_not_wanted(&self, set: &mut FileDescriptorSet) {
        let wanted = self.options.build_client || self.options.build_server;
        for file in &mut set.file {
            let package = file.package().to_owned();
            let is_extern = |path: &String| attributes::matches(path, &package);
            if !wanted || self.extern_paths.iter().any(is_extern) {
                file.service.clear();
            }
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("prost", &self.prost)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
