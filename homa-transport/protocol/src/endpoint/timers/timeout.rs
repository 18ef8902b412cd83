//! What happens when nothing happens: RESEND, NEED_ACK, giving up.

use std::time::Duration;

use crate::endpoint::peers::peer::PeerKey;
use crate::endpoint::profile::rules::Rule;
use crate::endpoint::rpcs::rpc::{Liveness, Rpc, State};
use crate::endpoint::{Endpoint, RpcKey};
use crate::error::{Delivery, Report, RpcError, Unreachable};
use crate::units::Instant;
use crate::wire::{Packet, Resend, Unknown};

/// RESENDs for one message at a time; the rest of its gaps has to wait for the next time.
const GAPS_AT_ONCE: usize = 64;
/// An RPC ends when nothing was heard of it for this many timeouts, even if its peer lives.
pub(in crate::endpoint) const RPC_TIMEOUTS: u32 = 10;
/// An RPC ends when it has come no nearer to its end for this many timeouts, whatever is said of it.
const STANDSTILL_TIMEOUTS: u32 = 30;

/// What to do about an RPC whose timer came up.
pub(in crate::endpoint) enum TimeoutAction {
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing: another RPC at rest with the same peer is looked after.
    Rest,
    /// Ask the peer for what is missing.
    Ask,
    /// Ask the client whether it has the response.
    NeedAck,
    /// Ask the client to show that it is there.
    Prove,
    /// Ask the client of a request in service whether it is there.
    AskClient,
    /// Nothing was heard of it for too long, though its peer lives.
    GiveUp,
    /// The peer was silent for so long, so many requests unanswered.
    PeerDead(PeerKey, Duration, u32),
    /// The server may have executed the request and forgotten it.
    Forgotten,
}

impl Endpoint {
    /// Does what is due at `now`. Hand in all packets that have arrived first.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.memory_clock.at(now);
        if self.peers.next_sweep().is_some_and(|at| at <= now) {
            self.peers.sweep(now);
            self.replays.sweep(self.memory_time());
            self.release_memory(now);
        }
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(now, &mut due);
        for key in due.drain(..) {
            self.rpc_timeout(now, key);
        }
        self.due = due;
    }

    fn rpc_timeout(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if rpc.timer.is_none_or(|timer| timer > now) {
            return;
        }
        rpc.timer = None;
        let next = match self.timeout_action(now, key) {
            TimeoutAction::Wait(until) => until,
            timeout_action @ (TimeoutAction::Ask | TimeoutAction::NeedAck) => {
                match self.ask_peer(now, key) {
                    Err(again) => again,
                    Ok(()) if matches!(timeout_action, TimeoutAction::Ask) => {
                        self.request_missing(now, key);
                        now + self.config.resend_interval
                    }
                    Ok(()) => {
                        self.need_ack_for(now, key);
                        now + self.ack_wait(key)
                    }
                }
            }
            TimeoutAction::Prove => {
                self.ask_for_proof(now, key);
                now + self.config.resend_interval
            }
            TimeoutAction::AskClient => match self.ask_peer(now, key) {
                Err(again) => again,
                Ok(()) => {
                    self.ask_client(now, key);
                    now + self.config.resend_interval
                }
            },
            TimeoutAction::Rest => return,
            TimeoutAction::GiveUp => return self.give_up(now, key),
            TimeoutAction::Forgotten => {
                if let Some(peer) = self.table.get(key).map(|rpc| rpc.addr) {
                    self.fail(key, RpcError::Forgotten { peer });
                }
                return;
            }
            TimeoutAction::PeerDead(peer, silent, resends) => {
                return self.peer_dead(peer, silent, resends);
            }
        };
        self.set_timer(key, next);
    }

    /// Whether the peer of an RPC may be asked for something now, or when to try again.
    fn ask_peer(&mut self, now: Instant, key: RpcKey) -> Result<(), Instant> {
        let interval = self.config.resend_interval;
        let wait = Err(now + interval);
        let Some(rpc) = self.table.get(key).filter(|rpc| self.may_be_asked(rpc)) else {
            return wait;
        };
        let proven = self.is_validated(rpc);
        let history = (rpc.liveness.unanswered, rpc.liveness.asked);
        match self.peers.get_mut(rpc.peer) {
            None => wait,
            Some(peer) if proven => peer.ask(now, interval),
            Some(peer) => peer.ask_unproven(now, interval, history),
        }
    }

    /// The peer has not answered in all this time: its RPCs end, and what is known of it goes. Requests
    /// in service go on for a while longer; on protocol 146 nothing is asked about them at all (see
    /// `waiting_client`).
    fn peer_dead(&mut self, peer: PeerKey, silent: Duration, resends: u32) {
        self.stats.peers_given_up += 1;
        let gone = self.validates && silent >= self.silence_of_client();
        for key in self.rpcs_of(peer) {
            let Some(rpc) = self.table.get(key) else {
                continue;
            };
            if !gone && matches!(rpc.state, State::InService | State::Abandoned) {
                continue;
            }
            if rpc.is_client() {
                let error = RpcError::TimedOut {
                    peer: rpc.addr,
                    silent,
                    resends,
                };
                self.fail(key, error);
            } else {
                self.end_served(key);
            }
        }
        self.forget_peer(peer);
    }

    /// The RPCs with a peer, oldest first.
    pub(in crate::endpoint) fn rpcs_of(&self, peer: PeerKey) -> Vec<RpcKey> {
        let peer = self.peers.get(peer);
        peer.map_or_else(Vec::new, |peer| self.table.of_peer(&peer.rpc_list))
    }

    fn timeout_action(&mut self, now: Instant, key: RpcKey) -> TimeoutAction {
        let rests = |rpc: &Rpc| rpc.at_rest && rpc.is_client();
        if self.table.get(key).is_some_and(rests)
            && let Some(timeout_action) = self.call_at_rest(now, key)
        {
            return timeout_action;
        }
        if let Some(timeout_action) = self.action_without_asking(now, key) {
            return timeout_action;
        }
        let Some(rpc) = self.table.get(key) else {
            return TimeoutAction::GiveUp;
        };
        let config = &self.config;
        if let Some(peer) = self.peers.get(rpc.peer)
            && let Some((silent, resends)) = peer.dead(now, config.timeout, config.timeout_resends)
            // A client whose calls rest is heard now and then only, at a new port of a NAT perhaps.
            && (rpc.is_client() || !self.validates || silent >= self.silence_of_client())
        {
            return TimeoutAction::PeerDead(rpc.peer, silent, resends);
        }
        let liveness = &rpc.liveness;
        if let Some((silent, resends)) = self.dead_server_at_rest(now, rpc) {
            return TimeoutAction::PeerDead(rpc.peer, silent, resends);
        }
        let own_silence = now.saturating_since(liveness.heard);
        if liveness.unanswered >= config.timeout_resends
            && own_silence >= config.timeout.saturating_mul(RPC_TIMEOUTS)
        {
            return TimeoutAction::GiveUp;
        }
        let asks_ack = rpc.state == State::Responding;
        let interval = if asks_ack {
            self.need_ack_interval(rpc)
        } else {
            self.resend_interval(rpc)
        };
        let last = if liveness.unanswered == 0 {
            liveness.quiet_since
        } else {
            liveness.asked
        };
        match (now >= last + interval, asks_ack) {
            (false, _) => TimeoutAction::Wait(self.next_look(now, rpc, last + interval)),
            (true, true) => TimeoutAction::NeedAck,
            (true, false) => TimeoutAction::Ask,
        }
    }

    /// What to do about an RPC whose other end is not to be asked for anything.
    fn action_without_asking(&mut self, now: Instant, key: RpcKey) -> Option<TimeoutAction> {
        let rpc = self.table.get(key)?;
        let proven = self.is_validated(rpc);
        let in_vain = rpc.liveness.unanswered >= self.config.timeout_resends;
        // Its silence is no sign that the peer is dead, so it has to end by itself.
        let unproven = !self.may_be_asked(rpc) || (!proven && in_vain);
        let stands_still = self.stands_still(rpc);
        let next = rpc.liveness.asked + self.resend_interval(rpc);
        let config = &self.config;
        let rpc = self.table.get_mut(key)?;
        if rpc.liveness.asked_too_late && rpc.state == State::Outgoing {
            return Some(TimeoutAction::Forgotten);
        }
        if stands_still {
            return Some(TimeoutAction::GiveUp);
        }
        if rpc.waits_for_room.is_some() {
            return Some(rpc.liveness.waiting_client(now, config.timeout));
        }
        if rpc.state == State::InService && self.validates && (proven || rpc.at_rest) {
            return self.request_at_rest(now, key);
        }
        let sending = rpc.out.as_ref().is_some_and(|out| out.is_sendable());
        let own_silence = now.saturating_since(rpc.liveness.heard);
        match rpc.state {
            State::Receiving | State::Responding
                if (unproven || rpc.held) && own_silence >= config.timeout =>
            {
                Some(TimeoutAction::GiveUp)
            }
            State::Responding if rpc.held && now < next => Some(TimeoutAction::Wait(next)),
            State::Responding if rpc.held => Some(TimeoutAction::Prove),
            State::Outgoing | State::Responding if sending => {
                rpc.liveness.on_nothing_due(now);
                Some(TimeoutAction::Wait(now + config.resend_interval))
            }
            // It is ours to grant more; the grant sets the timer anew.
            State::Incoming | State::Receiving if rpc.is_granting() => {
                Some(rpc.liveness.waiting_client(now, config.timeout))
            }
            State::InService => Some(rpc.liveness.waiting_client(now, config.timeout)),
            State::Abandoned => {
                let quiet = own_silence >= config.timeout;
                let timeout_action = rpc.liveness.waiting_client(now, config.timeout);
                if quiet {
                    self.say_abandoned(key);
                }
                Some(timeout_action)
            }
            State::Outgoing | State::Responding | State::Incoming | State::Receiving => None,
        }
    }

    /// Whether an RPC has come no nearer to its end for too long, whatever was said of it meanwhile, and
    /// nobody is at work for it: neither an application, nor we who have to grant or to send.
    fn stands_still(&self, rpc: &Rpc) -> bool {
        let sending = rpc.out.as_ref().is_some_and(|out| out.is_sendable());
        let at_work = match rpc.state {
            State::InService => true,
            State::Outgoing | State::Responding => sending && !rpc.held,
            State::Incoming | State::Receiving => rpc.waits_for_room.is_none() && rpc.is_granting(),
            State::Abandoned => false,
        };
        if self.rules.breaks(Rule::StandstillEnds) {
            return false;
        }
        // A client that goes on gets its response by RESENDs alone, and gives up before that.
        let times = if rpc.state == State::Responding { 2 } else { 1 };
        !at_work && self.standstill(rpc) >= times * self.standstill_max()
    }

    /// For how long an RPC has come no nearer to its end.
    fn standstill(&self, rpc: &Rpc) -> Duration {
        let now = self.memory_clock.latest();
        now.saturating_since(rpc.liveness.advanced)
    }

    /// How long an RPC may come no nearer to its end.
    pub(in crate::endpoint) fn standstill_max(&self) -> Duration {
        self.config.timeout.saturating_mul(STANDSTILL_TIMEOUTS)
    }

    /// Sends RESENDs for what the RPC is missing: every gap and the granted tail, or everything if
    /// nothing has come. Of a slow peer's tail, which is rather late than lost, only a part is asked for. Source: homa_incoming.c, `homa_request_retrans`.
    pub(in crate::endpoint) fn request_missing(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        rpc.liveness.on_ask(now);
        if self.send_start(now, key) {
            return;
        }
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let grant_delay = self.peers.get(rpc.peer).map(|peer| peer.grant_delay);
        let slow = grant_delay.is_some_and(|late| late.is_slow(self.config.resend_interval));
        let ranges: Vec<(u32, Option<u32>)> = match &mut rpc.inbound {
            Some(inbound) if inbound.granted() > 0 => {
                let tail_max = if slow { inbound.probe() } else { u32::MAX };
                inbound
                    .missing(tail_max)
                    .take(GAPS_AT_ONCE)
                    .map(|range| (range.start, Some(range.end - range.start)))
                    .collect()
            }
            _ => vec![(0, None)],
        };
        let priority = self.config.highest_priority();
        for (offset, length) in ranges {
            self.stats.resends_sent += 1;
            let resend = Resend {
                offset,
                length,
                priority,
            };
            self.send_about(key, Packet::Resend(resend));
        }
    }

    fn need_ack_for(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if rpc.liveness.asks == 0
            && let Some(peer) = self.peers.get_mut(rpc.peer)
        {
            peer.round_trip.on_need_ack(rpc.id.client_form(), now);
        }
        rpc.liveness.on_ask(now);
        self.stats.need_acks_sent += 1;
        self.send_about(key, Packet::NeedAck);
    }

    fn give_up(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        if !rpc.is_client() {
            self.end_served(key);
            return;
        }
        let (peer, silent) = (rpc.addr, now.saturating_since(rpc.liveness.heard));
        let still = self.standstill(rpc);
        let error = if still >= self.standstill_max() && silent < self.config.timeout {
            RpcError::Stalled { peer, still }
        } else {
            RpcError::TimedOut {
                peer,
                silent,
                resends: rpc.liveness.unanswered,
            }
        };
        let (addr, local, id) = (rpc.addr, rpc.local, rpc.id);
        self.fail(key, error);
        self.stats.unknown_sent += 1;
        self.send_to_server(addr, local, id, Packet::RpcUnknown(Unknown::Unexplained));
    }

    /// Ends an RPC whose peer cannot be reached.
    pub(in crate::endpoint) fn end_unreachable(&mut self, key: RpcKey, report: &Report) {
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        if !rpc.is_client() {
            if matches!(report.reason, Unreachable::Port | Unreachable::Protocol) {
                self.end_served(key);
            }
            return;
        }
        let peer = rpc.addr;
        // Only if one of this RPC's first packets was refused is it certain that the server never had
        // all of it: the report may be late, about an earlier RPC with a server that is back since.
        let liveness = &rpc.liveness;
        let first_packets = liveness.unanswered == 0 && !liveness.known_to_peer;
        let first_packets = first_packets && !liveness.had_predecessor;
        let peer_heard = self.peers.get(rpc.peer).map(|peer| peer.heard);
        let quiet = peer_heard.is_some_and(|heard| heard <= liveness.born);
        let certain = report.about == Some(rpc.id) && first_packets && quiet;
        let delivery = match (certain, report.reason) {
            (true, _) => Delivery::NotSent,
            (false, Unreachable::Denied) => return,
            (false, _) => Delivery::Unknown,
        };
        self.fail(
            key,
            RpcError::Unreachable {
                peer,
                reason: report.reason,
                delivery,
            },
        );
    }
}

impl Liveness {
    /// The other end waits for us: a client that waits for its response asks from time to time; one of which nothing is heard in
    /// `RPC_TIMEOUTS` timer runs, a timeout apart each, is gone. Runs are counted rather than time, so
    /// that a stall of our own does not look like its silence.
    fn waiting_client(&mut self, now: Instant, timeout: Duration) -> TimeoutAction {
        if self.heard > self.asked {
            self.unanswered = 0;
        }
        let due = self.heard.max(self.asked) + timeout;
        if now < due {
            return TimeoutAction::Wait(due);
        }
        self.asked = now;
        self.unanswered += 1;
        if self.unanswered >= RPC_TIMEOUTS {
            TimeoutAction::GiveUp
        } else {
            TimeoutAction::Wait(now + timeout)
        }
    }
}
