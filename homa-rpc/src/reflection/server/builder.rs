//! [`Builder`]: what a reflection service is to know.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use prost_types::FileDescriptorSet;

use super::answer::Knowledge;
use super::error::Error;
use super::index::Index;
use super::{v1, v1alpha};
use crate::reflection::pb;

/// What a reflection service is to know. See [`reflection`](crate::reflection).
#[derive(Clone, Debug)]
#[must_use = "there is no service before `build_v1` or `build_v1alpha` is called"]
pub struct Builder<'b> {
    encoded_sets: Vec<Cow<'b, [u8]>>,
    include_reflection_service: bool,
    /// `None`: all that are in the sets.
    service_names: Option<Vec<String>>,
}

impl<'b> Builder<'b> {
    /// A service that knows of itself only.
    pub const fn configure() -> Self {
        Self {
            encoded_sets: Vec::new(),
            include_reflection_service: true,
            service_names: None,
        }
    }

    /// Adds the files of a set. Custom options, which `prost_types` does not keep, are lost.
    pub fn register_file_descriptor_set(mut self, set: FileDescriptorSet) -> Self {
        self.encoded_sets.push(set.encode_to_vec().into());
        self
    }

    /// Adds the files of an encoded set. Files that are there already, by their names, are left out.
    pub fn register_encoded_file_descriptor_set(mut self, encoded: &'b [u8]) -> Self {
        self.encoded_sets.push(encoded.into());
        self
    }

    /// Whether the reflection service itself is known. Default: yes.
    pub const fn include_reflection_service(mut self, include: bool) -> Self {
        self.include_reflection_service = include;
        self
    }

    /// Lists this service, given by its full name. Default: all services of the files are listed; if any is
    /// named, only those named.
    pub fn with_service_name(mut self, name: impl Into<String>) -> Self {
        self.service_names.get_or_insert_default().push(name.into());
        self
    }

    /// The service `grpc.reflection.v1.ServerReflection`.
    ///
    /// # Errors
    /// If a set cannot be decoded, something in it has no name, or two files of the same name declare
    /// different services.
    pub fn build_v1(self) -> Result<v1::ServerReflectionServer<v1::ReflectionService>, Error> {
        let known = self.know(pb::v1::FILE_DESCRIPTOR_SET)?;
        let service = v1::ReflectionService::new(known);
        Ok(v1::ServerReflectionServer::new(service))
    }

    /// The service `grpc.reflection.v1alpha.ServerReflection`.
    ///
    /// # Errors
    /// As [`build_v1`](Self::build_v1).
    pub fn build_v1alpha(
        self,
    ) -> Result<v1alpha::ServerReflectionServer<v1alpha::ReflectionService>, Error> {
        let known = self.know(pb::v1alpha::FILE_DESCRIPTOR_SET)?;
        let service = v1alpha::ReflectionService::new(known);
        Ok(v1alpha::ServerReflectionServer::new(service))
    }

    fn know(self, itself: &'static [u8]) -> Result<Arc<Knowledge>, Error> {
        let mut index = Index::default();
        for set in self.encoded_sets {
            index.add_set(set.into_owned().into())?;
        }
        if self.include_reflection_service {
            index.add_set(Bytes::from_static(itself))?;
        }
        let all = || index.services().to_vec();
        let services = self.service_names.unwrap_or_else(all);
        Ok(Arc::new(Knowledge { index, services }))
    }
}
