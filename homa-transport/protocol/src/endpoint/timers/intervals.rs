//! How long to wait before a peer is asked for something, and before it is asked again.

use std::time::Duration;

use crate::config::Wire;
use crate::endpoint::backoff::backed_off;
use crate::endpoint::rpcs::rpc::Rpc;
use crate::endpoint::{Endpoint, RpcKey};

/// RESENDs in a row at the plain interval; then the interval doubles.
const RESENDS_AT_ONCE: u32 = 4;
/// Longest interval between RESENDs, and between NEED_ACKs.
const INTERVAL_MAX: Duration = Duration::from_millis(100);
/// Longest interval between RESENDs that are answered with BUSY.
const BUSY_INTERVAL_MAX: Duration = Duration::from_millis(500);
/// A peer that is known to be at work is asked again after this part of a timeout if it does not answer.
const AGAIN_PARTS: u32 = 20;
/// A response that waits for a grant for so long asks its client whether it is still there.
const STALLED: Duration = Duration::from_millis(50);

/// The interval grows by this much with each RPC that waits for the same peer: twelve RESENDs in a
/// millisecond, however many RPCs there are.
const SPREAD: Duration = Duration::from_micros(80);
/// And no further.
const SPREAD_MAX: Duration = Duration::from_secs(2);
/// A peer that is known to be at work is asked this many times more rarely.
const SPREAD_BUSY: u32 = 3;
/// The longest interval between RESENDs that are answered with BUSY, in such spreads, and in time: a
/// server forgets a client of which it hears nothing for ten seconds.
const SPREAD_BUSY_MAX: u32 = 30;
const BUSY_INTERVAL_LIMIT: Duration = Duration::from_millis(2_500);

impl Endpoint {
    /// How long a RESEND for what an RPC lacks is to wait after the silence began, or after the last one.
    pub(in crate::endpoint) fn resend_interval(&self, rpc: &Rpc) -> Duration {
        let usual = self.config.resend_interval;
        let peer = self.peers.get(rpc.peer);
        let silence = peer.map_or(usual, |peer| peer.grant_delay.silence(usual));
        let waiting = peer.map_or(0, |peer| {
            if rpc.is_client() {
                peer.called().saturating_sub(peer.rest.calls_count)
            } else {
                peer.served()
            }
        });
        let again = self.config.timeout / AGAIN_PARTS;
        let interval = spread_out(rpc, (silence, again), waiting, self.wire);
        if self.wire == Wire::Native && rpc.is_client() && !rpc.liveness.known_to_peer {
            // Only what a server says twice within its memory proves that it never had the request.
            return interval.min(self.config.delivered_memory / 2).max(usual);
        }
        interval
    }

    /// The same of a NEED_ACK for a response.
    pub(in crate::endpoint) fn need_ack_interval(&self, rpc: &Rpc) -> Duration {
        let liveness = &rpc.liveness;
        let base = self.ack_wait_of(rpc);
        let all_sent = rpc.out.as_ref().is_some_and(|out| out.is_all_sent());
        if liveness.unanswered == 0 && !all_sent {
            return STALLED.max(base);
        }
        if liveness.busy > 0 {
            return backed_off(base, liveness.busy, 1, BUSY_INTERVAL_MAX);
        }
        backed_off(base, liveness.unanswered, 1, INTERVAL_MAX)
    }

    /// How long the ack of a response may be on its way.
    pub(in crate::endpoint) fn ack_wait(&self, key: RpcKey) -> Duration {
        let rpc = self.table.get(key);
        rpc.map_or(self.config.need_ack_delay, |rpc| self.ack_wait_of(rpc))
    }

    fn ack_wait_of(&self, rpc: &Rpc) -> Duration {
        let unknown = self.config.need_ack_delay;
        let peer = self.peers.get(rpc.peer);
        peer.map_or(unknown, |peer| peer.round_trip.ack_wait(unknown))
    }
}

/// The interval of an RPC beside which `waiting` others wait for the same peer.
fn spread_out(
    rpc: &Rpc,
    (silence, again): (Duration, Duration),
    waiting: usize,
    wire: Wire,
) -> Duration {
    let liveness = &rpc.liveness;
    let spread = SPREAD.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX));
    let spread = spread.min(SPREAD_MAX);
    let at_work = liveness.busy > 0 || liveness.rested;
    let base = match (at_work, liveness.unanswered) {
        (true, 0) => {
            let base = silence.max((SPREAD_BUSY * spread).min(BUSY_INTERVAL_LIMIT));
            let most = match wire {
                // There calls do not rest.
                Wire::Native => BUSY_INTERVAL_LIMIT,
                Wire::Encapsulated => {
                    (SPREAD_BUSY_MAX * spread).clamp(BUSY_INTERVAL_MAX, BUSY_INTERVAL_LIMIT)
                }
            };
            return backed_off(base, liveness.busy, 1, most);
        }
        // One question in a long time: no hurry, the answer may be on its way.
        (true, _) => silence.max(spread).max(again),
        (false, _) => silence.max(spread),
    };
    backed_off(base, liveness.unanswered, RESENDS_AT_ONCE, INTERVAL_MAX)
}
