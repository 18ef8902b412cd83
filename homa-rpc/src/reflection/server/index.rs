//! [`Index`]: the files by their names, by what they declare and by what they extend.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};

use super::error::Error;

/// Bytes of the files in one response at most, but for the first, which goes whatever its length. Clients ask
/// for the imports that they miss.
const RESPONSE_BYTES_MAX: usize = 256 * 1024;

/// A `FileDescriptorSet` whose files stay as they came: prost would drop custom options.
#[derive(Clone, PartialEq, Message)]
struct EncodedSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// Files with all that they declare. The first one of a name, and of those that declare a symbol, counts.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: Vec<File>,
    names: HashMap<String, FileId>,
    /// What declares each symbol, by its full name.
    symbols: HashMap<String, FileId>,
    /// What declares each extension, by the full name of the message and the field number. All messages are
    /// here.
    extensions: HashMap<String, BTreeMap<i32, FileId>>,
    /// Full names, in the order of the files.
    services: Vec<String>,
}

/// Position among the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId(usize);

#[derive(Debug)]
struct File {
    encoded: Bytes,
    /// Names of the files that it imports.
    imports: Vec<String>,
}

impl Index {
    /// Adds the files of an encoded `FileDescriptorSet`.
    pub(super) fn add_set(&mut self, encoded: Bytes) -> Result<(), Error> {
        for encoded in EncodedSet::decode(encoded)?.file {
            self.add_file(encoded)?;
        }
        Ok(())
    }

    fn add_file(&mut self, encoded: Bytes) -> Result<(), Error> {
        let file = FileDescriptorProto::decode(encoded.clone())?;
        if file.name().is_empty() {
            let text = format!("a file of the package {:?} has no name", file.package());
            return Err(Error::InvalidFileDescriptorSet(text));
        }
        if self.names.contains_key(file.name()) {
            return self.check_same(&file);
        }
        let id = FileId(self.files.len());
        self.files.push(File {
            encoded,
            imports: file.dependency.clone(),
        });
        self.names.insert(file.name().to_owned(), id);
        Declared { index: self, id }.file(&file)
    }

    /// Sets often share files; two files that only share a name would leave one of them unknown.
    fn check_same(&self, file: &FileDescriptorProto) -> Result<(), Error> {
        for service in &file.service {
            let name = qualified(file.package(), "service", service.name.as_deref())?;
            if !self.symbols.contains_key(&name) {
                return Err(Error::InvalidFileDescriptorSet(format!(
                    "two files are called {:?}, and only the second declares the service {name}",
                    file.name()
                )));
            }
        }
        Ok(())
    }

    pub(super) fn named(&self, name: &str) -> Option<FileId> {
        self.names.get(name).copied()
    }

    /// The file that declares the symbol with this full name.
    pub(super) fn declaring(&self, symbol: &str) -> Option<FileId> {
        self.symbols.get(symbol).copied()
    }

    /// The file that declares the extension of `message` with this field number.
    pub(super) fn extending(&self, message: &str, number: i32) -> Option<FileId> {
        self.extensions.get(message)?.get(&number).copied()
    }

    /// The field numbers of the extensions of `message`, in order; `None` if no such message is known.
    pub(super) fn extension_numbers(&self, message: &str) -> Option<Vec<i32>> {
        let extensions = self.extensions.get(message)?;
        Some(extensions.keys().copied().collect())
    }

    /// The services that the files declare.
    pub(super) fn services(&self) -> &[String] {
        &self.services
    }

    /// The file, encoded, and those it imports, directly or not, which are not among `sent`, as many as
    /// have room. All go into `sent`.
    pub(super) fn with_imports(&self, id: FileId, sent: &mut HashSet<FileId>) -> Vec<Bytes> {
        let mut encoded = Vec::new();
        let mut bytes = 0;
        let mut met = HashSet::from([id]);
        let mut waiting = VecDeque::from([id]);
        while let Some(id) = waiting.pop_front() {
            let Some(file) = self.files.get(id.0) else {
                continue;
            };
            if encoded.is_empty() || !sent.contains(&id) {
                bytes += file.encoded.len();
                if !encoded.is_empty() && bytes > RESPONSE_BYTES_MAX {
                    break;
                }
                sent.insert(id);
                encoded.push(file.encoded.clone());
            }
            let imports = file.imports.iter().filter_map(|name| self.named(name));
            waiting.extend(imports.filter(|import| met.insert(*import)));
        }
        encoded
    }
}

/// Enters what one file declares.
struct Declared<'a> {
    index: &'a mut Index,
    id: FileId,
}

impl Declared<'_> {
    fn file(&mut self, file: &FileDescriptorProto) -> Result<(), Error> {
        let package = file.package();
        for message in &file.message_type {
            self.message(package, message)?;
        }
        for enumeration in &file.enum_type {
            self.enumeration(package, enumeration)?;
        }
        for extension in &file.extension {
            self.extension(package, extension)?;
        }
        for service in &file.service {
            self.service(package, service)?;
        }
        Ok(())
    }

    /// As deep as prost reads: 100 levels.
    fn message(&mut self, scope: &str, message: &DescriptorProto) -> Result<(), Error> {
        let scope = self.symbol(scope, "message", message.name.as_deref())?;
        self.index.extensions.entry(scope.clone()).or_default();
        for nested in &message.nested_type {
            self.message(&scope, nested)?;
        }
        for enumeration in &message.enum_type {
            self.enumeration(&scope, enumeration)?;
        }
        for extension in &message.extension {
            self.extension(&scope, extension)?;
        }
        for field in &message.field {
            self.symbol(&scope, "field", field.name.as_deref())?;
        }
        for oneof in &message.oneof_decl {
            self.symbol(&scope, "oneof", oneof.name.as_deref())?;
        }
        Ok(())
    }

    /// The values of an enum are symbols beside it, not in it.
    fn enumeration(&mut self, scope: &str, of: &EnumDescriptorProto) -> Result<(), Error> {
        self.symbol(scope, "enum", of.name.as_deref())?;
        for value in &of.value {
            self.symbol(scope, "enum value", value.name.as_deref())?;
        }
        Ok(())
    }

    fn extension(&mut self, scope: &str, extension: &FieldDescriptorProto) -> Result<(), Error> {
        self.symbol(scope, "extension", extension.name.as_deref())?;
        let extendee = extension.extendee();
        let message = extendee.strip_prefix('.').unwrap_or(extendee).to_owned();
        let of_message = self.index.extensions.entry(message).or_default();
        of_message.entry(extension.number()).or_insert(self.id);
        Ok(())
    }

    fn service(&mut self, scope: &str, service: &ServiceDescriptorProto) -> Result<(), Error> {
        let name = self.symbol(scope, "service", service.name.as_deref())?;
        for method in &service.method {
            self.symbol(&name, "method", method.name.as_deref())?;
        }
        self.index.services.push(name);
        Ok(())
    }

    /// Enters a symbol; its full name.
    fn symbol(&mut self, scope: &str, kind: &str, name: Option<&str>) -> Result<String, Error> {
        let name = qualified(scope, kind, name)?;
        let entry = self.index.symbols.entry(name.clone());
        entry.or_insert(self.id);
        Ok(name)
    }
}

/// The full name of what is called `name` in `scope`.
fn qualified(scope: &str, kind: &str, name: Option<&str>) -> Result<String, Error> {
    match name.filter(|name| !name.is_empty()) {
        Some(name) if scope.is_empty() => Ok(name.to_owned()),
        Some(name) => Ok(format!("{scope}.{name}")),
        None => {
            let text = format!("expected a name for each {kind} in {scope:?}, one has none");
            Err(Error::InvalidFileDescriptorSet(text))
        }
    }
}
