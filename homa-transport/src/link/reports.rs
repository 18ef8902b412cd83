//! Reports of unreachable peers, from whoever sends to the task that receives.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::endpoint::Transmit;
use crate::error::{Report, Unreachable};
use crate::units::RpcId;

/// Reports kept at most. A peer whose report finds no room is found out by its silence.
const REPORTS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Reports {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<Report>,
    receiver: Option<Waker>,
}

impl Reports {
    /// Adds a report, unless the same is there already, and wakes the receiver.
    pub(super) fn push(&self, report: Report) {
        let mut state = self.lock();
        if state.pending.len() >= REPORTS_MAX || state.pending.contains(&report) {
            return;
        }
        state.pending.push(report);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }

    /// The system refuses to send `packet`. To a call of ours this is worth knowing at once. A server's
    /// packet only counts as lost: its client is there, and a firewall's rule or a route may be back
    /// before it gives up.
    pub(super) fn refused(&self, packet: &Transmit, reason: Unreachable) {
        let report = packet.report(reason);
        if report.about.is_some_and(RpcId::is_client) {
            self.push(report);
        } else {
            tracing::debug!(peer = %packet.to, %reason, "packet lost: the system does not send it");
        }
    }

    /// Moves all reports to `out`. The receiver is awake, so later ones don't wake it until it has
    /// called [`Reports::wait`].
    pub(super) fn take(&self, out: &mut Vec<Report>) {
        let mut state = self.lock();
        state.receiver = None;
        out.append(&mut state.pending);
    }

    /// Has `waker` woken by the next report, and returns true; false if there are reports now.
    pub(super) fn wait(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        let empty = state.pending.is_empty();
        state.receiver = empty.then(|| waker.clone());
        empty
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can be left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use std::net::SocketAddr;

    use super::*;
    use crate::message::Message;
    use crate::units::Priority;
    use crate::wire::{self, Header, Packet, emit};

    fn report(port: u16) -> Report {
        Report {
            peer: SocketAddr::from(([192, 0, 2, 1], port)),
            reason: Unreachable::Port,
            about: None,
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_report_wakes_the_waiting_receiver_once_and_is_not_repeated() {
        let reports = Reports::default();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        assert!(reports.wait(&waker));
        for _ in 0..3 {
            reports.push(report(4_000));
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(!reports.wait(&waker), "must not sleep on a report");
        let mut out = Vec::new();
        reports.take(&mut out);
        assert_eq!(out, [report(4_000)]);
        assert!(reports.wait(&waker));
    }

    #[test]
    fn reports_are_bounded() {
        let reports = Reports::default();
        for port in 1..=1000 {
            reports.push(report(port));
        }
        let mut out = Vec::new();
        reports.take(&mut out);
        assert_eq!(out.len(), REPORTS_MAX);
    }

    #[test]
    fn a_refusal_to_send_is_told_to_calls_of_ours_and_not_of_served_ones() {
        let packet = |id| Transmit {
            to: SocketAddr::from(([192, 0, 2, 1], 4_000)),
            from: None,
            priority: Priority::HIGHEST,
            header: emit(
                &Header {
                    source_port: 1,
                    destination_port: 4_000,
                    sender_id: id,
                },
                &Packet::Busy(wire::Busy::Unexplained),
            ),
            payload: Message::new(),
        };
        let reports = Reports::default();
        let ours = RpcId::new(8);
        reports.refused(&packet(ours.other_side()), Unreachable::Denied);
        reports.refused(&packet(ours), Unreachable::Denied);
        let mut out = Vec::new();
        reports.take(&mut out);
        assert_eq!(out.len(), 1, "{out:?}");
        assert_eq!(out[0].about, Some(ours));
    }
}
