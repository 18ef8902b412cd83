use std::{
    collections::HashSet,
    env, fmt,
    path::{Path, PathBuf},
};

use prost_types::FileDescriptorSet;

use crate::{
    Error,
    attributes::{self, Attributes},
    compile::Build,
    generate::Options,
    paths::Paths,
    source::{self, Input},
    well_known,
};

/// Options for compiling `.proto` files. See [`configure`](crate::configure).
///
/// Paths that select items are those of protobuf: `.` means everything, `.package.Message` an item
/// and what is in it, `Message.field` whatever ends so. A path that selects nothing is no error, so
/// that one build script can serve several sets of files.
///
/// A wrong value given to an option is an error when the files are compiled, see
/// [`Error::Option`].
#[must_use = "nothing is compiled before `compile_protos` or `compile_fds` is called"]
pub struct Builder {
    prost: prost_build::Config,
    options: Options,
    /// prost-build replaces these lists at each call, so they are collected here.
    btree_map: Vec<String>,
    bytes: Vec<String>,
    skip_debug: Vec<String>,
    extern_paths: Vec<String>,
    /// Those of them for which prost-build has paths of its own, and these paths.
    well_known_paths: Vec<(String, String)>,
    compile_well_known_types: bool,
    retain_enum_prefix: bool,
    default_package_filename: String,
    descriptor_set: Option<PathBuf>,
    include_file: Option<PathBuf>,
    out_dir: Option<PathBuf>,
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
            well_known_paths: Vec::new(),
            compile_well_known_types: false,
            retain_enum_prefix: false,
            default_package_filename: "_".to_owned(),
            descriptor_set: None,
            include_file: None,
            out_dir: None,
            emit_rerun_if_changed: env::var_os("CARGO").is_some(),
            error: None,
        }
    }

    /// Whether to generate clients. Default: yes.
    pub fn build_client(mut self, enable: bool) -> Self {
        self.options.shape.build_client = enable;
        self
    }

    /// Whether to generate a trait beside each client, `GreeterApi` beside `GreeterClient`, with
    /// the methods of the client. The client implements it, and what stands for the client in a
    /// test can. Default: no.
    pub fn build_client_trait(mut self, enable: bool) -> Self {
        self.options.shape.build_client_trait = enable;
        self
    }

    /// Whether to generate server traits and servers. Default: yes.
    pub fn build_server(mut self, enable: bool) -> Self {
        self.options.shape.build_server = enable;
        self
    }

    /// The directory to write to. Default: Cargo's `OUT_DIR`.
    pub fn out_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.out_dir = Some(directory.as_ref().to_owned());
        self
    }

    /// Writes one more file, with a tree of modules that includes all the others.
    pub fn include_file(mut self, path: impl AsRef<Path>) -> Self {
        self.include_file = Some(path.as_ref().to_owned());
        self
    }

    /// The name, without `.rs`, of the file for what is in no package. Default: `_`.
    pub fn default_package_filename(mut self, name: impl Into<String>) -> Self {
        self.default_package_filename = name.into();
        self
    }

    /// Writes the encoded descriptors of all files, imports included, to `path`, as reflection
    /// needs them. Custom options are kept.
    pub fn file_descriptor_set_path(mut self, path: impl AsRef<Path>) -> Self {
        self.descriptor_set = Some(path.as_ref().to_owned());
        self
    }

    /// Adds an attribute to messages, enums and oneofs that match `path`.
    pub fn type_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        if self.attribute("type_attribute", path, attribute).is_some() {
            self.prost.type_attribute(path, attribute);
        }
        self
    }

    /// Adds an attribute to fields and enum values that match `path`.
    pub fn field_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        if self.attribute("field_attribute", path, attribute).is_some() {
            self.prost.field_attribute(path, attribute);
        }
        self
    }

    /// Adds an attribute to messages that match `path`.
    pub fn message_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        if self
            .attribute("message_attribute", path, attribute)
            .is_some()
        {
            self.prost.message_attribute(path, attribute);
        }
        self
    }

    /// Adds an attribute to enums and oneofs that match `path`.
    pub fn enum_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        if self.attribute("enum_attribute", path, attribute).is_some() {
            self.prost.enum_attribute(path, attribute);
        }
        self
    }

    /// Adds an attribute to the clients of services that match `path`.
    pub fn client_attribute(self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        self.service_attribute("client_attribute", path, attribute, |options| {
            &mut options.client_attributes
        })
    }

    /// Adds an attribute to the client modules of packages that match `path`.
    pub fn client_mod_attribute(self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        self.service_attribute("client_mod_attribute", path, attribute, |options| {
            &mut options.client_mod_attributes
        })
    }

    /// Adds an attribute to the server types (`GreeterServer`) of services that match `path`.
    pub fn server_attribute(self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        self.service_attribute("server_attribute", path, attribute, |options| {
            &mut options.server_attributes
        })
    }

    /// Adds an attribute to the server modules of packages that match `path`.
    pub fn server_mod_attribute(self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        self.service_attribute("server_mod_attribute", path, attribute, |options| {
            &mut options.server_mod_attributes
        })
    }

    /// Adds an attribute to the server traits of services that match `path`.
    pub fn trait_attribute(self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        let (path, attribute) = (path.as_ref(), attribute.as_ref());
        self.service_attribute("trait_attribute", path, attribute, |options| {
            &mut options.trait_attributes
        })
    }

    /// Uses the type or module `rust_path` for the message or package `proto_path` instead of
    /// generating it. Services of the files given are generated all the same.
    ///
    /// `proto_path` starts with a dot, `rust_path` with `::` or `crate::`. To name another crate than
    /// `prost_types` for `.google.protobuf`, or for a wrapper such as `.google.protobuf.StringValue`,
    /// [`compile_well_known_types`](Self::compile_well_known_types) has to be on.
    pub fn extern_path(mut self, proto_path: impl AsRef<str>, rust_path: impl AsRef<str>) -> Self {
        let (proto_path, rust_path) = (proto_path.as_ref(), rust_path.as_ref());
        let is_absolute = rust_path.starts_with("::") || rust_path.starts_with("crate::");
        if !is_absolute || syn::parse_str::<syn::TypePath>(rust_path).is_err() {
            self.refuse(
                "extern_path",
                "a Rust path that starts with `::` or `crate::`",
                rust_path,
            );
        } else if !proto_path.starts_with('.') || proto_path == "." {
            let expected = "the full name of a message or package, such as `.package.Message`";
            self.refuse("extern_path", expected, proto_path);
        } else if self.extern_paths.iter().any(|path| path == proto_path) {
            self.refuse("extern_path", "each path once", proto_path);
        } else if self.path("extern_path", proto_path) {
            if well_known::is_mapped(proto_path) {
                let path = (proto_path.to_owned(), rust_path.to_owned());
                self.well_known_paths.push(path);
            } else {
                self.prost.extern_path(proto_path, rust_path);
            }
            self.extern_paths.push(proto_path.to_owned());
        }
        self
    }

    /// Puts fields that match `path` into a `Box`.
    pub fn boxed(mut self, path: impl AsRef<str>) -> Self {
        if self.path("boxed", path.as_ref()) {
            self.prost.boxed(path);
        }
        self
    }

    /// Makes `bytes` fields that match `path` a `bytes::Bytes`, which is a view of the message
    /// received, instead of a `Vec<u8>`, which is a copy.
    pub fn bytes(mut self, path: impl AsRef<str>) -> Self {
        if self.path("bytes", path.as_ref()) {
            self.bytes.push(path.as_ref().to_owned());
        }
        self
    }

    /// Makes `map` fields that match `path` a `BTreeMap`.
    pub fn btree_map(mut self, path: impl AsRef<str>) -> Self {
        if self.path("btree_map", path.as_ref()) {
            self.btree_map.push(path.as_ref().to_owned());
        }
        self
    }

    /// Generates no `Debug` for messages and enums that match one of `paths`, so that it can be
    /// written by hand.
    pub fn skip_debug(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for path in paths {
            if self.path("skip_debug", path.as_ref()) {
                self.skip_debug.push(path.as_ref().to_owned());
            }
        }
        self
    }

    /// Carries no comments over for messages, fields, services and methods that match one of
    /// `paths`.
    pub fn disable_comments(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for path in paths {
            if self.path("disable_comments", path.as_ref()) {
                self.options.disable_comments.push(path.as_ref().to_owned());
            }
        }
        self
    }

    /// Implements `prost::Name` for messages: their full names and type URLs, as
    /// `prost_types::Any` needs them. Default: no.
    pub fn enable_type_names(mut self, enable: bool) -> Self {
        if enable {
            self.prost.enable_type_names();
        }
        self
    }

    /// Puts `domain`, such as `type.googleapis.com`, before the names in the type URLs of messages
    /// that match one of `paths`. See [`enable_type_names`](Self::enable_type_names).
    pub fn type_name_domain(
        mut self,
        paths: impl IntoIterator<Item = impl AsRef<str>>,
        domain: impl AsRef<str>,
    ) -> Self {
        let domain = domain.as_ref();
        if domain.contains(['"', '\\']) {
            self.refuse("type_name_domain", "a domain", domain);
        }
        for path in paths {
            if self.path("type_name_domain", path.as_ref()) {
                self.prost.type_name_domain([path], domain);
            }
        }
        self
    }

    /// Leaves the name of an enum at the beginning of its values, which otherwise lose it: of the
    /// enum `Color`, `COLOR_RED` becomes `Red`. Default: no.
    pub fn retain_enum_prefix(mut self, enable: bool) -> Self {
        self.retain_enum_prefix = enable;
        self
    }

    /// Generates the well-known types (`google.protobuf.*`) instead of using those of
    /// `prost-types`. Default: no.
    pub fn compile_well_known_types(mut self, enable: bool) -> Self {
        self.compile_well_known_types = enable;
        self
    }

    /// Whether paths and service names carry the protobuf package, as they should: the other side
    /// expects it. Default: yes.
    pub fn emit_package(mut self, enable: bool) -> Self {
        self.options.emit_package = enable;
        self
    }

    /// Gives the methods of server traits `self: Arc<Self>` instead of `&self`. Default: no.
    pub fn use_arc_self(mut self, enable: bool) -> Self {
        self.options.shape.use_arc_self = enable;
        self
    }

    /// Gives the methods of server traits a body that answers UNIMPLEMENTED, so that a method added
    /// to the `.proto` doesn't break implementations. Streams of responses are `BoxStream`s then, without
    /// an associated type. Default: no.
    pub fn generate_default_stubs(mut self, enable: bool) -> Self {
        self.options.shape.default_stubs = enable;
        self
    }

    /// Writes traits with the language's own `async fn`, which costs no allocation per call,
    /// instead of with the macro `async_trait`. Implementations then go without the macro, and the
    /// traits cannot be used as `dyn`. Default: no.
    pub fn native_async(mut self, enable: bool) -> Self {
        self.options.shape.native_async = enable;
        self
    }

    /// The codec of all methods: a path to a type with two parameters, what it encodes and what it
    /// decodes, that implements `Default` and `homa_rpc`'s `Codec`. Default:
    /// `homa_rpc::ProstCodec`.
    pub fn codec_path(mut self, path: impl AsRef<str>) -> Self {
        match attributes::parse_type_path("codec_path", path.as_ref()) {
            Ok(codec) => self.options.codec = codec,
            Err(error) => self.note(error),
        }
        self
    }

    /// Whether to tell Cargo to run the build script again when one of the files read changes,
    /// imports included. Default: if run by Cargo.
    pub fn emit_rerun_if_changed(mut self, enable: bool) -> Self {
        self.emit_rerun_if_changed = enable;
        self
    }

    /// Compiles `protos`, which are looked up, as are their imports, in the directories `includes`.
    /// The files of `google/protobuf` are built in; copies of them are not read when they are imported.
    ///
    /// # Errors
    ///
    /// Invalid or missing files, editions, streaming methods, names that clash in Rust (see
    /// [`Error`]), a wrong value given to an option, a file that would be written over another, a
    /// directory that can't be written to.
    pub fn compile_protos(
        self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        fn owned(paths: &[impl AsRef<Path>]) -> Vec<PathBuf> {
            paths.iter().map(|path| path.as_ref().to_owned()).collect()
        }
        let input = source::compile(&owned(protos), &owned(includes))?;
        if self.emit_rerun_if_changed {
            for path in input.paths.sorted() {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
        self.build()?.run(input)
    }

    /// Generates code for descriptors that were made elsewhere. Imports must be among them.
    ///
    /// # Errors
    ///
    /// Descriptors that are not consistent, and as [`compile_protos`](Self::compile_protos).
    pub fn compile_fds(self, set: FileDescriptorSet) -> Result<(), Error> {
        self.build()?.run(Input {
            encoded: source::encode(&set),
            unchecked: Some(set.clone()),
            set,
            paths: Paths::default(),
            imports: HashSet::new(),
        })
    }

    fn build(mut self) -> Result<Build, Error> {
        let paths = std::mem::take(&mut self.well_known_paths);
        if let Err(error) = well_known::set(&mut self.prost, paths, self.compile_well_known_types) {
            self.note(error);
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        self.prost
            .btree_map(self.btree_map)
            .bytes(self.bytes)
            .skip_debug(self.skip_debug)
            .disable_comments(&self.options.disable_comments);
        if self.compile_well_known_types {
            self.prost.compile_well_known_types();
        }
        if self.retain_enum_prefix {
            self.prost.retain_enum_prefix();
        }
        Ok(Build {
            prost: self.prost,
            options: self.options,
            extern_paths: self.extern_paths,
            compile_well_known_types: self.compile_well_known_types,
            strip_enum_prefix: !self.retain_enum_prefix,
            default_package_filename: self.default_package_filename,
            descriptor_set: self.descriptor_set,
            include_file: self.include_file,
            out_dir: self.out_dir,
        })
    }

    /// Notes what is wrong with an option. The first error stays.
    fn note(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    fn refuse(&mut self, option: &'static str, expected: &'static str, value: &str) {
        self.note(Error::Option {
            option,
            expected,
            value: value.to_owned(),
        });
    }

    /// Whether `path` can select items.
    fn path(&mut self, option: &'static str, path: &str) -> bool {
        attributes::check_path(option, path)
            .map_err(|error| self.note(error))
            .is_ok()
    }

    /// An attribute for what `path` selects, if both are what they should be.
    fn attribute(
        &mut self,
        option: &'static str,
        path: &str,
        attribute: &str,
    ) -> Option<proc_macro2::TokenStream> {
        if !self.path(option, path) {
            return None;
        }
        attributes::parse(option, attribute)
            .map_err(|error| self.note(error))
            .ok()
    }

    fn service_attribute(
        mut self,
        option: &'static str,
        path: &str,
        attribute: &str,
        list: impl FnOnce(&mut Options) -> &mut Attributes,
    ) -> Self {
        if let Some(attribute) = self.attribute(option, path, attribute) {
            list(&mut self.options).add(path, attribute);
        }
        self
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
