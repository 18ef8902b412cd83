//! Drives a call of several frames: one Homa RPC per frame.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use homa_transport::{Delivery, Message, RpcError, Transport, transport};
use http_body::Body as _;
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep_until};

use super::Call;
use crate::body::Body;
use crate::call::deadline::Timer;
use crate::client::attempt::{CancelFrame, PreparedCall, next_call_id, read_reply};
use crate::client::resolver::{ADDRESSES_MAX, Route};
use crate::frame::{self, CallHead, Kind, PartHead, Reply};
use crate::message::status::Status;
use crate::stream::client::{ClientCall, ClientFrame};
use crate::util::register;

/// The request body is not asked for more while so many bytes wait to be sent.
const UNSENT_MAX: usize = 65_536;
/// After the end of a call its last frames may still be answered for so long.
const LINGER: Duration = Duration::from_secs(1);
/// A frame and what became of its RPC.
type Answered = (ClientFrame, Result<Bytes, RpcError>);
type Answering = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// What a poll of the driver has come to.
enum Step {
    Done,
    /// The CALL did not get there: it can go to another address.
    Reroute(ClientFrame),
}

/// The task of one call.
pub(super) struct Driver {
    call: Arc<Call>,
    prepared: PreparedCall,
    route: Route,
    socket: Arc<dyn Transport>,
    call_id: u64,
    is_single: bool,
    /// The request, until it has ended.
    body: Option<Pin<Box<Body>>>,
    rpcs: FuturesUnordered<Answering>,
    /// Sends a CANCEL when the call is given up.
    cancel: Option<CancelFrame>,
    deadline: Option<Pin<Box<Timer>>>,
    /// For what the state machine waits for.
    wait: Option<Pin<Box<Sleep>>>,
    attempts: usize,
    /// The application has had its turn since a pull became due.
    has_yielded: bool,
}

impl Driver {
    /// The driver of a call that sends `body`.
    pub(super) fn begin(
        prepared: PreparedCall,
        route: Route,
        body: Body,
        is_single: bool,
    ) -> Result<(Arc<Call>, Self), Status> {
        // The other half is for the metadata.
        let content_max = route.socket.message_bytes_max() / 2;
        let call = Call::new(ClientCall::new(content_max));
        let mut driver = Self::new(Arc::clone(&call), prepared, route, next_call_id());
        driver.is_single = is_single;
        driver.body = Some(Box::pin(body));
        Ok((call, driver))
    }

    /// The driver of a call of which the first reply has come.
    pub(super) fn resume(
        prepared: PreparedCall,
        route: Route,
        call_id: u64,
        first: Reply,
    ) -> Result<(Arc<Call>, Self), Status> {
        let call = Call::new(ClientCall::continued(1, first)?);
        let driver = Self::new(Arc::clone(&call), prepared, route, call_id);
        Ok((call, driver))
    }

    fn new(call: Arc<Call>, prepared: PreparedCall, route: Route, call_id: u64) -> Self {
        let deadline = prepared.deadline.map(|at| Box::pin(Timer::new(at)));
        Self {
            call,
            socket: transport::pinned(&route.socket, route.peer),
            prepared,
            route,
            call_id,
            is_single: true,
            body: None,
            rpcs: FuturesUnordered::new(),
            cancel: None,
            deadline,
            wait: None,
            attempts: 0,
            has_yielded: false,
        }
    }

    pub(super) fn home(&self) -> Result<Handle, Status> {
        self.prepared.channel.resolver.home().cloned()
    }

    /// Drives the call to its end.
    pub(super) async fn run(&mut self) {
        if self.body.is_none() {
            // The server has the call already.
            self.arm_cancel();
        }
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Step::Done => break,
                Step::Reroute(frame) => self.reroute(frame).await,
            }
        }
        // The rest of the request is of no use to anybody.
        self.body = None;
        let mut linger = pin!(tokio::time::sleep(LINGER));
        poll_fn(|cx| {
            while let Poll::Ready(Some(_)) = self.rpcs.poll_next_unpin(cx) {}
            match self.rpcs.is_empty() {
                true => Poll::Ready(()),
                false => linger.as_mut().poll(cx),
            }
        })
        .await;
    }

    /// From now on the server has to be told when the call is given up.
    fn arm_cancel(&mut self) {
        if let Ok(home) = self.home() {
            let checksums = self.prepared.channel.checksums;
            let (peer, call_id) = (self.route.peer, self.call_id);
            let cancel = CancelFrame::new(home, &self.socket, peer, call_id, checksums);
            self.cancel.insert(cancel).arm(true);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            register(&mut self.call.lock().driver, cx);
            while let Poll::Ready(Some((frame, result))) = self.rpcs.poll_next_unpin(cx) {
                if let Some(step) = self.on_answer(frame, result) {
                    return Poll::Ready(step);
                }
            }
            if let Err(status) = self.read_request(cx) {
                return Poll::Ready(self.fail(status));
            }
            match self.transmit() {
                // An RPC is sent by its first poll.
                Ok(true) => continue,
                Ok(false) => {}
                Err(status) => return Poll::Ready(self.fail(status)),
            }
            if let Some(step) = self.tell_reader() {
                return Poll::Ready(step);
            }
            if !self.wait_for_turn(cx) {
                break;
            }
        }
        self.poll_timers(cx)
    }

    /// Takes an answer to a frame.
    fn on_answer(&mut self, frame: ClientFrame, result: Result<Bytes, RpcError>) -> Option<Step> {
        let kind = frame.kind;
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => return self.on_failure(frame, error),
        };
        let reply = match read_reply(reply, kind, self.call_id, self.route.peer) {
            Ok(reply) => reply,
            Err(status) => return Some(self.fail(status)),
        };
        if kind == Kind::Call {
            self.prepared.channel.resolver.worked(&self.route);
        }
        self.has_yielded = false;
        let now = self.call.now();
        let handled = self.call.lock().machine.handle(now, frame, reply);
        handled.err().map(|status| self.fail(status))
    }

    fn on_failure(&mut self, frame: ClientFrame, error: RpcError) -> Option<Step> {
        if self.call.lock().machine.is_over() {
            return None;
        }
        let channel = &self.prepared.channel;
        let more = channel.resolver.failed(&self.route, &error);
        let safe = error.delivery() == Delivery::NotSent && frame.kind == Kind::Call;
        if more && safe && self.attempts < ADDRESSES_MAX {
            return Some(Step::Reroute(frame));
        }
        let mut status = channel.failure(error);
        if frame.kind != Kind::Call {
            // What came before may have been executed.
            status = status.with_delivery(Delivery::Unknown);
        }
        // A server that cannot be reached cannot be told either.
        self.disarm();
        Some(self.fail(status))
    }

    fn disarm(&mut self) {
        if let Some(cancel) = &mut self.cancel {
            cancel.arm(false);
        }
    }

    /// Goes to another address of the host with a CALL that provably did not get there.
    async fn reroute(&mut self, frame: ClientFrame) {
        self.disarm();
        let resolver = &self.prepared.channel.resolver;
        let route = match resolver.now() {
            Ok(Some(route)) => Ok(route),
            Ok(None) => resolver.look_up().await,
            Err(status) => Err(status),
        };
        match route {
            Ok(route) => {
                self.socket = transport::pinned(&route.socket, route.peer);
                self.route = route;
                self.call_id = next_call_id();
                if let Err(status) = self.send(frame) {
                    self.fail(status);
                }
            }
            Err(status) => {
                self.fail(status);
            }
        }
    }

    fn has_room(&self) -> bool {
        self.call.lock().machine.unsent() < UNSENT_MAX
    }

    /// Takes what the request body has, as long as there is room for it.
    fn read_request(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        while self.has_room() {
            let Some(body) = &mut self.body else {
                break;
            };
            let Poll::Ready(next) = body.as_mut().poll_frame(cx) else {
                break;
            };
            match next {
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data() {
                        self.call.lock().machine.write(chunk);
                    }
                }
                Some(Err(status)) => return Err(status),
                None => {
                    self.body = None;
                    self.call.lock().machine.finish();
                }
            }
        }
        Ok(())
    }

    /// Begins the RPCs of the frames that are due. True if there are any.
    fn transmit(&mut self) -> Result<bool, Status> {
        let mut any = false;
        loop {
            let now = self.call.now();
            let frame = self.call.lock().machine.poll_transmit(now)?;
            match frame {
                Some(frame) => self.send(frame)?,
                None => return Ok(any),
            }
            any = true;
        }
    }

    fn send(&mut self, frame: ClientFrame) -> Result<(), Status> {
        let message = self.encode(&frame)?;
        if frame.kind == Kind::Call {
            self.attempts += 1;
            self.arm_cancel();
        }
        let call = transport::call(Arc::clone(&self.socket), self.route.peer, message);
        self.rpcs.push(Box::pin(async move { (frame, call.await) }));
        Ok(())
    }

    fn encode(&self, frame: &ClientFrame) -> Result<Message, Status> {
        let content = frame.content.clone();
        let following = content.following();
        let is_later = content.is_later_piece();
        let message = if frame.kind == Kind::Call {
            let head = CallHead {
                credit: frame.credit,
                end: frame.end,
                ..self.prepared.head(self.call_id, self.is_single)
            };
            frame::encode_call(head, content, self.socket.message_bytes_max())?
        } else {
            let head = PartHead {
                call_id: self.call_id,
                checksum: self.prepared.channel.checksums,
                sequence: frame.sequence,
                credit: frame.credit,
                end: frame.end,
            };
            frame::encode_part(head, content)
        };
        let message = message.with_following(following);
        Ok(if is_later {
            message.scheduled()
        } else {
            message
        })
    }

    /// Wakes the reader if there is something for it. Some if the call is over.
    fn tell_reader(&mut self) -> Option<Step> {
        let mut state = self.call.lock();
        let is_over = state.machine.is_over();
        let has_news = is_over || state.machine.has_ready() || state.machine.has_headers();
        let reader = if has_news { state.reader.take() } else { None };
        let is_given_up = state.is_given_up;
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        if is_over {
            self.disarm();
            return Some(Step::Done);
        }
        if is_given_up {
            return Some(self.fail(Status::cancelled("the call was given up")));
        }
        None
    }

    /// Lets the application have its turn before a pull goes by itself. True if the pull is to go now.
    fn wait_for_turn(&mut self, cx: &Context<'_>) -> bool {
        let mut state = self.call.lock();
        if !state.machine.defers() {
            return false;
        }
        if self.has_yielded {
            state.machine.stop_deferring();
            return true;
        }
        drop(state);
        self.has_yielded = true;
        cx.waker().wake_by_ref();
        false
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let expired = Status::deadline_exceeded(format!(
                "the deadline passed while waiting for {} ({})",
                self.prepared.channel.target,
                self.prepared.path.path()
            ));
            return Poll::Ready(self.fail(expired));
        }
        let Some(due) = self.call.lock().machine.next_timeout() else {
            return Poll::Pending;
        };
        let due = self.call.begun + due;
        let wait = self.wait.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if wait.deadline() != due {
            wait.as_mut().reset(due);
        }
        if wait.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Ends the call. The RPCs on their way are given up, and the server is told.
    fn fail(&mut self, mut status: Status) -> Step {
        self.rpcs.clear();
        self.body = None;
        if self.attempts == 0 && self.cancel.is_none() {
            status = status.with_delivery(Delivery::NotSent);
        }
        let mut state = self.call.lock();
        state.failed.get_or_insert(status);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        // Dropped armed, it tells the server.
        self.cancel = None;
        Step::Done
    }
}

impl Drop for Driver {
    /// A reader must not wait for a driver that is gone.
    fn drop(&mut self) {
        let is_over = self.call.lock().machine.is_over();
        if !is_over {
            let text = "the task of the call has ended: its request stream panicked, or its runtime is gone";
            self.fail(Status::unavailable(text));
        }
    }
}
