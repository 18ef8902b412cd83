//! What is known of a call besides its message: the method, the peer, the deadline.

use std::net::SocketAddr;

use tokio::time::Instant;

/// Names of a method, as generated code knows them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MethodDescriptor {
    service: &'static str,
    method: &'static str,
    path: &'static str,
    kind: MethodKind,
    idempotency: Idempotency,
}

/// How many messages pass each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// One request, one response.
    #[default]
    Unary,
    /// A stream of requests, one response.
    ClientStreaming,
    /// One request, a stream of responses.
    ServerStreaming,
    /// A stream each way.
    BidiStreaming,
}

impl MethodKind {
    /// Whether the request is a stream of messages.
    #[must_use]
    pub const fn client_streams(self) -> bool {
        matches!(self, Self::ClientStreaming | Self::BidiStreaming)
    }

    /// Whether the response is a stream of messages.
    #[must_use]
    pub const fn server_streams(self) -> bool {
        matches!(self, Self::ServerStreaming | Self::BidiStreaming)
    }
}

/// What the definition of a method says about calling it more than once: the option
/// `idempotency_level` in the `.proto` file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Idempotency {
    /// Nothing is said: a second execution may do harm.
    #[default]
    Unknown,
    /// The method only reads (`NO_SIDE_EFFECTS`).
    NoSideEffects,
    /// Several executions do what one does (`IDEMPOTENT`).
    Idempotent,
}

impl Idempotency {
    /// Whether the method can be called again when it is unknown if the first call was executed.
    #[must_use]
    pub const fn is_safe_to_repeat(self) -> bool {
        matches!(self, Self::NoSideEffects | Self::Idempotent)
    }
}

impl MethodDescriptor {
    /// A unary method. `path` is `/service/method`.
    #[must_use]
    pub const fn unary(service: &'static str, method: &'static str, path: &'static str) -> Self {
        Self {
            service,
            method,
            path,
            kind: MethodKind::Unary,
            idempotency: Idempotency::Unknown,
        }
    }

    /// A method with a stream of requests and one response. `path` is `/service/method`.
    #[must_use]
    pub const fn client_streaming(
        service: &'static str,
        method: &'static str,
        path: &'static str,
    ) -> Self {
        let kind = MethodKind::ClientStreaming;
        Self {
            kind,
            ..Self::unary(service, method, path)
        }
    }

    /// A method with one request and a stream of responses. `path` is `/service/method`.
    #[must_use]
    pub const fn server_streaming(
        service: &'static str,
        method: &'static str,
        path: &'static str,
    ) -> Self {
        let kind = MethodKind::ServerStreaming;
        Self {
            kind,
            ..Self::unary(service, method, path)
        }
    }

    /// A method with a stream each way. `path` is `/service/method`.
    #[must_use]
    pub const fn bidi_streaming(
        service: &'static str,
        method: &'static str,
        path: &'static str,
    ) -> Self {
        let kind = MethodKind::BidiStreaming;
        Self {
            kind,
            ..Self::unary(service, method, path)
        }
    }

    /// The same with what its definition says about calling it more than once.
    #[must_use]
    pub const fn with_idempotency(mut self, idempotency: Idempotency) -> Self {
        self.idempotency = idempotency;
        self
    }

    /// Full name of the service, `package.Service`.
    #[must_use]
    pub const fn service(&self) -> &'static str {
        self.service
    }

    /// Name of the method, without the service.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        self.method
    }

    /// `/package.Service/Method`.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// How many messages pass each way.
    #[must_use]
    pub const fn kind(&self) -> MethodKind {
        self.kind
    }

    /// One request, one response.
    pub(crate) const fn is_unary(&self) -> bool {
        matches!(self.kind, MethodKind::Unary)
    }

    /// What the definition says about calling it more than once.
    #[must_use]
    pub const fn idempotency(&self) -> Idempotency {
        self.idempotency
    }
}

/// What is known of a call, carried inside [`Body`](crate::Body) so that it costs no allocation.
///
/// A layer that wraps the body in a type of its own hides this from those behind it. They know it
/// all the same while they run in the task of the call. Behind a layer that hands requests to another
/// task, such as tower's `Buffer`, it is lost if both come together: the server then doesn't learn the
/// deadline (the client still enforces it), the handler not the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallInfo {
    /// The other side, if known: on a server the client.
    pub peer: Option<SocketAddr>,
    /// When the call must be over.
    pub deadline: Option<Instant>,
    /// The method called, if it is known: on a server, from the service's
    /// [`METHODS`](crate::server::NamedService::METHODS).
    pub method: Option<&'static MethodDescriptor>,
    /// What the caller says of this one call, on the client: whether it may be executed more than
    /// once. `None`: nothing.
    pub idempotent: Option<bool>,
}

impl CallInfo {
    /// Nothing known.
    pub(crate) const NONE: Self = Self {
        peer: None,
        deadline: None,
        method: None,
        idempotent: None,
    };
}
