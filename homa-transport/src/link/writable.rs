//! Waiting until a datagram socket takes packets again.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::Sleep;

use super::sys;

/// Wait after the network device's queue was full: the system says nothing when it no longer is. It
/// is the shortest time tokio can wait; a queue of 1,000 packets is gone after it at 12 Gbit/s.
const DEVICE_PAUSE: Duration = Duration::from_millis(1);

/// The wait, if there is one.
///
/// It watches a duplicate of the socket that is registered with the runtime for this one wait: a
/// registration on which an error was ever pending, as with every dead peer, counts as closed and
/// hence as writable for good (tokio maps EPOLLOUT with EPOLLERR to that).
#[derive(Debug)]
pub(super) struct WritableWait {
    state: Mutex<State>,
    runtime: Handle,
}

#[derive(Debug)]
enum State {
    Idle,
    Paused(Pin<Box<Sleep>>),
    Watching(AsyncFd<Socket>),
}

impl WritableWait {
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            state: Mutex::new(State::Idle),
            runtime,
        }
    }

    /// Ready when the socket takes a packet, or has an error to tell. After `device_full`, a fixed
    /// time is waited instead.
    pub(super) fn poll(
        &self,
        cx: &mut Context<'_>,
        socket: &Socket,
        device_full: bool,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &mut *state {
                State::Idle if device_full => {
                    let _entered = self.runtime.enter();
                    *state = State::Paused(Box::pin(tokio::time::sleep(DEVICE_PAUSE)));
                }
                State::Idle => {
                    if may_send(socket)? {
                        return Poll::Ready(Ok(()));
                    }
                    *state = State::Watching(self.watch(socket)?);
                }
                State::Paused(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    *state = State::Idle;
                    return Poll::Ready(Ok(()));
                }
                State::Watching(watched) => {
                    let mut guard = ready!(watched.poll_write_ready(cx))?;
                    if may_send(socket)? {
                        *state = State::Idle;
                        return Poll::Ready(Ok(()));
                    }
                    let closed = guard.ready().is_write_closed();
                    guard.clear_ready();
                    if closed {
                        *state = State::Watching(self.watch(socket)?);
                    }
                }
            }
        }
    }

    fn watch(&self, socket: &Socket) -> io::Result<AsyncFd<Socket>> {
        let _entered = self.runtime.enter();
        sys::register(socket.try_clone()?, Interest::WRITABLE)
    }
}

/// An error counts: the next attempt to send collects it, and then the wait is for room alone.
fn may_send(socket: &Socket) -> io::Result<bool> {
    let readiness = sys::send_readiness(socket)?;
    Ok(readiness.writable || readiness.error)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::mem::MaybeUninit;

    use socket2::{Domain, Type};

    use super::*;

    fn pair() -> (Socket, Socket) {
        let (sender, receiver) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        sender.set_nonblocking(true).unwrap();
        (sender, receiver)
    }

    /// Sends until nothing more is taken; loopback UDP sockets never get there.
    fn fill(socket: &Socket) -> usize {
        let mut count = 0;
        while socket.send(&[0; 1000]).is_ok() {
            count += 1;
        }
        count
    }

    #[tokio::test]
    async fn waits_for_room_and_not_longer() {
        let (sender, receiver) = pair();
        let waiter = WritableWait::new(Handle::current());
        for _ in 0..3 {
            poll_fn(|cx| waiter.poll(cx, &sender, false)).await.unwrap();
            let sent = fill(&sender);
            let waiting = poll_fn(|cx| Poll::Ready(waiter.poll(cx, &sender, false))).await;
            assert!(waiting.is_pending());
            for _ in 0..sent {
                receiver.recv(&mut [MaybeUninit::uninit(); 1000]).unwrap();
            }
            poll_fn(|cx| waiter.poll(cx, &sender, false)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_receivers_end_ends_the_wait() {
        let (sender, receiver) = pair();
        let waiter = WritableWait::new(Handle::current());
        fill(&sender);
        let waiting = poll_fn(|cx| Poll::Ready(waiter.poll(cx, &sender, false))).await;
        assert!(waiting.is_pending());
        drop(receiver);
        poll_fn(|cx| waiter.poll(cx, &sender, false)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_device_is_waited_for_by_time() {
        let (sender, _receiver) = pair();
        let waiter = WritableWait::new(Handle::current());
        let before = tokio::time::Instant::now();
        let waiting = poll_fn(|cx| Poll::Ready(waiter.poll(cx, &sender, true))).await;
        assert!(waiting.is_pending());
        poll_fn(|cx| waiter.poll(cx, &sender, true)).await.unwrap();
        assert!(before.elapsed() >= DEVICE_PAUSE);
    }
}
