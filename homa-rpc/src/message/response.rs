//! [`Response`]: a message on its way back, with what travels beside it.

use http::Extensions;

use super::metadata::Metadata;

/// A response: message, metadata before it and metadata behind it.
#[derive(Clone, Debug)]
pub struct Response<T> {
    metadata: Metadata,
    trailing: Option<Box<Metadata>>,
    extensions: Extensions,
    message: T,
}

/// What the parts of a response have no place for.
#[derive(Clone)]
struct Trailing(Metadata);

impl<T> Response<T> {
    /// A response without metadata.
    #[must_use]
    pub fn new(message: T) -> Self {
        Self {
            metadata: Metadata::new(),
            trailing: None,
            extensions: Extensions::new(),
            message,
        }
    }

    /// The metadata before the message, the message, and the extensions. The metadata behind the message is
    /// kept in the extensions for [`from_parts`](Self::from_parts).
    #[must_use]
    pub fn into_parts(self) -> (Metadata, T, Extensions) {
        let mut extensions = self.extensions;
        if let Some(trailing) = self.trailing {
            extensions.insert(Trailing(*trailing));
        }
        (self.metadata, self.message, extensions)
    }

    /// The response of these parts, with what [`into_parts`](Self::into_parts) has kept in the extensions.
    #[must_use]
    pub fn from_parts(metadata: Metadata, message: T, extensions: Extensions) -> Self {
        let mut extensions = extensions;
        let trailing = extensions.remove::<Trailing>();
        Self {
            metadata,
            trailing: trailing.map(|Trailing(metadata)| Box::new(metadata)),
            extensions,
            message,
        }
    }

    pub(crate) fn of_call(
        metadata: Metadata,
        trailing: Option<Box<Metadata>>,
        extensions: Extensions,
        message: T,
    ) -> Self {
        Self {
            metadata,
            trailing,
            extensions,
            message,
        }
    }

    pub(crate) fn into_call(self) -> (Metadata, Option<Box<Metadata>>, Extensions, T) {
        (self.metadata, self.trailing, self.extensions, self.message)
    }

    /// The message.
    #[must_use]
    pub const fn get_ref(&self) -> &T {
        &self.message
    }

    /// The message, to be changed.
    #[must_use]
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.message
    }

    /// The message alone.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.message
    }

    /// The same with another message.
    #[must_use]
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Response<U> {
        Response {
            metadata: self.metadata,
            trailing: self.trailing,
            extensions: self.extensions,
            message: f(self.message),
        }
    }

    /// The metadata sent before the message (gRPC's initial metadata).
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The metadata sent before the message, to be changed.
    #[must_use]
    pub const fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// The metadata sent behind the message, if there is any.
    #[must_use]
    pub fn trailing_metadata(&self) -> Option<&Metadata> {
        self.trailing.as_deref()
    }

    /// The metadata sent behind the message, to be changed.
    #[must_use]
    pub fn trailing_metadata_mut(&mut self) -> &mut Metadata {
        self.trailing.get_or_insert_default()
    }

    /// Values that layers of this process attach; they are not sent.
    #[must_use]
    pub const fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Values that layers of this process attach; they are not sent.
    #[must_use]
    pub const fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }
}

impl<T> From<T> for Response<T> {
    fn from(message: T) -> Self {
        Self::new(message)
    }
}
