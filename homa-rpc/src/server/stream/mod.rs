//! Calls of several frames at a server.
//!
//! ```text
//! accept ─► Calls (by client and call id) ─► Call ─► RequestBody ─► handler
//! client ◄─ replies ◄─ Call ◄─ send (polls the response's body) ◄─ handler
//! ```

mod calls;
mod pending;
mod request;
mod send;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::reply::PendingReply;
use crate::frame::Part;
use crate::message::status::Status;
use crate::stream::StreamError;
use crate::stream::server::{Ending, First, Overdue, ServerCall};
use crate::util::register;

pub(super) use calls::{Calls, Registered};
pub(super) use request::RequestBody;
pub(super) use send::{send, send_message};

/// Requests up to this length, in bytes, are bounded by their number alone.
const SHORT_MAX: usize = 4096;

/// A call of several frames. The driver of the socket brings its frames, a task of its own runs the handler.
pub(super) struct Call {
    state: Mutex<State>,
    begun: Instant,
    peer: SocketAddr,
    call_id: u64,
    calls: Arc<Calls>,
}

struct State {
    machine: ServerCall<PendingReply>,
    /// The client broke the rules, or the response cannot be sent.
    failed: Option<Status>,
    /// The request was broken off: against the rules, by a standstill, or for want of room.
    is_broken: bool,
    /// The client is being told how the call failed.
    is_aborted: bool,
    /// The right to answer a frame may have been given up.
    may_be_gone: bool,
    /// Bytes of the request that were last said to be held.
    held: usize,
    /// Nobody takes frames of this call any more.
    is_closed: bool,
    reader: Option<Waker>,
    task: Option<Waker>,
}

/// Why a handler is not wanted any more.
pub(super) enum Gone {
    /// The client has given the call up, or is gone.
    Client,
    /// Because of this.
    Failed(Status),
}

impl Gone {
    /// What is to be told to the client, if it is there.
    pub(super) fn into_status(self) -> Option<Status> {
        match self {
            Self::Client => None,
            Self::Failed(status) => Some(status),
        }
    }
}

impl Call {
    /// A call whose CALL frame has come.
    pub(super) fn open(
        calls: &Arc<Calls>,
        peer: SocketAddr,
        first: First,
        reply: PendingReply,
    ) -> Result<Arc<Self>, (StreamError, PendingReply)> {
        let (content_max, call_id) = (content_max(&reply), reply.call_id());
        let machine = ServerCall::open(first, reply, content_max)?;
        Ok(Self::of(calls, peer, call_id, machine))
    }

    /// A call of one frame whose response needs several.
    pub(super) fn responding(
        calls: &Arc<Calls>,
        peer: SocketAddr,
        reply: PendingReply,
    ) -> Arc<Self> {
        let (content_max, call_id) = (content_max(&reply), reply.call_id());
        let machine = ServerCall::responding(reply, content_max);
        Self::of(calls, peer, call_id, machine)
    }

    fn of(
        calls: &Arc<Calls>,
        peer: SocketAddr,
        call_id: u64,
        machine: ServerCall<PendingReply>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                machine,
                failed: None,
                is_broken: false,
                is_aborted: false,
                may_be_gone: true,
                held: 0,
                is_closed: false,
                reader: None,
                task: None,
            }),
            begun: Instant::now(),
            peer,
            call_id,
            calls: Arc::clone(calls),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the call began.
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A frame behind the CALL has come. Runs in the driver of the socket.
    pub(super) fn handle(self: &Arc<Self>, part: Part, reply: PendingReply) {
        let waker = Waker::from(Arc::clone(self));
        if part.is_pull
            && let Some(responder) = reply.responder()
            && responder
                .poll_cancelled(&mut Context::from_waker(&waker))
                .is_ready()
        {
            // The client is gone, or has given the call up.
            self.wake_by_ref();
        }
        let now = self.now();
        let mut state = self.lock();
        let due = state.machine.next_timeout();
        let handled = state.machine.handle(now, part, reply);
        let is_sooner = state.machine.next_timeout() < due;
        let task = (handled.is_err() || is_sooner)
            .then(|| state.task.take())
            .flatten();
        if let Err(error) = handled {
            tracing::debug!(%error, "a frame of a call was refused");
            state.failed.get_or_insert(error.into());
            state.is_broken = true;
        }
        let has_news = state.machine.has_ready() || state.machine.is_read();
        let reader = if has_news { state.reader.take() } else { None };
        drop(state);
        self.count_bytes();
        self.flush();
        wake([reader, task]);
    }

    /// Says how many bytes of the request are held, if that has changed by much.
    pub(super) fn count_bytes(&self) {
        let mut state = self.lock();
        let (held, total) = state.machine.held();
        let held = if held > SHORT_MAX { held } else { 0 };
        if std::mem::replace(&mut state.held, held) == held || state.is_closed {
            return;
        }
        // Under the lock, so that nothing is held for a call that is closed.
        let without_room = self.calls.hold((self.peer, self.call_id), held, total);
        drop(state);
        self.calls.end(without_room);
    }

    /// There is no room for the request.
    pub(super) fn run_out_of_room(&self) {
        let status = Status::resource_exhausted(
            "the server has no room for the request beside others (`request_bytes_limit`)",
        );
        let mut state = self.lock();
        state.failed.get_or_insert(status);
        state.is_broken = true;
        state.machine.discard();
        let wakers = [state.reader.take(), state.task.take()];
        drop(state);
        wake(wakers);
    }

    /// Sends the replies that are due.
    pub(super) fn flush(&self) {
        loop {
            let now = self.now();
            let mut state = self.lock();
            let was = state.machine.unsent();
            let reply = match state.machine.poll_reply(now) {
                Ok(Some(reply)) => reply,
                Ok(None) => return,
                Err(error) => {
                    state.machine.abort(error.into());
                    continue;
                }
            };
            let is_over = state.machine.is_over();
            let has_room = was >= send::UNSENT_MAX && state.machine.unsent() < send::UNSENT_MAX;
            let task = (is_over || has_room).then(|| state.task.take()).flatten();
            drop(state);
            wake([task]);
            if let Err(status) = PendingReply::send_part(reply) {
                let mut state = self.lock();
                state.failed.get_or_insert(status);
                state.machine.on_failure_told();
                let task = state.task.take();
                drop(state);
                wake([task]);
            }
        }
    }

    /// The response is over once what was written is sent.
    pub(super) fn finish(&self, ending: Ending) {
        self.lock().machine.finish(ending);
        self.flush();
    }

    /// The call is over, whatever is unsent.
    pub(super) fn abort(&self, status: Status) {
        let mut state = self.lock();
        state.is_aborted = true;
        state.machine.abort(status);
        drop(state);
        self.flush();
    }

    /// Ready when the handler is not wanted any more. Notes whom to wake for anything that concerns the call.
    pub(super) fn poll_gone(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Gone> {
        let mut state = self.lock();
        register(&mut state.task, cx);
        if let Some(status) = &state.failed
            && !state.is_aborted
        {
            return Poll::Ready(Gone::Failed(status.clone()));
        }
        if std::mem::take(&mut state.may_be_gone) {
            let waker = Waker::from(Arc::clone(self));
            let mut cx = Context::from_waker(&waker);
            let mut parked = state.machine.parked();
            let is_gone = parked.any(|reply| {
                let responder = reply.responder();
                responder.is_some_and(|responder| responder.poll_cancelled(&mut cx).is_ready())
            });
            if is_gone {
                return Poll::Ready(Gone::Client);
            }
        }
        Poll::Pending
    }

    /// When to call [`on_time`](Self::on_time) if nothing happens before.
    pub(super) fn next_timeout(&self) -> Instant {
        self.begun + self.lock().machine.next_timeout()
    }

    /// Does what is due. Some if the client is not there any more, or goes on with nothing.
    pub(super) fn on_time(&self) -> Option<Gone> {
        let now = self.now();
        let mut state = self.lock();
        let overdue = state.machine.overdue(now);
        let responder = state.machine.parked().find_map(PendingReply::responder);
        let is_receiving = responder.is_some_and(|by| by.receiving_from(self.peer));
        if overdue.is_some() && is_receiving {
            state.machine.on_receiving(now);
            return None;
        }
        state.is_broken |= overdue == Some(Overdue::Standstill);
        drop(state);
        match overdue {
            Some(Overdue::ClientGone) => Some(Gone::Client),
            Some(Overdue::Standstill) => Some(Gone::Failed(Status::deadline_exceeded(
                "a message stopped coming: nothing of it came for 10 seconds",
            ))),
            None => {
                self.flush();
                None
            }
        }
    }

    /// The request was broken off: against the rules, by a standstill, or for want of room.
    pub(super) fn is_broken(&self) -> bool {
        self.lock().is_broken
    }

    /// Ready when how the call ended is on its way.
    pub(super) fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.machine.is_over() {
            return Poll::Ready(());
        }
        register(&mut state.task, cx);
        Poll::Pending
    }

    /// Nobody takes or answers frames of this call any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        let is_over = Status::cancelled("the call is over");
        state.failed.get_or_insert(is_over);
        state.is_closed = true;
        let reader = state.reader.take();
        let parked = state.machine.take_parked();
        drop(state);
        wake([reader]);
        for reply in parked {
            reply.abandon();
        }
    }
}

impl Wake for Call {
    /// The right to answer a frame may have been given up.
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.lock();
        state.may_be_gone = true;
        let task = state.task.take();
        drop(state);
        wake([task]);
    }
}

fn wake<const N: usize>(wakers: [Option<Waker>; N]) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// Bytes of content in a reply; the rest is for metadata and status.
fn content_max(reply: &PendingReply) -> usize {
    let responder = reply.responder();
    responder.map_or(usize::MAX, homa_transport::Responder::message_bytes_max) / 2
}
