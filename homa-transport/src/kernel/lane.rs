//! A kernel socket and its state behind one lock: what applications do with it, without the driver.
//!
//! Callers send by themselves, one system call for a message; the module copies it. Only what the
//! module has no memory for is left to the driver, which alone receives.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use socket2::SockAddr;
use tokio::io::unix::AsyncFd;

use super::core::{Answer, Core, Limits, To, Unsent, cookie_of};
use super::failure::{self, NotSent, Patience};
use super::sys::{self, Port, Received};
use crate::endpoint::RpcKey;
use crate::error::{CloseReason, Delivery, RpcError};
use crate::message::Message;
use crate::stats::{Backend, Stats};
use crate::transport::{CallKey, RequestSink, Transport};
use crate::wire::MESSAGE_BYTES_MAX;

/// Slices that one system call takes. Source: linux/uio.h, `UIO_MAXIOV`.
const PARTS_MAX: usize = 1_024;

/// A kernel socket.
pub(super) struct Lane {
    core: Mutex<Core>,
    port: AsyncFd<Port>,
    local: SocketAddr,
    /// The socket is for IPv4 alone; else peers have IPv6 addresses, mapped ones among them.
    ipv4: bool,
    /// Whether requests are taken from this host alone.
    own_host_only: bool,
    patience: Patience,
    send_calls: AtomicU64,
    receive_calls: AtomicU64,
}

impl Lane {
    pub(super) fn new(port: AsyncFd<Port>, local: SocketAddr, ipv4: bool, limits: Limits) -> Self {
        Self {
            core: Mutex::new(Core::new(limits)),
            port,
            local,
            ipv4,
            own_host_only: local.ip().is_loopback(),
            patience: Patience::of_this_host(),
            send_calls: AtomicU64::new(0),
            receive_calls: AtomicU64::new(0),
        }
    }

    /// The state. After a panic inside it the socket is closed; the driver, or whoever closes it,
    /// tells those who wait.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(|poisoned| {
            self.core.clear_poison();
            let mut core = poisoned.into_inner();
            core.closed.get_or_insert(CloseReason::Poisoned);
            core
        })
    }

    pub(super) fn port(&self) -> &AsyncFd<Port> {
        &self.port
    }

    pub(super) fn closed(&self) -> Option<CloseReason> {
        self.lock().closed.clone()
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
        let mut core = self.lock();
        let Some(peer) = core.call_peer(cookie) else {
            return;
        };
        let outcome = outcome.map_err(|error| failure::call_failed(&error, peer, self.patience));
        let (waker, unwanted) = core.end_call(cookie, outcome);
        drop(core);
        drop(unwanted);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Gives a request back to its client, which will send it again after a while.
    ///
    /// The module forgets a request whose answer it cannot send, and an empty answer it never sends.
    /// Source: homa_plumbing.c, `homa_sendmsg`; homa_outgoing.c, `homa_message_out_fill`.
    pub(super) fn refuse(&self, to: Answer) {
        match self.send_response(to, &Message::new()) {
            Err(error) if failure::is_shortage(&error) => {
                // Nothing is too long for the queue that is empty; a closed socket has no requests.
                let _ = self.send_later(To::Client(to), Message::new());
            }
            // "Invalid" is the answer that is wanted.
            _ => {}
        }
    }

    fn send_request(&self, call: CallKey, peer: SocketAddr, message: &Message) -> io::Result<u64> {
        let peer = SockAddr::from(self.native(peer));
        let cookie = cookie_of(call);
        self.send(message, |port, parts| {
            sys::send_request(port.socket(), &peer, cookie, parts)
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
            Err(error) => match failure::request_refused(&error, peer) {
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
                    Err(error) if failure::is_shortage(&error) => Sent::Later,
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
                (Sent::Never(error), To::Server(call, _)) => self.fail_call(call, error),
                (Sent::Never(_), To::Client(_)) => {}
            }
        }
        true
    }

    fn fail_call(&self, call: CallKey, error: RpcError) {
        let (waker, unwanted) = self.lock().end_call(cookie_of(call), Err(error));
        drop(unwanted);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Leaves a message to the driver.
    fn send_later(&self, to: To, message: Message) -> Result<(), RpcError> {
        let mut core = self.lock();
        let driver = match core.check_open(Delivery::NotSent) {
            Ok(()) => core.add_unsent(to, message)?,
            Err(error) => return Err(error),
        };
        drop(core);
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

impl Transport for Lane {
    fn start_call(&self, peer: SocketAddr, request: Message) -> Result<CallKey, RpcError> {
        check_length(&request)?;
        let peer = crate::socket::callable(peer)?;
        self.check_address(peer)?;
        let (call, queued) = {
            let mut core = self.lock();
            (core.add_call(peer)?, core.has_unsent())
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
                let unwanted = self.lock().remove_call(call);
                drop(unwanted);
                Err(error)
            }
        }
    }

    fn poll_response(&self, call: CallKey, cx: &mut Context<'_>) -> Poll<Result<Bytes, RpcError>> {
        let (outcome, old) = self.lock().poll_call(call, cx.waker());
        drop(old);
        outcome
    }

    fn cancel(&self, call: CallKey) {
        let (id, work) = self.lock().forget_call(call);
        drop(work);
        if let Some(id) = id {
            self.abort(id);
        }
    }

    fn cancel_reaches_server(&self) -> bool {
        false
    }

    fn serve(&self, sink: RequestSink) -> Result<(), RpcError> {
        let mut core = self.lock();
        core.check_open(Delivery::NotSent)?;
        let old = core.sink.replace(sink);
        drop(core);
        drop(old);
        sys::set_server(self.port.get_ref().socket(), true).map_err(|error| RpcError::Closed {
            reason: CloseReason::LinkFailed(self.explained(&error).to_string()),
            delivery: Delivery::NotSent,
        })?;
        self.begin_receiving();
        Ok(())
    }

    fn respond(&self, rpc: RpcKey, response: Message) -> Result<(), RpcError> {
        check_length(&response)?;
        let (to, queued) = {
            let core = self.lock();
            core.check_open(Delivery::NotSent)?;
            (core.answer(rpc).ok_or(RpcError::Stale)?, core.has_unsent())
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
        let mut core = self.lock();
        core.stats.responses_sent += u64::from(result.is_ok());
        let waker = core.forget_request(rpc);
        drop(core);
        drop(waker);
        result
    }

    fn abandon(&self, rpc: RpcKey) {
        let waker = self.lock().forget_request(rpc);
        drop(waker);
    }

    fn poll_cancelled(&self, rpc: RpcKey, cx: &mut Context<'_>) -> Poll<()> {
        let (gone, old) = self.lock().poll_request_gone(rpc, cx.waker());
        drop(old);
        gone
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    fn stats(&self) -> Stats {
        let in_module = match sys::info(self.port.get_ref().socket()) {
            Ok(info) => u64::from(info.rpc_count),
            // It is shut down.
            Err(_) => 0,
        };
        let core = self.lock();
        let mut stats = core.stats;
        stats.backend = Some(Backend::Kernel);
        stats.rpcs_live = in_module + core.unsent_count() as u64;
        stats.send_system_calls = self.send_calls.load(Ordering::Relaxed);
        stats.receive_system_calls = self.receive_calls.load(Ordering::Relaxed);
        stats
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let (closed, old) = self.lock().poll_closed(cx.waker());
        drop(old);
        closed
    }

    fn close(&self) {
        Self::close(self, CloseReason::Closed);
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
