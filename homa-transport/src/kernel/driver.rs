//! The task that receives for a kernel socket, and sends what the module had no memory for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::shard::Shard;
use super::state::Answer;
use super::sys::Received;
use crate::calls::{driver_dropped, request_of};
use crate::error::CloseReason;
use crate::link::address::canonical;
use crate::transport::{Incoming, Responder};

/// Messages taken in one poll before other tasks get their chance.
const MESSAGES_MAX: usize = 64;
/// Bytes taken, and sent, in one poll: they are copied.
const BYTES_MAX: usize = 1 << 20;
/// How long messages wait before the module is asked again for memory. It has a wake-up for this, but
/// only receive calls make it free what finished RPCs hold. Source: homa_rpc.c, `homa_rpc_reap`.
const RETRY: Duration = Duration::from_millis(1);

/// Drives a kernel socket until it is closed.
pub(super) struct Driver {
    shard: Arc<Shard>,
    retry: Pin<Box<Sleep>>,
}

/// What the state of the socket asks for.
enum Task {
    /// It is closed.
    End,
    /// Nobody serves and nobody has called: requests stay in the module.
    Wait,
    /// Receive; with messages that wait for memory, send them.
    Receive { unsent: bool },
}

impl Driver {
    /// # Panics
    /// If the runtime was built without timers.
    pub(super) fn new(shard: Arc<Shard>) -> Self {
        Self {
            shard,
            retry: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    fn begin(&self, cx: &Context<'_>) -> Task {
        let mut state = self.shard.lock();
        let old = state.ledger.register_driver(cx.waker());
        let task = if state.ledger.closed.is_some() {
            Task::End
        } else if state.receiving {
            let unsent = state.has_unsent();
            Task::Receive { unsent }
        } else {
            Task::Wait
        };
        drop(state);
        drop(old);
        task
    }

    /// One message, or the end of a call. Waits for the module to say that there is one, and until a
    /// receive call has found nothing, so that no wake-up is lost.
    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<io::Result<Received>> {
        loop {
            let mut ready = ready!(self.shard.port().poll_read_ready(cx))?;
            if let Ok(received) = ready.try_io(|_| self.receive()) {
                return Poll::Ready(received);
            }
        }
    }

    /// As [`Shard::receive`]; hands back the pages even if there are more than one call takes.
    fn receive(&self) -> io::Result<Received> {
        loop {
            match self.shard.receive() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && self.shard.port().get_ref().returns_fill_a_call() => {}
                result => return result,
            }
        }
    }

    /// Hands over what has come. Returns its bytes.
    fn deliver(&self, received: Received) -> usize {
        let len = received.len();
        match received {
            Received::Response { cookie, message } => {
                self.shard.end_call(cookie, Ok(message.into_bytes()));
            }
            Received::Failed { cookie, error } => self.shard.end_call(cookie, Err(error)),
            Received::Request { id, peer, message } => {
                let to = Answer { id, peer };
                let peer = canonical(peer);
                let taken = if self.shard.serves(peer) {
                    self.shard.lock().add_request(to, len)
                } else {
                    None
                };
                let Some((rpc, sink)) = taken else {
                    self.shard.refuse(to);
                    return len;
                };
                sink(Incoming {
                    peer,
                    message: message.into_bytes(),
                    responder: Responder::new(Arc::clone(&self.shard) as _, request_of(rpc)),
                });
            }
        }
        len
    }

    /// Tries again to send what had to wait. True if more of it can be sent at once.
    fn send_unsent(&self) -> io::Result<bool> {
        match self.receive() {
            Ok(received) => {
                self.deliver(received);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(self.shard.flush(BYTES_MAX))
    }

    /// Sets the timer if messages wait. False: there is something to do at once.
    fn park(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.shard.lock().has_unsent() {
            return true;
        }
        self.retry.as_mut().reset(Instant::now() + RETRY);
        self.retry.as_mut().poll(cx).is_pending()
    }

    fn cycle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let more = match self.begin(cx) {
            Task::End => return Poll::Ready(Ok(())),
            Task::Wait => return Poll::Pending,
            Task::Receive { unsent } => unsent && self.send_unsent()?,
        };
        let mut bytes = 0;
        for _ in 0..MESSAGES_MAX {
            if bytes >= BYTES_MAX {
                break;
            }
            match self.poll_receive(cx)? {
                Poll::Ready(received) => bytes += self.deliver(received),
                Poll::Pending if !more && self.park(cx) => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.cycle(cx)) {
            Ok(()) => {}
            // What a receive call says after a close.
            Err(_) if self.shard.closed().is_some() => {}
            Err(error) => {
                let error = self.shard.explained(&error);
                tracing::error!(%error, "a socket of the Homa module failed");
                self.shard.close(CloseReason::LinkFailed(error.to_string()));
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Driver {
    /// Runs last, or when the runtime is shut down.
    fn drop(&mut self) {
        self.shard.close(driver_dropped());
    }
}
