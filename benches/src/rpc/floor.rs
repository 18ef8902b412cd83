//! What the floors have in common: waiting for data, and the bookkeeping of calls in progress.
//!
//! A floor moves the same bytes as the calls and nothing else: no frames, no tasks, no recovery
//! worth the name. So it says what the kernel's part of a call costs.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::time::Instant;

use super::load::Measured;
use super::scenario::{BULK_BYTES, SMALL_BYTES, Scenario};

/// Waits for something to receive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// How long the socket is asked again and again before the thread sleeps.
    pub(crate) spin: Duration,
}

/// Silence after which a floor gives up waiting.
const SILENCE_MAX: Duration = Duration::from_millis(200);

impl Waiting {
    /// Calls `receive`, which must not block, until it has something. `None`: nothing came.
    ///
    /// # Errors
    /// What `receive` says, but for "would block".
    pub(crate) fn receive<T>(
        self,
        socket: &impl AsFd,
        mut receive: impl FnMut() -> nix::Result<T>,
    ) -> Result<Option<T>, String> {
        let begin = Instant::now();
        loop {
            match receive() {
                Ok(received) => return Ok(Some(received)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(format!("cannot receive: {error}")),
            }
            if begin.elapsed() >= self.spin && !readable(socket.as_fd())? {
                return Ok(None);
            }
        }
    }
}

fn readable(socket: BorrowedFd<'_>) -> Result<bool, String> {
    let timeout = PollTimeout::try_from(SILENCE_MAX).map_err(|error| error.to_string())?;
    let mut entries = [PollFd::new(socket, PollFlags::POLLIN)];
    match poll(&mut entries, timeout) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(error) => Err(format!("cannot wait for data: {error}")),
    }
}

/// The calls of a scenario that a floor has in progress. They end in the order in which they began.
#[derive(Debug)]
pub(crate) struct InProgress {
    scenario: Scenario,
    begin: Instant,
    end: Instant,
    small: VecDeque<Instant>,
    bulk: VecDeque<Instant>,
    measured: Measured,
}

impl InProgress {
    pub(crate) fn new(scenario: Scenario, duration: Duration) -> Self {
        let begin = Instant::now();
        Self {
            scenario,
            begin,
            end: begin + duration,
            small: VecDeque::new(),
            bulk: VecDeque::new(),
            measured: Measured::default(),
        }
    }

    /// Small calls to begin now, which then count as begun.
    pub(crate) fn begin_small(&mut self) -> usize {
        let now = Instant::now();
        if now > self.end {
            return 0;
        }
        let count = self.scenario.small - self.small.len();
        self.small.extend(std::iter::repeat_n(now, count));
        count
    }

    /// Uploads to begin now, which then count as begun.
    pub(crate) fn begin_bulk(&mut self) -> usize {
        let now = Instant::now();
        if now > self.end {
            return 0;
        }
        let count = self.scenario.bulk - self.bulk.len();
        self.bulk.extend(std::iter::repeat_n(now, count));
        count
    }

    pub(crate) fn end_small(&mut self, count: usize) {
        let now = Instant::now();
        for begin in self.small.drain(..count.min(self.small.len())) {
            if now <= self.end {
                self.measured.count(now - begin);
                self.measured.bytes += SMALL_BYTES;
            }
        }
    }

    pub(crate) fn end_bulk(&mut self, count: usize) {
        let now = Instant::now();
        for begin in self.bulk.drain(..count.min(self.bulk.len())) {
            if now <= self.end {
                self.measured.bytes += BULK_BYTES;
                if self.scenario.small == 0 {
                    self.measured.count(now - begin);
                }
            }
        }
    }

    /// All calls have ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.bulk.is_empty()
    }

    /// What is in progress was lost; it is not counted.
    pub(crate) fn lose(&mut self) {
        self.small.clear();
        self.bulk.clear();
    }

    pub(crate) fn finish(mut self) -> Measured {
        self.measured.took = self.end - self.begin;
        self.measured
    }
}
