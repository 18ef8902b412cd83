//! A unary call without HTTP: what passes between stub and channel, and between dispatch and handler.
//!
//! HTTP types are made of these only where a foreign layer stands between the two, and taken apart again
//! behind it.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap};

use super::{Body, End, Whole, failed};
use crate::message::method::{CallInfo, MethodDescriptor};
use crate::message::status::Status;

/// A request: one message, and what travels beside it.
#[derive(Debug)]
pub struct UnaryCall {
    pub(crate) path: PathAndQuery,
    /// The metadata, as HTTP headers.
    pub(crate) headers: HeaderMap,
    /// What layers of this process have attached.
    pub(crate) extensions: Extensions,
    pub(crate) message: Bytes,
    pub(crate) info: CallInfo,
    /// Which of its service's methods it is for, if that was looked up already.
    pub(crate) method: Option<usize>,
}

impl UnaryCall {
    /// `/package.Service/Method`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.path()
    }

    /// Which of `methods`, those of the service that has this call, it is for.
    #[must_use]
    pub fn method_index(&self, methods: &[MethodDescriptor]) -> Option<usize> {
        self.method.or_else(|| {
            let path = self.path();
            methods.iter().position(|method| method.path() == path)
        })
    }

    /// The call that an HTTP request stands for.
    pub(crate) fn of_http(parts: Parts, message: Bytes, info: CallInfo) -> Self {
        let path = parts.uri.into_parts().path_and_query;
        Self {
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers: parts.headers,
            extensions: parts.extensions,
            message,
            info,
            method: None,
        }
    }

    /// The call as layers see it.
    pub(crate) fn into_http(self) -> http::Request<Body> {
        let mut body = Body::request(self.message);
        *body.info_mut() = self.info;
        let mut request = http_request(self.path, self.headers, body);
        *request.extensions_mut() = self.extensions;
        request
    }
}

/// The request of a call as layers see it.
pub(crate) fn http_request(
    path: PathAndQuery,
    headers: HeaderMap,
    body: Body,
) -> http::Request<Body> {
    let mut request = http::Request::new(body);
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = path.into();
    *request.headers_mut() = headers;
    request
}

/// A response: at most one message and how the call ended, and what travels beside it.
#[derive(Debug)]
pub struct UnaryReply {
    /// The metadata before the message, as HTTP headers.
    pub(crate) headers: HeaderMap,
    /// What the handler has attached for layers of its process.
    pub(crate) extensions: Extensions,
    pub(crate) whole: Whole,
    pub(crate) info: CallInfo,
}

impl From<Whole> for UnaryReply {
    fn from(whole: Whole) -> Self {
        Self {
            headers: HeaderMap::new(),
            extensions: Extensions::new(),
            whole,
            info: CallInfo::NONE,
        }
    }
}

impl From<Status> for UnaryReply {
    fn from(status: Status) -> Self {
        Whole {
            message: None,
            end: End::Failed(status.of_failure()),
        }
        .into()
    }
}

impl UnaryReply {
    /// The reply as layers see it.
    pub(crate) fn into_http(self) -> http::Response<Body> {
        let mut response = match self.whole {
            Whole {
                message: None,
                end: End::Failed(status),
            } => failed(status),
            whole => http::Response::new(Body::whole(whole)),
        };
        if response.headers().is_empty() {
            *response.headers_mut() = self.headers;
        } else {
            for (name, value) in &self.headers {
                // Fails over 32,768 entries; a frame has at most 1,024.
                let _full = response.headers_mut().try_append(name, value.clone());
            }
        }
        response.extensions_mut().extend(self.extensions);
        *response.body_mut().info_mut() = self.info;
        response
    }
}

/// The reply of a service, to be waited for.
pub type UnaryFuture = Pin<Box<dyn Future<Output = UnaryReply> + Send>>;
