//! Typed calls over any service: what generated clients are made of.

use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use homa_transport::Delivery;
use http::Extensions;
use http::uri::PathAndQuery;

use super::channel::Channel;
use super::future::Carried;
use crate::body::{self, CallService, End, UnaryCall, UnaryReply};
use crate::call::context::CallContext;
use crate::call::deadline;
use crate::message::BoxError;
use crate::message::codec::Codec;
use crate::message::limits::{DECODING_LIMIT, MessageLimits};
use crate::message::metadata::Metadata;
use crate::message::method::{CallInfo, MethodDescriptor};
use crate::message::request::Request;
use crate::message::response::Response;
use crate::message::status::Status;
use crate::util::intern::{self, Cache};

thread_local! {
    /// Paths of methods that were called.
    static PATHS: RefCell<Cache<PathAndQuery>> = const { RefCell::new(Cache::new()) };
}

/// Makes typed calls over a [`CallService`]. Generated clients wrap one.
#[derive(Clone, Debug)]
pub struct Caller<T> {
    pub(super) service: T,
    pub(super) limits: MessageLimits,
}

impl<T> Caller<T> {
    /// A caller over `service`.
    #[must_use]
    pub fn new(service: T) -> Self {
        Self {
            service,
            limits: MessageLimits::default(),
        }
    }

    /// Limits the length of responses, in bytes. Default: 4 MiB.
    #[must_use]
    pub fn max_decoding_message_size(mut self, bytes: usize) -> Self {
        self.limits = self.limits.max_decoding_message_size(bytes);
        self
    }

    /// Limits the length of requests, in bytes. Default: what the transport carries.
    #[must_use]
    pub fn max_encoding_message_size(mut self, bytes: usize) -> Self {
        self.limits = self.limits.max_encoding_message_size(bytes);
        self
    }
}

impl<T: CallService> Caller<T> {
    /// Makes a unary call.
    ///
    /// The request's timeout starts with the first poll and is enforced here, outside all layers
    /// of the service. Dropping the future cancels the call.
    ///
    /// # Errors
    /// The status of the server, or one made here: DEADLINE_EXCEEDED, UNAVAILABLE if the server
    /// cannot be reached, RESOURCE_EXHAUSTED if a message is too long, INTERNAL if one cannot be
    /// read.
    pub fn unary<Req, Res, C>(
        &self,
        request: Request<Req>,
        method: &'static MethodDescriptor,
        codec: C,
    ) -> impl Future<Output = Result<Response<Res>, Status>> + Send + 'static + use<T, Req, Res, C>
    where
        C: Codec<Encode = Req, Decode = Res>,
        Req: Send + 'static,
        Res: Send + 'static,
    {
        let mut caller = self.clone();
        async move {
            let (call, message) = Prepared::new(request, method, caller.limits);
            // Apart, so that no field has two places in the future.
            let Prepared {
                metadata,
                extensions,
                limits,
                info,
                timeout,
            } = call;
            let call = pin!(CallContext::of(info).scope(async move {
                let encoded = limits.encode(&codec, message);
                let message = encoded.map_err(|status| status.with_delivery(Delivery::NotSent))?;
                let call = UnaryCall {
                    path: path(method)?,
                    headers: metadata.into_headers(),
                    extensions,
                    message,
                    info,
                    method: None,
                };
                let max = limits.decoding_max();
                let reply = if let Some(channel) = as_channel(&caller.service) {
                    // Without layers nobody wants to see HTTP.
                    match channel.carry(call).await? {
                        Carried::Whole(reply) => reply,
                        Carried::Streamed(response) => read(response, max).await?,
                    }
                } else {
                    call_http(&mut caller.service, call, max).await?
                };
                response(reply, limits, &codec)
            }));
            deadline::enforce(info.deadline, call, || expired(method, timeout)).await
        }
    }
}

/// What a request says of its call, besides the message.
pub(super) struct Prepared {
    pub(super) metadata: Metadata,
    pub(super) extensions: Extensions,
    pub(super) limits: MessageLimits,
    pub(super) info: CallInfo,
    /// The timeout of the call itself, if that is what counts.
    pub(super) timeout: Option<Duration>,
}

impl Prepared {
    /// Takes a request apart. Its time begins.
    pub(super) fn new<M>(
        request: Request<M>,
        method: &'static MethodDescriptor,
        limits: MessageLimits,
    ) -> (Self, M) {
        let (metadata, extensions, options, inherited, message) = request.into_call();
        let own = options.timeout.and_then(deadline::after);
        let outer = CallContext::current().deadline();
        let deadline = deadline::earliest([inherited.deadline, own, outer]);
        let prepared = Self {
            metadata,
            extensions,
            limits: limits.for_call(&options),
            info: CallInfo {
                peer: None,
                deadline,
                method: Some(method),
                idempotent: inherited.idempotent,
            },
            timeout: options.timeout.filter(|_| own == deadline),
        };
        (prepared, message)
    }
}

fn as_channel<T: 'static>(service: &T) -> Option<&Channel> {
    (service as &dyn Any).downcast_ref()
}

/// Makes a call as layers see it.
async fn call_http<T: CallService>(
    service: &mut T,
    call: UnaryCall,
    message_max: usize,
) -> Result<UnaryReply, Status> {
    let failed = |error: T::CallError| Status::from_error(error.into());
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    let responding = service.call(call.into_http());
    read(responding.await.map_err(failed)?, message_max).await
}

/// What an HTTP response says.
async fn read<B>(response: http::Response<B>, message_max: usize) -> Result<UnaryReply, Status>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (parts, body) = response.into_parts();
    if parts.status != http::StatusCode::OK
        && let Some(status) = body::failure_in_parts(&parts)
    {
        return Err(status);
    }
    let (whole, info) = match body::take_or_read(body, message_max, DECODING_LIMIT) {
        Ok(contents) => contents,
        Err(reading) => reading.await?,
    };
    match whole.end {
        End::Failed(status) if whole.message.is_none() => {
            Err(body::reconcile(&parts.headers, status))
        }
        // Not a response of ours, so the status can stand in the headers.
        End::Request => Err(body::failure_in_parts(&parts)
            .unwrap_or_else(|| Status::unknown("the response ended without a status"))),
        _ => Ok(UnaryReply {
            headers: parts.headers,
            extensions: parts.extensions,
            whole,
            info,
        }),
    }
}

/// What a reply says.
fn response<C: Codec>(
    reply: UnaryReply,
    limits: MessageLimits,
    codec: &C,
) -> Result<Response<C::Decode>, Status> {
    let trailing = match reply.whole.end {
        End::Failed(status) => return Err(status),
        End::Ok(trailing) => trailing,
        End::Request => return Err(Status::unknown("the response ended without a status")),
    };
    let Some(message) = reply.whole.message else {
        return Err(Status::unimplemented(
            "the response has no message, a unary call needs one",
        ));
    };
    limits.check_decoding(message.len())?;
    let message = codec.decode(message)?;
    let metadata = Metadata::from_headers(reply.headers);
    Ok(Response::of_call(
        metadata,
        trailing,
        reply.extensions,
        message,
    ))
}

pub(super) fn path(method: &'static MethodDescriptor) -> Result<PathAndQuery, Status> {
    let path = method.path();
    let parse = || PathAndQuery::from_maybe_shared(Bytes::from_static(path.as_bytes()));
    intern::intern(&PATHS, path.as_bytes(), parse).map_err(|error| {
        Status::internal(format!("method path {path:?}: {error}")).with_delivery(Delivery::NotSent)
    })
}

pub(super) fn expired(method: &MethodDescriptor, timeout: Option<Duration>) -> Status {
    let path = method.path();
    Status::deadline_exceeded(match timeout {
        Some(timeout) => {
            // One that was computed from a clock has nanoseconds, which nobody wants to read.
            let timeout = match timeout.as_millis() {
                0 => timeout,
                _ => Duration::from_micros(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX)),
            };
            format!("the call of {path} was not over within its timeout of {timeout:?}")
        }
        None => format!("the call of {path} was not over at the deadline of its caller"),
    })
}
