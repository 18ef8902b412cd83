//! Rest: while a server's application holds a request, neither end asks about that RPC; the peer's life
//! counts.
//!
//! Over UDP alone: what is known of a peer is known of the process there, since another one has another token.
//!
//! *A call* rests once the server has said that its application has the request. In each second in which the
//! server has not answered anything, one of the calls at rest with it wakes, the next one each time, and asks
//! for its response as any call does. The answer lets it rest again, and all others with it. So however many
//! wait, a peer gets one question in a second. Calls wake, to ask by themselves, if the server says anything
//! else about them; and all of them wake if its token has changed, since it was restarted perhaps, or if it
//! has answered nothing for so long that it may have taken us for dead.
//!
//! *A request* rests in service as long as anything is heard of its client, which asks as above. If it is
//! silent for longer than that, one request is asked about. A request by itself is asked about if its client's
//! token has changed since it was last heard of, or if its turn among the client's questions must have come
//! long ago: the client has forgotten it perhaps.
//!
//! A peer that is silent is taken for dead within two timeouts of its death. It takes ten unanswered questions,
//! each of a timer run of its own, so a stall of our own does not look like the silence of others.

use std::time::Duration;

use crate::endpoint::peers::peer::PeerKey;
use crate::endpoint::rpcs::rpc::{Rpc, State};
use crate::endpoint::timers::timeout::{RPC_TIMEOUTS, TimeoutAction};
use crate::endpoint::{Endpoint, RpcKey};
use crate::units::Instant;
use crate::wire::{Busy, Packet};

/// Without an answer for so many quarters of a timeout, a server may have taken us for dead.
const DOUBT_QUARTERS: u32 = 6;
/// A client at rest is silent for no longer than a timeout; after so many quarters of one it is asked.
const PATIENCE_QUARTERS: u32 = 5;
/// A request is asked about by itself when nothing was heard of it for so many timeouts, and this many more
/// for each request of its client.
const TURN_TIMEOUTS: u32 = 30;
const TURN_TIMEOUTS_EACH: u32 = 4;
/// Death is noticed this part of a timeout before its time, which is that of the last question on its way.
const MARGIN_PARTS: u32 = 20;
/// Time between two calls that wake because all of them do.
const WAKE_PAUSE: Duration = Duration::from_micros(62);

impl Endpoint {
    /// The server's application holds the request of a call: it may rest.
    pub(in crate::endpoint) fn rest_call(&mut self, key: RpcKey) {
        let whole = |rpc: &&Rpc| {
            let sent = rpc.out.as_ref().is_some_and(|out| out.is_all_sent());
            sent && rpc.state == State::Outgoing && !rpc.at_rest
        };
        let Some(rpc) = self.table.get(key).filter(whole) else {
            return;
        };
        if !self.validates {
            return;
        }
        let peer_key = rpc.peer;
        if let Some(peer) = self.peers.get_mut(peer_key) {
            self.table.rest(key, &mut peer.rest.calls);
            peer.rest.calls_count += 1;
        }
        self.watch_calls(peer_key);
    }

    /// Ends the rest of an RPC, if it has one. A call is as if it had been heard of until now.
    pub(in crate::endpoint) fn end_rest(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get(key).filter(|rpc| rpc.at_rest) else {
            return;
        };
        let (peer_key, is_call) = (rpc.peer, rpc.is_client());
        let Some(peer) = self.peers.get_mut(peer_key) else {
            return;
        };
        let list = if is_call {
            peer.rest.calls_count -= 1;
            &mut peer.rest.calls
        } else {
            &mut peer.rest.requests
        };
        self.table.end_rest(key, list);
        let confirmed = peer.rest.confirmed();
        if !is_call {
            return self.watch_requests(peer_key);
        }
        if let Some(rpc) = self.table.get_mut(key) {
            let liveness = &mut rpc.liveness;
            liveness.heard = liveness.heard.max(confirmed);
            liveness.advanced = self.memory_clock.latest();
            liveness.busy = 0;
            liveness.rested = true;
        }
        self.watch_calls(peer_key);
    }

    /// Lets a call at rest ask by itself from now on.
    pub(in crate::endpoint) fn wake_call(&mut self, now: Instant, key: RpcKey) {
        if self.table.get(key).is_some_and(|rpc| rpc.at_rest) {
            self.end_rest(key);
            self.set_timer(key, now + self.config.resend_interval);
        }
    }

    /// The same of all calls to a peer.
    pub(in crate::endpoint) fn wake_calls(&mut self, now: Instant, peer: PeerKey) {
        let mut at = now + self.config.resend_interval;
        while let Some(key) = self.first_call(peer) {
            self.end_rest(key);
            if let Some(rpc) = self.table.get_mut(key) {
                rpc.timer = None;
            }
            self.set_timer(key, at);
            at = at + WAKE_PAUSE;
        }
    }

    fn first_call(&self, peer: PeerKey) -> Option<RpcKey> {
        self.peers.get(peer)?.rest.calls.first()
    }

    /// A server has answered something of ours.
    pub(in crate::endpoint) fn on_answered(&mut self, now: Instant, peer_key: PeerKey) {
        let doubt = self.config.timeout * DOUBT_QUARTERS / 4;
        let Some(peer) = self.peers.get_mut(peer_key) else {
            return;
        };
        if peer.rest.on_answer(now) >= doubt {
            self.wake_calls(now, peer_key);
        }
    }

    /// A peer has another token: its process is another one perhaps.
    pub(in crate::endpoint) fn on_renewed(&mut self, now: Instant, peer_key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(peer_key) {
            peer.rest.renewed = now;
        }
        let told = self.peers.get(peer_key).map(|peer| peer.validation.told);
        for key in self.rpcs_of(peer_key) {
            if let (Some(told), Some(rpc)) = (told, self.table.get_mut(key))
                && rpc.at_rest
                && !rpc.is_client()
            {
                // It was validated; from now on its client wants to see that.
                rpc.shown = told;
            }
        }
        self.wake_calls(now, peer_key);
        self.watch_requests(peer_key);
    }

    /// Sets the timer of the call at rest that asks next.
    fn watch_calls(&mut self, peer_key: PeerKey) {
        let Some(peer) = self.peers.get(peer_key) else {
            return;
        };
        let due = peer.rest.next_question(self.config.timeout);
        if let Some(first) = peer.rest.calls.first() {
            self.set_timer(first, due);
        }
    }

    /// Sets the timer of the request at rest that is looked after.
    fn watch_requests(&mut self, peer_key: PeerKey) {
        let Some(peer) = self.peers.get(peer_key) else {
            return;
        };
        let Some(first) = peer.rest.requests.first() else {
            return;
        };
        let renewed = peer.rest.renewed;
        let known = |rpc: &Rpc| rpc.liveness.heard >= renewed;
        let due = if self.table.get(first).is_some_and(known) {
            peer.heard + self.patience()
        } else {
            renewed
        };
        self.set_timer(first, due);
    }

    fn patience(&self) -> Duration {
        self.config.timeout * PATIENCE_QUARTERS / 4
    }

    /// The silence after which a server is dead whose calls were at rest.
    fn silence_of_server(&self) -> Duration {
        2 * self.config.timeout - self.config.timeout / MARGIN_PARTS
    }

    /// The same of a client whose requests are in service.
    pub(in crate::endpoint) fn silence_of_client(&self) -> Duration {
        let least = 2 * self.config.timeout;
        self.config.client_timeout.max(least) - self.config.timeout / MARGIN_PARTS
    }

    /// For how long the server of a call that was at rest has been silent, and what it was asked in vain, if
    /// that means that it is dead.
    pub(in crate::endpoint) fn dead_server_at_rest(
        &self,
        now: Instant,
        rpc: &Rpc,
    ) -> Option<(Duration, u32)> {
        let peer = self.peers.get(rpc.peer).filter(|_| rpc.liveness.rested)?;
        let asked = (self.config.timeout, self.config.timeout_resends);
        peer.dead_at_rest(now, self.silence_of_server(), asked)
    }

    /// When to look at an RPC that is to be asked about at `ask`: earlier if its server is dead by then.
    pub(in crate::endpoint) fn next_look(&self, now: Instant, rpc: &Rpc, ask: Instant) -> Instant {
        let peer = self.peers.get(rpc.peer).filter(|_| rpc.liveness.rested);
        let dead = peer.map(|peer| peer.heard + self.silence_of_server());
        dead.filter(|dead| *dead > now)
            .map_or(ask, |dead| ask.min(dead))
    }

    /// Asks the client of a request in service whether it still waits. A late packet may have brought the
    /// request back to a port that its client had before: then the one of which more was heard is asked too.
    pub(in crate::endpoint) fn ask_client(&mut self, now: Instant, key: RpcKey) {
        self.ask_for_proof(now, key);
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        let heard = self.peers.get(rpc.peer).map(|peer| peer.heard);
        let other = rpc.moved_from.and_then(|peer| self.peers.get(peer));
        if let Some(other) = other.filter(|other| Some(other.heard) > heard) {
            let (to, shown) = (other.addr, other.validation.told);
            self.ask_elsewhere(key, to, shown);
        }
    }

    /// Wakes the call of a request that its application has dropped: only by asking does it end.
    pub(in crate::endpoint) fn say_abandoned(&mut self, key: RpcKey) {
        let validated = |rpc: &Rpc| self.validates && self.is_validated(rpc);
        if self.table.get(key).is_some_and(validated) {
            self.stats.busy_sent += 1;
            self.send_about(key, Packet::Busy(Busy::Unexplained));
        }
    }

    /// A packet of the client of a request at rest is about that request: others have their turn.
    pub(in crate::endpoint) fn heard_at_rest(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        if !rpc.at_rest || rpc.is_client() {
            return;
        }
        let peer_key = rpc.peer;
        if let Some(peer) = self.peers.get_mut(peer_key) {
            self.table.end_rest(key, &mut peer.rest.requests);
            self.table.rest(key, &mut peer.rest.requests);
        }
        if let Some(rpc) = self.table.get_mut(key) {
            rpc.liveness.unanswered = 0;
        }
        self.watch_requests(peer_key);
    }

    /// What to do about a call at rest whose timer came up; `None`: it wakes, and asks.
    pub(in crate::endpoint) fn call_at_rest(
        &mut self,
        now: Instant,
        key: RpcKey,
    ) -> Option<TimeoutAction> {
        let peer_key = self.table.get(key)?.peer;
        let peer = self.peers.get_mut(peer_key)?;
        if peer.rest.calls.first() != Some(key) {
            return Some(TimeoutAction::Rest);
        }
        let due = peer.rest.next_question(self.config.timeout);
        if now < due {
            return Some(TimeoutAction::Wait(due));
        }
        peer.rest.on_question(now);
        self.end_rest(key);
        None
    }

    /// What to do about a request in service of a validated client.
    pub(in crate::endpoint) fn request_at_rest(
        &mut self,
        now: Instant,
        key: RpcKey,
    ) -> Option<TimeoutAction> {
        let rpc = self.table.get(key)?;
        let (peer_key, liveness) = (rpc.peer, rpc.liveness);
        let (patience, silence) = (self.patience(), self.silence_of_client());
        let timeout = self.config.timeout;
        if !rpc.at_rest {
            let peer = self.peers.get_mut(peer_key)?;
            self.table.rest(key, &mut peer.rest.requests);
        }
        let peer = self.peers.get_mut(peer_key)?;
        if peer.rest.requests.first() != Some(key) {
            return Some(TimeoutAction::Rest);
        }
        if now.saturating_since(peer.heard) >= patience {
            let asked = (timeout, self.config.timeout_resends);
            let dead = peer.dead_at_rest(now, silence, asked);
            return Some(match dead {
                Some((silent, asked)) => TimeoutAction::PeerDead(peer_key, silent, asked),
                None => TimeoutAction::AskClient,
            });
        }
        let requests = u32::try_from(peer.served()).unwrap_or(u32::MAX);
        let turns = TURN_TIMEOUTS.saturating_add(requests.saturating_mul(TURN_TIMEOUTS_EACH));
        let out_of_turn = liveness.heard + timeout.saturating_mul(turns) <= now;
        if !out_of_turn && liveness.heard >= peer.rest.renewed {
            return Some(TimeoutAction::Wait(peer.heard + patience));
        }
        let unanswered = if liveness.heard > liveness.asked {
            0
        } else {
            liveness.unanswered
        };
        let again = liveness.asked + timeout / 4;
        Some(if unanswered >= RPC_TIMEOUTS {
            TimeoutAction::GiveUp
        } else if unanswered > 0 && now < again {
            TimeoutAction::Wait(again)
        } else if let Err(at) = peer.rest.ask_renewal(now) {
            TimeoutAction::Wait(at)
        } else {
            TimeoutAction::AskClient
        })
    }
}
