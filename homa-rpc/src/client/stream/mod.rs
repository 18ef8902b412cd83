//! Calls of several frames on a channel: a task drives each of them.
//!
//! ```text
//! request body ─► Driver ─► Homa RPCs ─► Driver ─► ClientCall ─► ResponseBody
//! ```

mod driver;
mod response;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use self::driver::Driver;
use self::response::ResponseBody;
use super::attempt::PreparedCall;
use super::resolver::Route;
use crate::body::{self, Body};
use crate::call::context::CallContext;
use crate::frame::Reply;
use crate::message::method::CallInfo;
use crate::message::status::Status;
use crate::stream::client::ClientCall;
use crate::util::register;

/// What the task that drives a call and the reader of its response share.
pub(super) struct Call {
    state: Mutex<State>,
    begun: Instant,
}

struct State {
    machine: ClientCall,
    /// The call is over, because of this.
    failed: Option<Status>,
    /// Nobody waits for the response any more.
    is_given_up: bool,
    reader: Option<Waker>,
    driver: Option<Waker>,
}

impl Call {
    fn new(machine: ClientCall) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                machine,
                failed: None,
                is_given_up: false,
                reader: None,
                driver: None,
            }),
            begun: Instant::now(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the call began.
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Nobody waits for the response any more.
    fn give_up(&self) {
        let mut state = self.lock();
        state.is_given_up = true;
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// Begins a call whose request is `body`. `is_single` if there is one message each way.
pub(super) async fn open(
    prepared: PreparedCall,
    body: Body,
    is_single: bool,
) -> Result<http::Response<Body>, Status> {
    let resolver = &prepared.channel.resolver;
    let route = match resolver.now()? {
        Some(route) => route,
        None => resolver.look_up().await?,
    };
    let peer = route.peer;
    let (call, driver) = Driver::begin(prepared, route, body, is_single)?;
    Opening::start(call, driver, peer)?.await
}

/// Goes on with a call that was whole in its CALL frame, by `route`, and of whose response the first reply has
/// come.
pub(super) async fn resume(
    prepared: PreparedCall,
    route: Route,
    call_id: u64,
    first: Reply,
) -> Result<http::Response<Body>, Status> {
    let peer = route.peer;
    let (call, driver) = Driver::resume(prepared, route, call_id, first)?;
    Opening::start(call, driver, peer)?.await
}

/// Waits for the initial metadata. Dropped before, it gives the call up.
struct Opening {
    call: Option<Arc<Call>>,
    info: CallInfo,
}

impl Opening {
    fn start(call: Arc<Call>, mut driver: Driver, peer: SocketAddr) -> Result<Self, Status> {
        let home = driver.home()?;
        let context = CallContext::current();
        home.spawn(context.scope(async move { driver.run().await }));
        Ok(Self {
            call: Some(call),
            info: CallInfo {
                peer: Some(peer),
                ..CallInfo::NONE
            },
        })
    }
}

impl Future for Opening {
    type Output = Result<http::Response<Body>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &self.call else {
            return Poll::Ready(Err(Status::internal("a call was polled after its end")));
        };
        let mut state = call.lock();
        if let Some(status) = &state.failed {
            let status = status.clone();
            drop(state);
            self.call = None;
            return Poll::Ready(Err(status));
        }
        let Some(headers) = state.machine.headers() else {
            register(&mut state.reader, cx);
            return Poll::Pending;
        };
        let failed = match state.machine.outcome() {
            Some(outcome) if !state.machine.has_ready() => outcome.status.clone(),
            _ => None,
        };
        drop(state);
        let body = ResponseBody::new(Arc::clone(call));
        self.call = None;
        Poll::Ready(Ok(match failed {
            // The body gives up nothing: the call is over.
            Some(status) => without_items(headers, status, self.info),
            None => response(headers, body, self.info),
        }))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.give_up();
        }
    }
}

fn response(headers: HeaderMap, body: ResponseBody, info: CallInfo) -> http::Response<Body> {
    let mut body = Body::new(body);
    *body.info_mut() = info;
    let mut response = http::Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// The response of a call that failed before there was a message.
fn without_items(headers: HeaderMap, status: Status, info: CallInfo) -> http::Response<Body> {
    let mut response = body::failed(status);
    for (name, value) in &headers {
        // Fails over 32,768 entries; a frame has at most 1,024.
        let _full = response.headers_mut().try_append(name, value.clone());
    }
    *response.body_mut().info_mut() = info;
    response
}
