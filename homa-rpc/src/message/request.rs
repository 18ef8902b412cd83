//! [`Request`]: a message on its way to a server, with what travels beside it.

use std::net::SocketAddr;
use std::time::Duration;

use futures_core::Stream;
use http::Extensions;
use tokio::time::Instant;

use super::metadata::Metadata;
use super::method::{CallInfo, MethodDescriptor};

/// A request: message, metadata, time limit.
#[derive(Clone, Debug)]
pub struct Request<T> {
    metadata: Metadata,
    extensions: Extensions,
    options: CallOptions,
    info: CallInfo,
    message: T,
}

/// What the parts of a request have no place for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept(CallOptions, CallInfo);

/// What is set for one call alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_decoding_message_size: Option<usize>,
    pub(crate) max_encoding_message_size: Option<usize>,
}

impl<T> Request<T> {
    /// A request without metadata or time limit.
    #[must_use]
    pub fn new(message: T) -> Self {
        Self {
            metadata: Metadata::new(),
            extensions: Extensions::new(),
            options: CallOptions::default(),
            info: CallInfo::default(),
            message,
        }
    }

    /// The metadata, the extensions and the message. What was set for this call alone, such as its timeout,
    /// and what is known of it, is kept in the extensions for [`from_parts`](Self::from_parts).
    #[must_use]
    pub fn into_parts(self) -> (Metadata, Extensions, T) {
        let mut extensions = self.extensions;
        let kept = Kept(self.options, self.info);
        if kept != Kept::default() {
            extensions.insert(kept);
        }
        (self.metadata, extensions, self.message)
    }

    /// The request of these parts, with what [`into_parts`](Self::into_parts) has kept in the extensions.
    #[must_use]
    pub fn from_parts(metadata: Metadata, extensions: Extensions, message: T) -> Self {
        let mut extensions = extensions;
        let Kept(options, info) = extensions.remove().unwrap_or_default();
        Self {
            metadata,
            extensions,
            options,
            info,
            message,
        }
    }

    pub(crate) fn of_call(
        metadata: Metadata,
        extensions: Extensions,
        info: CallInfo,
        message: T,
    ) -> Self {
        Self {
            metadata,
            extensions,
            options: CallOptions::default(),
            info,
            message,
        }
    }

    pub(crate) fn into_call(self) -> (Metadata, Extensions, CallOptions, CallInfo, T) {
        (
            self.metadata,
            self.extensions,
            self.options,
            self.info,
            self.message,
        )
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
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Request<U> {
        Request {
            metadata: self.metadata,
            extensions: self.extensions,
            options: self.options,
            info: self.info,
            message: f(self.message),
        }
    }

    /// The metadata.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The metadata, to be changed.
    #[must_use]
    pub const fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
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

    /// Limits the time of the whole call, from the moment it is first polled. Retries and their
    /// pauses count. The server learns what is left of it.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.options.timeout = Some(timeout);
    }

    /// The limit of [`set_timeout`](Self::set_timeout), on the client.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        self.options.timeout
    }

    /// Limits the length of the response to this call, in bytes, in place of the client's limit.
    pub const fn set_max_decoding_message_size(&mut self, bytes: usize) {
        self.options.max_decoding_message_size = Some(bytes);
    }

    /// Limits the length of this request, in bytes, in place of the client's limit.
    pub const fn set_max_encoding_message_size(&mut self, bytes: usize) {
        self.options.max_encoding_message_size = Some(bytes);
    }

    /// Says that this call may be executed more than once, or must not, whatever the definition of the
    /// method says. For layers that retry; they find it in [`CallInfo::idempotent`].
    pub const fn set_idempotent(&mut self, idempotent: bool) {
        self.info.idempotent = Some(idempotent);
    }

    /// The method called, on the server. `None` if the service doesn't name its
    /// [methods](crate::server::NamedService::METHODS), or behind a layer that wraps the body.
    #[must_use]
    pub const fn method(&self) -> Option<&'static MethodDescriptor> {
        self.info.method
    }

    /// When the caller stops waiting, on the server.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.info.deadline
    }

    /// Address of the client, on the server. `None` if it is not known: on the client, or behind a
    /// layer that wraps the body.
    #[must_use]
    pub const fn remote_addr(&self) -> Option<SocketAddr> {
        self.info.peer
    }
}

/// What a generated method takes: a message or a [`Request`] around it.
pub trait IntoRequest<T>: sealed::Sealed {
    /// The request.
    fn into_request(self) -> Request<T>;
}

impl<T> IntoRequest<T> for T {
    fn into_request(self) -> Request<T> {
        Request::new(self)
    }
}

impl<T> IntoRequest<T> for Request<T> {
    fn into_request(self) -> Self {
        self
    }
}

/// What a generated method with a stream of requests takes: a stream of messages or a [`Request`] around one.
pub trait IntoStreamingRequest: sealed::Sealed {
    /// The stream.
    type Stream: Stream<Item = Self::Message> + Send + 'static;
    /// What it is of.
    type Message;

    /// The request.
    fn into_streaming_request(self) -> Request<Self::Stream>;
}

impl<S: Stream + Send + 'static> IntoStreamingRequest for S {
    type Stream = S;
    type Message = S::Item;

    fn into_streaming_request(self) -> Request<S> {
        Request::new(self)
    }
}

impl<S: Stream + Send + 'static> IntoStreamingRequest for Request<S> {
    type Stream = S;
    type Message = S::Item;

    fn into_streaming_request(self) -> Self {
        self
    }
}

mod sealed {
    #[expect(unnameable_types, reason = "nobody else is to implement these traits")]
    pub trait Sealed {}
    impl<T> Sealed for T {}
}
