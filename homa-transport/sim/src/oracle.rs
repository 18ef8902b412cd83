//! The oracle: knows every call there is, and says whether what the endpoints do is right.

use std::collections::{HashMap, HashSet};

use super::call::{Call, CallState, Content, NewCall, Outcomes};
use super::cause::Causes;
use super::invariant::{Breach, Invariant, Levels};
use super::ledger::{GrantBounds, GrantLedger};
use super::scenario::Scenario;
use super::unproven::Unproven;
use homa_protocol::config::Config;
use homa_protocol::endpoint::RpcKey;
use homa_protocol::error::{Delivery, RpcError};
use homa_protocol::units::{Priority, RpcId};
use homa_protocol::wire::{Busy, Header, Malformed, Packet};

#[derive(Debug)]
pub(super) struct Oracle {
    config: Config,
    packet_bytes: usize,
    /// Packets may arrive twice.
    duplicates: bool,
    /// No packet is in the network twice, or for long.
    prompt: bool,
    causes: Causes,
    calls: Vec<Call>,
    by_id: HashMap<(usize, RpcId), usize>,
    ledgers: Vec<GrantLedger>,
    open: usize,
    outcomes: Outcomes,
    /// Ids of RPCs that are only in forged packets.
    forged: HashSet<RpcId>,
    pub(super) unproven: Unproven,
}

impl Oracle {
    pub(super) fn new(hosts: usize, scenario: &Scenario) -> Self {
        let faults = &scenario.faults;
        Self {
            config: scenario.config.clone(),
            packet_bytes: scenario.packet_bytes,
            duplicates: faults.duplication > 0,
            prompt: faults.duplication + faults.reordering == 0,
            causes: Causes::new(hosts, scenario),
            calls: Vec::new(),
            by_id: HashMap::new(),
            ledgers: (0..hosts).map(|_| GrantLedger::default()).collect(),
            open: 0,
            outcomes: Outcomes::default(),
            forged: HashSet::new(),
            unproven: Unproven::default(),
        }
    }

    /// Number of the next call.
    pub(super) const fn next_call(&self) -> usize {
        self.calls.len()
    }

    /// True if damaged packets may have been taken for sound ones, so that nothing but bounds is
    /// sure.
    pub(super) const fn is_lenient(&self) -> bool {
        self.causes.lenient
    }

    pub(super) const fn open(&self) -> usize {
        self.open
    }

    pub(super) const fn outcomes(&self) -> Outcomes {
        self.outcomes
    }

    pub(super) fn call(&self, call: usize) -> Option<&Call> {
        self.calls.get(call)
    }

    /// The call with this id (in any form) of `client`.
    pub(super) fn call_of(&self, client: usize, id: RpcId) -> Option<usize> {
        self.by_id.get(&(client, id.client_form())).copied()
    }

    pub(super) fn begin(&mut self, id: RpcId, call: NewCall) {
        let client = call.client;
        self.by_id.insert((client, id), self.calls.len());
        self.open += 1;
        let crashes = self.causes.crashes_of(call.server);
        self.calls.push(Call::new(id, call, crashes));
    }

    /// Packets are forged under an id that no call has.
    pub(super) fn on_forged_id(&mut self, id: RpcId) {
        self.forged.insert(id.client_form());
    }

    pub(super) fn is_forged(&self, id: RpcId) -> bool {
        self.forged.contains(&id.client_form())
    }

    /// The process of `host` has died.
    pub(super) fn on_crash(&mut self, host: usize) {
        for call in &mut self.calls {
            if call.client == host && call.state == CallState::Open {
                call.state = CallState::Gone;
                self.open -= 1;
                self.outcomes.gone += 1;
            }
        }
        if let Some(ledger) = self.ledgers.get_mut(host) {
            *ledger = GrantLedger::default();
        }
        self.causes.on_crash(host);
        self.unproven.forget(host);
    }

    /// A request is delivered by process number `process` of `host`. `exact` says whether it has
    /// the bytes of a content.
    pub(super) fn on_request(
        &mut self,
        host: usize,
        process: u32,
        client: usize,
        id: RpcId,
        exact: impl FnOnce(Content) -> bool,
    ) -> Result<Option<usize>, Breach> {
        let breach = |invariant, detail| Err(Breach::new(invariant, host, Some(client), detail));
        let number = self.call_of(client, id);
        let Some((number, call)) = number.and_then(|n| Some((n, self.calls.get_mut(n)?))) else {
            if self.causes.lenient || self.forged.contains(&id.client_form()) {
                return Ok(None);
            }
            let detail = format!("a request {id:?} that nobody made");
            return breach(Invariant::RequestExact, detail);
        };
        if self.causes.lenient && (call.server != host || call.state != CallState::Open) {
            // A damaged id that happens to be that of another call.
            return Ok(None);
        }
        if !self.causes.lenient && (call.server != host || !exact(call.request)) {
            let detail =
                format!("call {number} came with other bytes than were sent, or elsewhere");
            return breach(Invariant::RequestExact, detail);
        }
        // A second copy of a packet that was refused can reach the next process.
        let restarted = self.causes.crashes_of(host) > call.crashes;
        let another = restarted || !call.refused;
        if call.not_sent && !(self.duplicates && another) {
            let detail = format!("call {number} failed as not sent and is delivered");
            return breach(Invariant::NotSentMeansNotSent, detail);
        }
        // A damaged id can be that of another call.
        if !self.causes.lenient && call.delivered_in >= process {
            let detail = format!("call {number} is delivered to one process a second time");
            return breach(Invariant::RequestOnce, detail);
        }
        if self.prompt && !self.causes.lenient && call.heard_from > 0 {
            let detail = format!(
                "call {number} is delivered to a second process, and its client has heard from the first"
            );
            return breach(Invariant::RequestOnce, detail);
        }
        call.delivered_in = process;
        self.outcomes.delivered += 1;
        Ok(Some(number))
    }

    pub(super) fn on_answer(&mut self, call: usize) {
        if let Some(call) = self.calls.get_mut(call) {
            call.answered = true;
        }
    }

    pub(super) fn on_response(
        &mut self,
        host: usize,
        number: usize,
        exact: impl FnOnce(Content) -> bool,
    ) -> Result<(), Breach> {
        let lenient = self.causes.lenient;
        let call = self.end(host, number, CallState::Succeeded)?;
        let right = call.answered && exact(call.response);
        if !lenient && !right {
            let detail = format!("call {number} got bytes that were not its answer");
            return Err(Breach::new(
                Invariant::ResponseExact,
                host,
                Some(call.server),
                detail,
            ));
        }
        Ok(())
    }

    /// A call fails. True: it is one after the faults, and may be tried again.
    pub(super) fn on_failure(
        &mut self,
        host: usize,
        number: usize,
        error: &RpcError,
    ) -> Result<bool, Breach> {
        let causes = &self.causes;
        let lenient = causes.lenient;
        let excused = self
            .calls
            .get(number)
            .is_none_or(|call| causes.excuse(call.server, error));
        let probe = self.calls.get(number).is_some_and(|call| call.probe);
        let again = probe && self.causes.allow_second_try();
        let call = self.end(host, number, CallState::Failed)?;
        let server = Some(call.server);
        if again {
            return Ok(true);
        }
        if probe {
            let detail = format!("call {number} after the faults failed: {error}");
            return Err(Breach::new(Invariant::WorksAgain, host, server, detail));
        }
        if error.delivery() == Delivery::NotSent {
            // A damaged packet can say of one call what is true of another.
            if call.delivered_in > 0 && !lenient {
                let detail = format!("call {number} was delivered and fails as not sent: {error}");
                return Err(Breach::new(
                    Invariant::NotSentMeansNotSent,
                    host,
                    server,
                    detail,
                ));
            }
            call.not_sent = true;
            call.refused = matches!(error, RpcError::Refused { .. });
        }
        if !excused {
            let detail = format!("call {number} fails without a cause: {error}");
            return Err(Breach::new(Invariant::FailsForCause, host, server, detail));
        }
        Ok(false)
    }

    /// The application gives a call up; true if it was open.
    pub(super) fn on_give_up(&mut self, host: usize, number: usize) -> bool {
        let open = self
            .calls
            .get(number)
            .is_some_and(|call| call.state == CallState::Open);
        open && self.end(host, number, CallState::GivenUp).is_ok()
    }

    fn end(&mut self, host: usize, number: usize, state: CallState) -> Result<&mut Call, Breach> {
        let breach = |peer, detail| Err(Breach::new(Invariant::OneOutcome, host, peer, detail));
        let Some(call) = self.calls.get_mut(number) else {
            return breach(None, format!("call {number} ended and was never made"));
        };
        if call.client != host || call.state != CallState::Open {
            let detail = format!(
                "call {number} is {:?} and ends again: {state:?}",
                call.state
            );
            return breach(Some(call.server), detail);
        }
        call.state = state;
        self.open -= 1;
        match state {
            CallState::Succeeded => self.outcomes.succeeded += 1,
            CallState::GivenUp => self.outcomes.given_up += 1,
            _ => self.outcomes.failed += 1,
        }
        Ok(call)
    }

    pub(super) fn on_cancelled(&self, host: usize, call: Option<usize>) -> Result<(), Breach> {
        let Some((number, call)) = call.and_then(|n| Some((n, self.calls.get(n)?))) else {
            return Ok(());
        };
        let sure = !self.causes.may_fall_silent && !self.causes.lenient;
        if call.state == CallState::Open && sure {
            let detail = format!("call {number} is cancelled while its client waits for it");
            return Err(Breach::new(
                Invariant::CancelledForCause,
                host,
                Some(call.client),
                detail,
            ));
        }
        Ok(())
    }

    /// A host sends a packet. `rpc_of` finds an RPC in its table.
    pub(super) fn on_sent(
        &mut self,
        host: usize,
        sent: &Sent<'_>,
        rpc_of: impl Fn(usize, RpcId) -> Option<RpcKey>,
    ) -> Result<(), Breach> {
        let Sent {
            to: peer,
            level,
            len,
            packet,
        } = *sent;
        let breach = |invariant, detail| Err(Breach::new(invariant, host, peer, detail));
        let (header, packet) = match packet {
            Ok(parsed) => parsed,
            Err(malformed) => return breach(Invariant::WellFormed, malformed.to_string()),
        };
        let Some(to) = peer else {
            return breach(
                Invariant::WellFormed,
                "a packet to an address of nobody".to_owned(),
            );
        };
        if len > self.packet_bytes {
            let detail = format!(
                "a packet of {len} bytes where {} are allowed",
                self.packet_bytes
            );
            return breach(Invariant::PacketLength, detail);
        }
        let highest = Priority::saturating(self.config.num_priorities.saturating_sub(1));
        // The level of DATA is up to the receiver, which may have more of them.
        if !matches!(packet, Packet::Data(..)) && level != highest {
            let detail = format!("{} at level {}", packet.packet_type(), level.level());
            return breach(Invariant::PriorityLegal, detail);
        }
        if let Packet::Grant(grant) = packet
            && let Some(ledger) = self.ledgers.get_mut(host)
        {
            let id = header.sender_id.other_side();
            let bounds = GrantBounds {
                // Who comes first may go beyond the ceiling.
                outstanding_max: 2 * u64::from(self.config.max_incoming_bytes),
                fifo_permille: u64::from(self.config.grant_fifo_permille),
                fifo_increment: u64::from(self.config.fifo_grant_increment_bytes),
            };
            let granted = ledger.on_grant(to, id, grant.offset, bounds, rpc_of);
            if let Err((invariant, detail)) = granted
                // The ledger may have the length of a damaged packet that the endpoint did not keep.
                && !(self.causes.lenient && invariant == Invariant::GrantWithinMessage)
            {
                return breach(invariant, detail);
            }
        }
        Ok(())
    }

    /// A host was handed a packet, and `rpc_of` finds its RPC in the host's table now.
    pub(super) fn on_received(
        &mut self,
        host: usize,
        peer: usize,
        packet: &Result<(Header, Packet<'_>), Malformed>,
        rpc_of: impl Fn(usize, RpcId) -> Option<RpcKey>,
    ) {
        self.on_heard(host, packet);
        let Some(ledger) = self.ledgers.get_mut(host) else {
            return;
        };
        match packet {
            Ok((header, Packet::Data(data, bytes))) => {
                let whole = data.offset == 0 && bytes.len() >= data.message_length as usize;
                if !whole {
                    ledger.on_data(peer, header.sender_id, data, bytes.len(), rpc_of);
                }
            }
            Ok((header, Packet::StartMsg(start))) => {
                ledger.begin(peer, header.sender_id, start.message_length, 0, rpc_of);
            }
            _ => {}
        }
    }

    /// Notes that the client of a call hears from the process that has its request.
    fn on_heard(&mut self, host: usize, packet: &Result<(Header, Packet<'_>), Malformed>) {
        // An unexplained BUSY may mean that the request was refused.
        let Ok((header, Packet::Data(..) | Packet::Busy(Busy::Working))) = packet else {
            return;
        };
        let number = self.call_of(host, header.sender_id);
        if let Some(call) = number.and_then(|number| self.calls.get_mut(number))
            && !header.sender_id.is_client()
        {
            call.heard_from = call.delivered_in;
        }
    }

    pub(super) fn on_levels(&self, host: usize, levels: &Levels) -> Result<(), Breach> {
        let bound = self.config.inbound_bytes_max;
        if levels.inbound_bytes > bound {
            let detail = format!(
                "{} bytes reserved, the bound is {bound}",
                levels.inbound_bytes
            );
            return Err(Breach::new(Invariant::MemoryBounded, host, None, detail));
        }
        if levels.rpcs_live > 2 * self.config.rpcs_max as u64 {
            let detail = format!(
                "{} RPCs, the bound is {}",
                levels.rpcs_live,
                2 * self.config.rpcs_max
            );
            return Err(Breach::new(Invariant::RpcsBounded, host, None, detail));
        }
        Ok(())
    }

    /// The faults are over for long, and `levels` are those of each host.
    pub(super) fn on_end(&self, levels: &[Levels]) -> Result<(), Breach> {
        let open = |(_, call): &(usize, &Call)| call.state == CallState::Open;
        if let Some((number, call)) = self.calls.iter().enumerate().find(open) {
            let detail = format!("call {number}, begun at {:?}, has no end", call.begun);
            let invariant = if call.probe {
                Invariant::WorksAgain
            } else {
                Invariant::EveryCallEnds
            };
            return Err(Breach::new(
                invariant,
                call.client,
                Some(call.server),
                detail,
            ));
        }
        for (host, levels) in levels.iter().enumerate() {
            if !levels.idle || levels.rpcs_live > 0 {
                let detail = format!("every call has ended, and there is {levels:?}");
                return Err(Breach::new(Invariant::TablesEmpty, host, None, detail));
            }
            if levels.inbound_bytes > 0 {
                let detail = format!("{} bytes are reserved for nothing", levels.inbound_bytes);
                return Err(Breach::new(Invariant::BudgetsZero, host, None, detail));
            }
        }
        Ok(())
    }
}

/// A packet that a host sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent<'a> {
    /// Receiver, if there is one with that address.
    pub(super) to: Option<usize>,
    pub(super) level: Priority,
    pub(super) len: usize,
    pub(super) packet: &'a Result<(Header, Packet<'a>), Malformed>,
}
