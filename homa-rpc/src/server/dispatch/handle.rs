//! From a call to its answer: through layers, router and handler, or without HTTP where there are no layers.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::Pin;

use bytes::Bytes;
use http::response::Parts;

use super::super::overload::Overload;
use super::super::reply::Answer;
use super::super::router::{Route, Router};
use super::super::unary::Replying;
use crate::body::{self, Body, CallService, End, UnaryCall, UnaryReply, Whole};
use crate::message::BoxError;
use crate::message::limits::LENGTH_LIMIT;
use crate::message::status::Status;

/// Layers, router and handler, to the end of the response's body. `route` is the service of the call, if
/// that is known.
pub(super) async fn handle<S: CallService>(
    service: &S,
    route: Option<&Route>,
    call: UnaryCall,
    message_max: usize,
    overload: &Overload,
) -> Answer {
    // Without layers nobody wants to see HTTP.
    if let Some(router) = (service as &dyn Any).downcast_ref::<Router>() {
        return match router.serve(route, call) {
            Replying::Unary(replying) => replying.await.into(),
            Replying::Http(responding) => match read(responding.await, message_max) {
                Ok(answer) => answer,
                Err(reading) => reading.await,
            },
        };
    }
    let response = match respond(service, call.into_http(), overload).await {
        Ok(response) => response,
        Err(status) => return status.into(),
    };
    match read(response, message_max) {
        Ok(answer) => answer,
        Err(reading) => reading.await,
    }
}

/// Layers, router and handler, to the head of the response.
pub(super) async fn respond<S: CallService>(
    service: &S,
    request: http::Request<Body>,
    overload: &Overload,
) -> Result<http::Response<S::ResponseBody>, Status> {
    let mut service = service.clone();
    let failed = |error: S::CallError| {
        let error = error.into();
        overload.note_failure(&*error);
        Status::from_error(error).of_handler()
    };
    poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
    service.call(request).await.map_err(failed)
}

/// The answer that an HTTP response stands for, or the one that has to be waited for: boxed, since hardly
/// any has.
fn read<B>(response: http::Response<B>, message_max: usize) -> Result<Answer, Reading>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (parts, body) = response.into_parts();
    if parts.status != http::StatusCode::OK
        && let Some(status) = body::failure_in_parts(&parts)
    {
        return Ok(status.of_handler().into());
    }
    let finish = |parts, contents: Result<Whole, Status>| {
        let answer = contents.and_then(|whole| answer(parts, whole));
        answer.unwrap_or_else(|status| status.of_handler().into())
    };
    match body::take_or_read(body, message_max, LENGTH_LIMIT) {
        Ok((whole, _)) => Ok(finish(parts, Ok(whole))),
        Err(reading) => Err(Box::pin(async move {
            finish(parts, reading.await.map(|(whole, _)| whole))
        })),
    }
}

type Reading = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The answer that an HTTP response with these contents stands for.
fn answer(parts: Parts, whole: Whole) -> Result<Answer, Status> {
    match whole.end {
        // The status stands in the headers, which then are its metadata.
        End::Failed(status) if whole.message.is_none() => Ok(Answer {
            status: Some(body::reconcile(&parts.headers, status)),
            trailing: parts.headers,
            ..Answer::default()
        }),
        End::Request => Err(body::failure_in_parts(&parts)
            .unwrap_or_else(|| Status::unknown("the service's response ended without a status"))),
        _ => Ok(Answer::from(UnaryReply {
            headers: parts.headers,
            ..whole.into()
        })),
    }
}
