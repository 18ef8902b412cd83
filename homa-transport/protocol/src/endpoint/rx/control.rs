//! What control packets do: GRANT, RESEND, RPC_UNKNOWN, BUSY, CUTOFFS, NEED_ACK, ACK.

use std::time::Duration;

use crate::config::Wire;
use crate::endpoint::arrival::Arrival;
use crate::endpoint::profile::rules::Rule;
use crate::endpoint::rpcs::rpc::{Rpc, State};
use crate::endpoint::{Endpoint, RpcKey};
use crate::error::{Delivery, Limit, RpcError};
use crate::units::Instant;
use crate::wire::{self, AckEntry, Acks, Busy, Packet, Refusal, Resend, Unknown};

/// RPC_UNKNOWNs for an RPC the peer had, each answering a RESEND of its own, that mean that it is
/// forgotten. One may have been overtaken by the packet that made the RPC known.
const UNKNOWN_MEANS_FORGOTTEN: u32 = 2;
/// RESENDs for a request whose response is under way that mean the same, each after a RESEND of our own
/// and with no DATA between. Late ones of the time before the response must be rare for that.
const RESENDS_MEAN_FORGOTTEN: u32 = 3;

/// No process dies and is replaced in less time. A server that says that it is younger than a call by no more
/// has been there all the time: its word was so long on its way.
const RESTART_MIN: Duration = Duration::from_millis(50);

impl Endpoint {
    /// Source: homa_incoming.c, `homa_grant_pkt`.
    pub(in crate::endpoint) fn grant(&mut self, now: Instant, key: RpcKey, grant: wire::Grant) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if !matches!(rpc.state, State::Outgoing | State::Responding) {
            return;
        }
        if let Some(out) = rpc.out.as_mut() {
            let began = out.began();
            let raised = out.grant(grant.offset, grant.priority);
            rpc.liveness.on_progress(now);
            if raised {
                if let (Some(began), Some(peer)) = (began, self.peers.get_mut(rpc.peer)) {
                    peer.round_trip.on_first_grant(now.saturating_since(began));
                }
                rpc.liveness.advanced = self.memory_clock.latest();
                self.packets_arrived(now, key);
            }
            self.start_answered(key);
            self.enqueue(key);
        }
    }

    /// On protocol 146 a server says BUSY of a request that it refuses as well, so that does not mean
    /// that it has it.
    pub(in crate::endpoint) fn busy(&mut self, now: Instant, key: RpcKey, busy: Busy) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if self.validates && busy == Busy::Unexplained {
            // Nobody works for it: what is known of the peer does not speak for it any more.
            return self.wake_call(now, key);
        }
        if let Busy::Refused(refusal) = busy
            && self.validates
            && rpc.state == State::Outgoing
        {
            let (peer, option) = (rpc.addr, limit_of(refusal));
            let delivery = if rpc.liveness.had_predecessor {
                Delivery::Unknown
            } else {
                Delivery::NotSent
            };
            let error = RpcError::Refused {
                peer,
                option,
                delivery,
            };
            return self.fail(key, error);
        }
        // A server that waits for room, or for the rest of the request, does not hold it.
        if rpc.is_client() && busy != Busy::Waiting {
            rpc.liveness.advanced = self.memory_clock.latest();
        }
        rpc.liveness.on_busy(now, self.validates);
        self.start_answered(key);
        if busy == Busy::Working {
            self.rest_call(key);
        } else {
            self.wake_call(now, key);
        }
    }

    /// Source: homa_incoming.c, `homa_resend_pkt`.
    pub(in crate::endpoint) fn resend(
        &mut self,
        arrival: Arrival,
        rpc: Option<RpcKey>,
        resend: Resend,
    ) {
        let id = arrival.id;
        let Some(key) = rpc else {
            if !id.is_client() && (self.refuse_again(&arrival) || self.was_delivered(&arrival)) {
                // RPC_UNKNOWN would make the client send, and us execute, the request again.
                return;
            }
            if !id.is_client() && self.resend_of_refused(&arrival) {
                return;
            }
            self.stats.unknown_sent += 1;
            let unknown = self.not_received();
            return self.reply(&arrival, Packet::RpcUnknown(unknown));
        };
        // Its own bytes may be enough to let a short response go again.
        self.release_held(key);
        if resend.length.is_none() && self.send_start(arrival.now, key) {
            return;
        }
        // The first byte alone is asked for to hear that we are there, not because it is missing.
        let proof = self.validates && (resend.offset, resend.length) == (0, Some(1));
        let rests = |rpc: &Rpc| rpc.at_rest && rpc.is_client();
        if self.table.get(key).is_some_and(rests) {
            if proof {
                // The server asks whether we still wait, which a question of our own says.
                return self.request_missing(arrival.now, key);
            }
            self.wake_call(arrival.now, key);
        }
        let pause = if proof {
            Duration::ZERO
        } else {
            self.copy_pause(key)
        };
        let when = (arrival.now, pause);
        let Some(entry) = self.table.get_mut(key) else {
            return;
        };
        let mut busy = Busy::Working;
        let data_follows = match (entry.state, entry.out.as_mut()) {
            // Over UDP its client has to see that we live, and that nobody works for this call.
            (State::Abandoned, _) => return self.say_abandoned(key),
            (State::Incoming, _) => return self.request_asked_for_again(key),
            // The same seen from the other end: a client that misses part of a response has the rest.
            (State::Receiving, _) if resend.length.is_some() => {
                self.end_served(key);
                self.stats.unknown_sent += 1;
                return self.reply(&arrival, Packet::RpcUnknown(Unknown::Unexplained));
            }
            (State::Receiving, _) => {
                if !entry.is_granting() {
                    busy = Busy::Waiting;
                }
                false
            }
            (State::InService, _) | (_, None) => false,
            (_, Some(out)) => {
                let arrived =
                    resend.length.is_some() && out.shows_arrival(resend.offset, arrival.now);
                let follows = out.resend(resend.offset, resend.length, resend.priority, when);
                if arrived {
                    self.packets_arrived(arrival.now, key);
                } else {
                    self.look_for_black_hole(arrival.now, key);
                }
                follows
            }
        };
        self.enqueue(key);
        if !data_follows {
            self.stats.busy_sent += 1;
            self.reply(&arrival, Packet::Busy(busy));
        }
    }

    /// How long after a packet of an RPC was sent a RESEND for it says nothing new.
    fn copy_pause(&self, key: RpcKey) -> Duration {
        let interval = self.config.resend_interval;
        let peer = self.table.get(key).and_then(|rpc| self.peers.get(rpc.peer));
        peer.map_or(interval, |peer| peer.round_trip.copy_pause(interval))
    }

    /// Part of the response is here, so the server had all of the request: the RESEND is late, or the
    /// server was started again, and has the request from a late duplicate. An answer could make it
    /// execute the request; without one it may wait for ever, and say BUSY.
    fn request_asked_for_again(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let liveness = &mut rpc.liveness;
        if !std::mem::take(&mut liveness.asked_since_resend) {
            return;
        }
        liveness.resends_of_request += 1;
        if liveness.resends_of_request >= RESENDS_MEAN_FORGOTTEN {
            let peer = rpc.addr;
            self.fail(key, RpcError::Forgotten { peer });
        }
    }

    /// Tells the client of a request that was refused so again. False: it was not.
    pub(in crate::endpoint) fn refuse_again(&mut self, arrival: &Arrival) -> bool {
        let at = self.memory_time();
        let Some(refusal) = self.replays.refusal(arrival.peer.ip(), arrival.id, at) else {
            return false;
        };
        self.stats.busy_sent += 1;
        self.reply(arrival, Packet::Busy(Busy::Refused(refusal)));
        true
    }

    pub(in crate::endpoint) fn was_delivered(&mut self, arrival: &Arrival) -> bool {
        let at = self.memory_time();
        !self.rules.breaks(Rule::ClientsKeepTheirIds)
            && self.replays.contains(arrival.peer.ip(), arrival.id, at)
    }

    /// What to say of a request that is neither here nor remembered.
    fn not_received(&self) -> Unknown {
        let (reach, since_start) = self.memory_clock.reach(self.config.delivered_memory);
        Unknown::NotReceived { reach, since_start }
    }

    /// At a server: the client no longer wants the RPC. At a client: the server does not have it.
    /// Differs from homa_incoming.c, `homa_rpc_unknown_pkt`: the call is sent again only if it is certain
    /// that it was not executed. Else it fails.
    pub(in crate::endpoint) fn rpc_unknown(
        &mut self,
        arrival: Arrival,
        key: RpcKey,
        unknown: Unknown,
    ) {
        if !arrival.id.is_client() {
            self.remember_cancelled(&arrival);
            self.end_served(key);
            return;
        }
        let memory = self.config.delivered_memory;
        let (reach, restarted) = match unknown {
            Unknown::NotReceived { reach, since_start } if self.validates => (reach, since_start),
            _ => (memory, false),
        };
        let reach = if self.rules.breaks(Rule::ProofsHaveReach) {
            Duration::MAX
        } else {
            reach
        };
        let pause = self.copy_pause(key);
        self.wake_call(arrival.now, key);
        if let Some(rpc) = self.table.get(key)
            && rpc.liveness.known_to_peer
        {
            // What it had forgotten of this call it may have of others.
            self.wake_calls(arrival.now, rpc.peer);
        }
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let liveness = &mut rpc.liveness;
        // A server that has forgotten a delivered request says the same as one that never had it. But it
        // remembers for a while, so replies that follow one another within that time prove that the
        // request was not delivered.
        let gap = arrival.now.saturating_since(liveness.not_delivered_at);
        let heard_nothing = !liveness.known_to_peer;
        let proven = gap < reach && (self.validates || heard_nothing);
        // A server that has just been started need not have had a predecessor, and if it had one, that had
        // shown nothing of the call: the one case in which both may execute it.
        let supposed = !proven && restarted && heard_nothing;
        liveness.had_predecessor |= supposed && gap > reach.saturating_add(RESTART_MIN);
        let proven = proven || supposed;
        if proven {
            // Only a chain of proofs from the first packet on is one: a server that has forgotten the call
            // says the same again.
            liveness.not_delivered_at = liveness.not_delivered_at.max(liveness.asked);
        }
        if proven && rpc.state == State::Outgoing {
            // Others answer RESENDs from before the request was sent again.
            if std::mem::take(&mut liveness.asked_since_unknown) {
                liveness.known_to_peer = false;
                if let Some(out) = rpc.out.as_mut() {
                    out.restart(arrival.now, pause);
                }
                self.look_for_black_hole(arrival.now, key);
                self.enqueue(key);
                self.send_start(arrival.now, key);
            }
            return;
        }
        if liveness.known_to_peer {
            if !std::mem::take(&mut liveness.asked_since_unknown) {
                return;
            }
            liveness.unknown_replies += 1;
            if liveness.unknown_replies < UNKNOWN_MEANS_FORGOTTEN {
                return;
            }
        }
        let peer = rpc.addr;
        let error = if restarted {
            RpcError::PeerRestarted { peer }
        } else {
            RpcError::Forgotten { peer }
        };
        self.fail(key, error);
    }

    /// The client gave up a request of which nothing has arrived: late DATA must not begin it.
    pub(in crate::endpoint) fn cancelled_unseen(&mut self, arrival: &Arrival) {
        self.stats.rpc_not_found += 1;
        if self.serving && !arrival.id.is_client() {
            self.remember_cancelled(arrival);
        }
    }

    fn remember_cancelled(&mut self, arrival: &Arrival) {
        self.remember_delivered(arrival.peer, arrival.id, arrival.validated);
    }

    /// Source: homa_incoming.c, `homa_need_ack_pkt`.
    pub(in crate::endpoint) fn need_ack(&mut self, arrival: Arrival, rpc: Option<RpcKey>) {
        let now = arrival.now;
        if !arrival.id.is_client() {
            self.stats.rpc_not_found += 1;
            return;
        }
        if let Some(key) = rpc {
            // It is ours to go on. Without a word the server would take us for dead.
            let ours = |rpc: &Rpc| rpc.waits_for_room.is_some() || rpc.is_granting();
            if self.table.get(key).is_some_and(ours) {
                self.stats.busy_sent += 1;
                return self.reply(&arrival, Packet::Busy(Busy::Waiting));
            }
            return self.need_ack_of_incomplete(now, key);
        }
        let others = match self.sender_of(&arrival) {
            Some(known) => known.take_acks(),
            None => Acks::new(),
        };
        self.stats.acks_sent += 1;
        self.reply(&arrival, Packet::Ack(others));
    }

    /// The server has handed over the whole response, and we lack part of it. That may be on its way: it
    /// is asked for after a silence as long as the server's delay. The first time, what was asked or heard
    /// before does not put that off.
    fn need_ack_of_incomplete(&mut self, now: Instant, key: RpcKey) {
        self.wake_call(now, key);
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let liveness = &mut rpc.liveness;
        if !std::mem::replace(&mut liveness.told_all_sent, true) {
            liveness.busy = 0;
            liveness.unanswered = liveness.unanswered.min(1);
        }
        let last = liveness.quiet_since.max(liveness.asked);
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        let due = last + self.resend_interval(rpc).max(self.copy_pause(key));
        if now >= due {
            return self.request_missing(now, key);
        }
        self.set_timer(key, due);
    }

    pub(in crate::endpoint) fn acks(&mut self, arrival: Arrival, acks: &Acks) {
        if let Some(peer) = self.sender_of(&arrival) {
            peer.round_trip
                .on_ack(arrival.id.client_form(), arrival.now);
        }
        let server_port = self.local_port;
        self.acked(
            &arrival,
            AckEntry {
                id: arrival.id.client_form(),
                server_port,
            },
        );
        for entry in acks {
            self.acked(&arrival, *entry);
        }
    }

    /// All of the RPC's message has arrived.
    pub(in crate::endpoint) fn measure_resends(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        let took = rpc.out.as_ref().and_then(|out| out.resends_went_on_for());
        if let (Some(took), Some(peer)) = (took, self.peers.get_mut(rpc.peer)) {
            peer.round_trip.on_sample(took);
        }
    }

    /// The client has the response, or no longer wants it. Source: homa_rpc.c, `homa_rpc_ack`.
    pub(in crate::endpoint) fn acked(&mut self, arrival: &Arrival, entry: AckEntry) {
        // On encapsulated links ports inside packets are never used for lookup.
        if self.wire == Wire::Native && entry.server_port != self.local_port {
            return;
        }
        let id = entry.id.client_form().other_side();
        let Some(key) = self.table.find_server(arrival.peer, arrival.local, id) else {
            return;
        };
        self.packets_arrived(arrival.now, key);
        self.measure_resends(key);
        if self
            .table
            .get(key)
            .is_some_and(|rpc| rpc.state != State::Responding)
        {
            // The call was given up while we had it: late DATA must not revive it.
            self.remember_cancelled(&Arrival { id, ..*arrival });
        }
        self.end_served(key);
    }
}

/// The limit at its server because of which a call is refused.
const fn limit_of(refusal: Refusal) -> Limit {
    match refusal {
        Refusal::Rpcs => Limit::Rpcs,
        Refusal::RpcsPerPeer => Limit::RpcsPerPeer,
    }
}
