//! START_MSG: messages that go by grants alone.
//!
//! Modules up to July 2026 send the first bytes of a long message unasked and the rest by grants. Later
//! ones send a message either wholly unasked or wholly by grants; the second kind begins with START_MSG,
//! which holds no data. Nothing on the wire tells the two apart but that packet. So it is remembered, per
//! host as cutoffs are, and hosts of which a message that began so has come whole get our long messages in
//! the same way. (A START_MSG alone could have been forged in their name.) All others get the older scheme.
//! Over UDP there is no START_MSG.
//!
//! Where a packet is lost (source: homa_timer.c, "Homa Retransmission Strategy"):
//!
//! 1. *START_MSG of a request*: its client hears of no grant, and sends it again (`send_start`).
//! 2. *A whole request without START_MSG*: RESEND, RPC_UNKNOWN, the whole request again (`control.rs`).
//! 3. *DATA of a request that has begun*: its server asks for it by RESEND, also if all that was granted is
//!    missing (`timeout.rs`, `request_missing`).
//! 4. *START_MSG of a response*: its client asks for all of it, and the server sends START_MSG again rather
//!    than DATA, so that the client grants (`send_start`).
//! 5. *A whole response without START_MSG*: its client asks for all of it and gets it.
//! 6. *DATA of a response that has begun*: as 3.
//!
//! A lost GRANT shows as a START_MSG that comes again, or as DATA that does not come.

use crate::config::Wire;
use crate::endpoint::arrival::Arrival;
use crate::endpoint::messages::outbound::OutMessage;
use crate::endpoint::peers::peer::PeerKey;
use crate::endpoint::peers::start_habit::Habit;
use crate::endpoint::profile::rules::Rule;
use crate::endpoint::rpcs::rpc::State;
use crate::endpoint::{Endpoint, RpcKey};
use crate::units::Instant;
use crate::wire::{Busy, Data, Grant, Packet, StartMsg};

/// The message as if its first packet were DATA without data.
const fn opening(start: StartMsg) -> Data {
    Data {
        message_length: start.message_length,
        incoming: 0,
        ack: None,
        cutoff_version: 0,
        retransmit: false,
        few_unscheduled: false,
        following: 0,
        offset: 0,
    }
}

impl Endpoint {
    /// Whether START_MSG means anything here.
    pub(in crate::endpoint) fn knows_start_msg(&self) -> bool {
        self.wire == Wire::Native && self.rules.takes_start_msg
    }

    /// Makes a message to `peer` go by grants alone, if it is long and its receiver speaks so.
    pub(in crate::endpoint) fn choose_opening(&self, out: &mut OutMessage, peer: PeerKey) {
        let speaks = self.rules.always_starts || self.peers.start_habit(peer).sends();
        if speaks && self.wire == Wire::Native {
            out.go_by_grants();
        }
    }

    /// Sends START_MSG, if it is that what the message begins with and nothing of it is granted. False: it
    /// is not.
    pub(in crate::endpoint) fn send_start(&mut self, now: Instant, key: RpcKey) -> bool {
        let Some(rpc) = self.table.get_mut(key) else {
            return false;
        };
        if !matches!(rpc.state, State::Outgoing | State::Responding) {
            return false;
        }
        let peer = rpc.peer;
        let Some(out) = rpc.out.as_mut() else {
            return false;
        };
        let message_length = out.length();
        let Some(start) = out.awaits_first_grant() else {
            return false;
        };
        let repeated = std::mem::replace(&mut start.sent, true);
        if repeated && self.rules.breaks(Rule::StartIsRepeated) {
            return true;
        }
        if repeated {
            let interval = self.config.resend_interval;
            let mut hopeful = true;
            self.peers.edit_start_habit(peer, |habit| {
                hopeful = habit.on_repeat(now, interval);
            });
            if !hopeful {
                out.go_unasked();
                self.enqueue(key);
                return true;
            }
        }
        self.send_about(key, Packet::StartMsg(StartMsg { message_length }));
        true
    }

    /// Notes that an answer to START_MSG has come, if the message began by it.
    pub(in crate::endpoint) fn start_answered(&mut self, key: RpcKey) {
        if let Some(rpc) = self.table.get(key)
            && rpc.out.as_ref().is_some_and(OutMessage::goes_by_grants)
        {
            self.peers.edit_start_habit(rpc.peer, Habit::on_answer);
        }
    }

    /// Notes that a message has come whole that began by START_MSG.
    pub(in crate::endpoint) fn started_whole(&mut self, peer: PeerKey) {
        self.peers.edit_start_habit(peer, Habit::on_message);
    }

    /// A message begins that waits for a grant.
    pub(in crate::endpoint) fn start_msg(
        &mut self,
        arrival: Arrival,
        rpc: Option<RpcKey>,
        start: StartMsg,
    ) {
        let key = match rpc {
            Some(key) => key,
            None if arrival.id.is_client() => {
                self.stats.rpc_not_found += 1;
                return;
            }
            None => match self.new_served(&arrival, &opening(start)) {
                Some(key) => key,
                None => return self.ask_to_wait(&arrival),
            },
        };
        let begun = |rpc: &crate::endpoint::Rpc| rpc.inbound.is_some();
        let begun = self.table.get(key).is_some_and(begun);
        if !self.open_message(&arrival, key, &opening(start), 0) {
            let waits = |rpc: &crate::endpoint::Rpc| rpc.waits_for_room.is_some();
            if self.table.get(key).is_some_and(waits) {
                self.stats.busy_sent += 1;
                self.reply(&arrival, Packet::Busy(Busy::Waiting));
            }
            return;
        }
        if begun {
            return self.start_again(&arrival, key);
        }
        if let Some(rpc) = self.table.get_mut(key) {
            rpc.liveness.on_progress(arrival.now);
            rpc.liveness.resends_of_request = 0;
            if let Some(inbound) = rpc.inbound.as_mut() {
                inbound.set_started();
            }
        }
        self.report_progress(key);
    }

    /// A message that has begun begins again: the grant was lost, or there is none yet.
    fn start_again(&mut self, arrival: &Arrival, key: RpcKey) {
        let Some(inbound) = self.table.get(key).and_then(|rpc| rpc.inbound.as_ref()) else {
            return;
        };
        let (offset, priority) = (inbound.granted(), inbound.level());
        if !inbound.is_empty() {
            self.stats.data_duplicate += 1;
        } else if offset == 0 {
            self.stats.busy_sent += 1;
            self.reply(arrival, Packet::Busy(Busy::Waiting));
        } else {
            self.stats.grants_sent += 1;
            self.send_about(key, Packet::Grant(Grant { offset, priority }));
        }
    }

    /// Tells the client of a request for which there is no room that it has to wait. Its START_MSG comes
    /// again.
    fn ask_to_wait(&mut self, arrival: &Arrival) {
        if self.serving && self.waiting.is_refused(arrival.peer, arrival.id) {
            self.stats.busy_sent += 1;
            self.reply(arrival, Packet::Busy(Busy::Waiting));
        }
    }
}
