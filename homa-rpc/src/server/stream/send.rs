//! From a handler's response to the frames of a call.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;

use super::Call;
use crate::body::{self, Body, End, Whole, prefix};
use crate::message::BoxError;
use crate::message::metadata::Metadata;
use crate::message::status::Status;
use crate::stream::server::Ending;
use crate::util::register;

/// A response's body is not asked for more while so many bytes wait to be sent.
pub(super) const UNSENT_MAX: usize = 65_536;

/// Sends a response, as fast as the client asks for it.
pub(in crate::server) async fn send<B>(call: &Arc<Call>, response: http::Response<B>)
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (parts, body) = response.into_parts();
    if let Some(status) = body::failure_in_parts(&parts) {
        return call.finish(status.of_handler().into());
    }
    let ending = match Body::new(body).into_whole() {
        Ok(whole) => write_whole(call, parts.headers, whole),
        Err(body) => {
            call.lock().machine.respond(parts.headers);
            write(call, body).await
        }
    };
    call.finish(ending.unwrap_or_else(|status| status.of_handler().into()));
}

/// Sends a response that is one message.
pub(in crate::server) fn send_message(
    call: &Arc<Call>,
    initial: HeaderMap,
    message: &Bytes,
    ending: Ending,
) {
    let written = write_message(call, initial, message).map(|()| ending);
    call.finish(written.unwrap_or_else(Into::into));
}

fn write_message(call: &Arc<Call>, initial: HeaderMap, message: &Bytes) -> Result<(), Status> {
    let prefix = prefix::write(message.len())?;
    let mut state = call.lock();
    state.machine.respond(initial);
    state.machine.write(Bytes::copy_from_slice(&prefix));
    state.machine.write(message.clone());
    Ok(())
}

fn write_whole(call: &Arc<Call>, headers: HeaderMap, whole: Whole) -> Result<Ending, Status> {
    let ending = match whole.end {
        // The status stands in the headers, which then are its metadata.
        End::Failed(status) if whole.message.is_none() => {
            return Ok(Ending {
                status: Some(body::reconcile(&headers, status)),
                trailing: headers,
            });
        }
        End::Failed(status) => status.into(),
        End::Ok(trailing) => Ending {
            trailing: trailing.map_or_else(HeaderMap::new, |trailing| trailing.into_headers()),
            status: None,
        },
        End::Request => return Err(without_status()),
    };
    match &whole.message {
        Some(message) => write_message(call, headers, message)?,
        None => call.lock().machine.respond(headers),
    }
    Ok(ending)
}

/// Writes a body to its end, and says how it ended.
async fn write(call: &Arc<Call>, body: Body) -> Result<Ending, Status> {
    let mut body = pin!(body);
    poll_fn(|cx| {
        loop {
            if call.lock().machine.unsent() >= UNSENT_MAX {
                call.flush();
                let mut state = call.lock();
                if state.machine.unsent() >= UNSENT_MAX {
                    register(&mut state.task, cx);
                    return Poll::Pending;
                }
            }
            let Poll::Ready(next) = body.as_mut().poll_frame(cx) else {
                call.flush();
                return Poll::Pending;
            };
            let Some(frame) = next.transpose()? else {
                return Poll::Ready(Err(without_status()));
            };
            match frame.into_data() {
                Ok(chunk) => call.lock().machine.write(chunk),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(ending(trailers));
                }
            }
        }
    })
    .await
}

/// How a response with these trailers ended.
fn ending(trailers: HeaderMap) -> Result<Ending, Status> {
    match body::read_status(&trailers) {
        Some(Ok(())) => Ok(Ending {
            trailing: Metadata::from_headers(trailers).into_headers(),
            status: None,
        }),
        Some(Err(status)) => Ok(status.into()),
        None => Err(without_status()),
    }
}

fn without_status() -> Status {
    Status::unknown("the service's response ended without a status")
}
