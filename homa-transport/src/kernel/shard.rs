//! A kernel socket and its state behind one lock: what applications do with it, without the driver.
//!
//! Callers send by themselves, one system call for a message; the module copies it. Only what the
//! module has no memory for is left to the driver, which alone receives.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use socket2::SockAddr;
use tokio::io::unix::AsyncFd;

use super::errno::{self, NotSent, PeerTimeout};
use super::state::{Answer, Limits, State, To, Unsent};
use super::sys::{self, Port, Received};
use crate::calls::{Locked, Outcome, rpc_of};
use crate::error::{CloseReason, Delivery, RpcError};
use crate::message::Message;
use crate::stats::{Backend, Stats};
use crate::transport::{CallKey, RequestKey, RequestSink, Respond};
use crate::wire::MESSAGE_BYTES_MAX;

/// Slices that one system call takes. Source: linux/uio.h, `UIO_MAXIOV`.
const PARTS_MAX: usize = 1_024;

/// A kernel socket.
pub(super) struct Shard {
    state: Locked<State>,
    port: AsyncFd<Port>,
    local: SocketAddr,
    /// The socket is for IPv4 alone; else peers have IPv6 addresses, mapped ones among them.
    ipv4: bool,
    /// Whether requests are taken from this host alone.
    own_host_only: bool,
    peer_timeout: PeerTimeout,
    send_calls: AtomicU64,
    receive_calls: AtomicU64,
}

impl Shard {
    pub(super) fn new(port: AsyncFd<Port>, local: SocketAddr, ipv4: bool, limits: Limits) -> Self {
        Self {
            state: Locked::new(State::new(limits)),
            port,
            local,
            ipv4,
            own_host_only: local.ip().is_loopback(),
            peer_timeout: PeerTimeout::of_this_host(),
            send_calls: AtomicU64::new(0),
            receive_calls: AtomicU64::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn port(&self) -> &AsyncFd<Port> {
        &self.port
    }

    pub(super) fn closed(&self) -> Option<CloseReason> {
        self.state.closed()
    }

    /// Takes what there is to take, without waiting.
    pub(super) fn receive(&self) -> io::Result<Received> {
        self.receive_calls.fetch_add(1, Ordering::Relaxed);
        self.port.get_ref().receive()
    }

    /// The module's errors say little; its own text says more.
    pub(super) fn explained(&self, error: &io::Error) -> io::Error {
        sys::explained(self.port.get_ref().socket(), error)
    }

    /// Whether requests of `peer` are for this socket. The module gives a port the requests to all
    /// addresses of the host, but one that was bound to a loopback address is not for the network.
    pub(super) fn serves(&self, peer: SocketAddr) -> bool {
        !self.own_host_only || peer.ip().is_loopback()
    }

    /// Ends the call that the module names by `cookie`.
    pub(super) fn end_call(&self, cookie: u64, outcome: Result<Bytes, io::Error>) {
        let call = CallKey::new(cookie);
        let Some(peer) = self.lock().call_peer(call) else {
            return;
        };
        let failed = |error| errno::call_failed(&error, peer, self.peer_timeout);
        self.settle(call, outcome.map_err(failed));
    }

    fn settle(&self, call: CallKey, outcome: Outcome) {
        let settled = self.lock().end_call(call, outcome);
        if let Ok(Some(waker)) = settled {
            waker.wake();
        }
    }

    /// Gives a request back to its client, which will send it again after a while.
    ///
    /// The module forgets a request whose answer it cannot send, and an empty answer it never sends.
    /// Source: homa_plumbing.c, `homa_sendmsg`; homa_outgoing.c, `homa_message_out_fill`.
    pub(super) fn refuse(&self, to: Answer) {
        match self.send_response(to, &Message::new()) {
            Err(error) if errno::is_shortage(&error) => {
                // Nothing is too long for the queue that is empty; a closed socket has no requests.
                let _ = self.send_later(To::Client(to), Message::new());
            }
            // "Invalid" is the answer that is wanted.
            _ => {}
        }
    }

    fn send_request(&self, call: CallKey, peer: SocketAddr, message: &Message) -> io::Result<u64> {
        let peer = SockAddr::from(self.native(peer));
        self.send(message, |port, parts| {
            sys::send_request(port.socket(), &peer, call.get(), parts)
        })
    }

    fn send_response(&self, to: Answer, message: &Message) -> io::Result<()> {
        let peer = SockAddr::from(self.native(to.peer));
        self.send(message, |port, parts| {
            sys::send_response(port.socket(), &peer, to.id, parts)
        })
    }

    fn send<T>(
        &self,
        message: &Message,
        send: impl FnOnce(&Port, &[IoSlice<'_>]) -> io::Result<T>,
    ) -> io::Result<T> {
        self.send_calls.fetch_add(1, Ordering::Relaxed);
        let port = self.port.get_ref();
        let mut parts: Vec<_> = message.parts().map(|part| IoSlice::new(part)).collect();
        if parts.len() <= PARTS_MAX {
            return send(port, &parts);
        }
        let whole = message.clone().into_bytes();
        parts.clear();
        send(port, &[IoSlice::new(&whole)])
    }

    /// `peer` as the family of the socket has it.
    fn native(&self, peer: SocketAddr) -> SocketAddr {
        match peer.ip() {
            IpAddr::V4(ip) if !self.ipv4 => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), peer.port())
            }
            _ => peer,
        }
    }

    fn check_address(&self, peer: SocketAddr) -> Result<(), RpcError> {
        let reason = if peer.port() == 0 {
            "port 0 is not a port"
        } else if self.ipv4 && peer.is_ipv6() {
            "this host has no IPv6"
        } else {
            return Ok(());
        };
        Err(RpcError::BadAddress { peer, reason })
    }

    /// Deals with what the module said to a request.
    fn request_done(&self, call: CallKey, result: io::Result<u64>, peer: SocketAddr) -> Sent {
        match result {
            Ok(id) => {
                if !self.lock().call_sent(call, id) {
                    self.abort(id);
                }
                Sent::Done
            }
            Err(error) => match errno::request_refused(&error, peer) {
                NotSent::Later => Sent::Later,
                NotSent::Never(error) => Sent::Never(error),
            },
        }
    }

    /// Makes the module forget a call. It may have ended already.
    fn abort(&self, id: u64) {
        if let Err(error) = sys::abort(self.port.get_ref().socket(), id) {
            tracing::trace!(%error, id, "a call to be given up was over");
        }
    }

    /// Sends what waits for memory, as far as there is some, up to `bytes_max` at a time. True if it
    /// stopped for that.
    pub(super) fn flush(&self, bytes_max: usize) -> bool {
        let mut bytes = 0;
        while bytes < bytes_max {
            let next = self.lock().take_unsent();
            let Some(Unsent { to, message }) = next else {
                return false;
            };
            bytes += message.len();
            let sent = match to {
                To::Server(call, peer) => {
                    let result = self.send_request(call, peer, &message);
                    self.request_done(call, result, peer)
                }
                To::Client(answer) => match self.send_response(answer, &message) {
                    Err(error) if errno::is_shortage(&error) => Sent::Later,
                    _ => Sent::Done,
                },
            };
            match (sent, to) {
                (Sent::Done, _) => {}
                (Sent::Later, _) => {
                    let unwanted = self.lock().put_back(Unsent { to, message });
                    drop(unwanted);
                    return false;
                }
                (Sent::Never(error), To::Server(call, _)) => self.settle(call, Err(error)),
                (Sent::Never(_), To::Client(_)) => {}
            }
        }
        true
    }

    /// Leaves a message to the driver.
    fn send_later(&self, to: To, message: Message) -> Result<(), RpcError> {
        let mut state = self.lock();
        let driver = match state.ledger.check_open(Delivery::NotSent) {
            Ok(()) => state.add_unsent(to, message)?,
            Err(error) => return Err(error),
        };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Ok(())
    }

    fn begin_receiving(&self) {
        let driver = self.lock().begin_receiving();
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    pub(super) fn close(&self, reason: CloseReason) {
        let work = self.lock().close(reason);
        // The module forgets all RPCs and frees the port. It tells nobody: peers find out by the
        // ICMP message that their next packet draws.
        if let Err(error) = self
            .port
            .get_ref()
            .socket()
            .shutdown(std::net::Shutdown::Both)
        {
            tracing::debug!(%error, "shutdown of a Homa socket");
        }
        drop((work.messages, work.sink));
        for waker in work.wakers {
            waker.wake();
        }
    }
}

/// What became of an attempt to send.
enum Sent {
    Done,
    Later,
    Never(RpcError),
}

fn check_length(message: &Message) -> Result<(), RpcError> {
    let len = message.len();
    if len == 0 {
        return Err(RpcError::EmptyMessage);
    }
    if len > MESSAGE_BYTES_MAX {
        return Err(RpcError::MessageTooLong {
            len,
            max: MESSAGE_BYTES_MAX,
        });
    }
    Ok(())
}

impl Shard {
    pub(super) fn start_call(
        &self,
        peer: SocketAddr,
        request: Message,
    ) -> Result<CallKey, RpcError> {
        check_length(&request)?;
        let peer = crate::link::address::callable(peer)?;
        self.check_address(peer)?;
        let (call, queued) = {
            let mut state = self.lock();
            (state.add_call(peer)?, state.has_unsent())
        };
        self.begin_receiving();
        let sent = if queued {
            Sent::Later
        } else {
            let result = self.send_request(call, peer, &request);
            self.request_done(call, result, peer)
        };
        let result = match sent {
            Sent::Done => Ok(()),
            Sent::Later => self.send_later(To::Server(call, peer), request),
            Sent::Never(error) => Err(error),
        };
        match result {
            Ok(()) => Ok(call),
            Err(error) => {
                let unwanted = self.lock().ledger.remove_call(call);
                drop(unwanted);
                Err(error)
            }
        }
    }

    pub(super) fn poll_response(&self, call: CallKey, cx: &Context<'_>) -> Poll<Outcome> {
        self.state.poll_response(call, cx)
    }

    pub(super) fn cancel(&self, call: CallKey) {
        let (id, work) = self.lock().forget_call(call);
        drop(work);
        if let Some(id) = id {
            self.abort(id);
        }
    }

    pub(super) fn serve(&self, sink: RequestSink) -> Result<(), RpcError> {
        let mut state = self.lock();
        state.ledger.check_open(Delivery::NotSent)?;
        let old = state.ledger.sink.replace(sink);
        drop(state);
        drop(old);
        sys::set_server(self.port.get_ref().socket(), true).map_err(|error| RpcError::Closed {
            reason: CloseReason::LinkFailed(self.explained(&error).to_string()),
            delivery: Delivery::NotSent,
        })?;
        self.begin_receiving();
        Ok(())
    }

    pub(super) const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn stats(&self) -> Stats {
        let in_module = match sys::info(self.port.get_ref().socket()) {
            Ok(info) => u64::from(info.rpc_count),
            // It is shut down.
            Err(_) => 0,
        };
        let state = self.lock();
        let mut stats = state.stats;
        stats.waiters_woken = state.ledger.waiters_woken;
        stats.requests_handed_over = state.ledger.requests_handed_over;
        stats.backend = Some(Backend::Kernel);
        stats.rpcs_live = in_module + state.unsent_count() as u64;
        stats.send_system_calls = self.send_calls.load(Ordering::Relaxed);
        stats.receive_system_calls = self.receive_calls.load(Ordering::Relaxed);
        stats
    }

    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<CloseReason> {
        self.state.poll_closed(cx)
    }
}

impl Respond for Shard {
    fn respond(&self, request: RequestKey, response: Message) -> Result<(), RpcError> {
        check_length(&response)?;
        let rpc = rpc_of(request);
        let (to, queued) = {
            let state = self.lock();
            state.ledger.check_open(Delivery::NotSent)?;
            (
                state.answer(rpc).ok_or(RpcError::Stale)?,
                state.has_unsent(),
            )
        };
        let result = if queued {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            self.send_response(to, &response)
        };
        let result = match result {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.send_later(To::Client(to), response)
            }
            // The module has forgotten the request: a failed answer ends it.
            Err(error) => {
                tracing::debug!(%error, peer = %to.peer, "the module took no answer");
                Err(RpcError::Stale)
            }
        };
        if matches!(result, Err(RpcError::TooManyBytes { .. })) {
            return result;
        }
        let mut state = self.lock();
        state.stats.responses_sent += u64::from(result.is_ok());
        let waker = state.forget_request(rpc);
        drop(state);
        drop(waker);
        result
    }

    fn abandon(&self, request: RequestKey) {
        let waker = self.lock().forget_request(rpc_of(request));
        drop(waker);
    }

    /// The module doesn't say when a client gives up.
    fn poll_cancelled(&self, request: RequestKey, cx: &mut Context<'_>) -> Poll<()> {
        self.state.poll_cancelled(request, cx)
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
