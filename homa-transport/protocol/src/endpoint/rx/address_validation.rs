//! What an address gets before it has shown that it is where it says it is.
//!
//! On UDP anybody can send a packet in the name of another. So a packet that does not show our token for
//! its address ([`crate::endpoint::peers::token`]) changes nothing, unless it is DATA of a request: that may begin an RPC,
//! and go on with one that it began. About such an RPC the address gets at most three times the bytes that
//! came from it without a token, and of the response nothing if that is not enough for all of it: a client
//! that has part of a response would not answer as below. The server asks for the first packet of the
//! request again instead, and that packet shows the token, which every packet of ours tells. It takes a
//! round trip, once as long as both ends remember each other.
//!
//! Source: RFC 9000, section 8 (address validation, anti-amplification limit). Differs: the module sends all
//! unscheduled bytes at once, and more for forged GRANTs. It has no encapsulation, and protocol 146 is not
//! let in from outside.

use std::net::SocketAddr;

use crate::endpoint::arrival::Arrival;
use crate::endpoint::messages::outbound::OutMessage;
use crate::endpoint::peers::peer::PeerKey;
use crate::endpoint::peers::token::AddressTokens;
use crate::endpoint::profile::rules::Rule;
use crate::endpoint::rpcs::rpc::Rpc;
use crate::endpoint::{Endpoint, RpcKey};
use crate::units::{Instant, Priority};
use crate::wire::{Packet, Resend, Tokens};

/// More than the length of a packet that asks for something, in bytes.
const ASK_BYTES: usize = 64;

impl Endpoint {
    /// Whether a packet of `peer` shows our token for it.
    pub(in crate::endpoint) fn shows_token(&mut self, peer: &Sender, tokens: Tokens) -> bool {
        if !self.validates || self.rules.breaks(Rule::TokensAreChecked) {
            return true;
        }
        let ours = self.tokens_for(peer.addr, peer.key);
        let shown = ours.accept(tokens.shown);
        if !shown && tokens.shown != 0 {
            self.stats.tokens_wrong += 1;
        }
        shown
    }

    /// Our tokens for an address.
    fn tokens_for(&mut self, addr: SocketAddr, peer: Option<PeerKey>) -> AddressTokens {
        match peer.and_then(|key| self.peers.get_mut(key)) {
            None => self.token_key.of(addr, None),
            Some(peer) => {
                let tokens = self.token_key.of(addr, peer.validation.ours);
                peer.validation.ours = Some(tokens);
                tokens
            }
        }
    }

    /// The tokens of a packet to an address to which `shown` is to be shown.
    pub(in crate::endpoint) fn outgoing_tokens(
        &mut self,
        addr: SocketAddr,
        peer: Option<PeerKey>,
        shown: u64,
    ) -> Tokens {
        Tokens {
            own: self.tokens_for(addr, peer).current,
            shown,
        }
    }

    /// A packet has shown our token: its address is right, and what it tells counts.
    pub(in crate::endpoint) fn on_validated(&mut self, arrival: &Arrival, rpc: Option<RpcKey>) {
        if !self.validates {
            return;
        }
        let told = arrival.tokens.own;
        if let Some(key) = rpc
            && let Some(rpc) = self.table.get_mut(key)
            && !rpc.is_client()
        {
            rpc.shown = told;
            self.strangers -= usize::from(std::mem::take(&mut rpc.counted_as_stranger));
            self.release_held(key);
        }
        let Some(key) = self.sender_key(arrival) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut peer.validation.told, told);
        if before == told {
            return;
        }
        // Once in an epoch, so the walk is paid for by the RPCs' own packets.
        for key in self.rpcs_of(key) {
            if let Some(rpc) = self.table.get_mut(key)
                && rpc.shown == told
            {
                self.strangers -= usize::from(std::mem::take(&mut rpc.counted_as_stranger));
            }
            self.release_held(key);
        }
        if before != 0 {
            self.on_renewed(arrival.now, key);
        }
    }

    /// Whether the other end of an RPC has shown that it is there.
    pub(in crate::endpoint) fn is_validated(&self, rpc: &Rpc) -> bool {
        !self.validates
            || rpc.is_client()
            || self
                .peers
                .get(rpc.peer)
                .is_some_and(|peer| peer.validation.told != 0 && peer.validation.told == rpc.shown)
    }

    /// Whether the other end of an RPC may be asked for something.
    pub(in crate::endpoint) fn may_be_asked(&self, rpc: &Rpc) -> bool {
        self.is_validated(rpc)
            || self
                .peers
                .get(rpc.peer)
                .is_some_and(|peer| peer.validation.allows(ASK_BYTES))
    }

    /// Whether packets of the response of an RPC may go to its client.
    pub(in crate::endpoint) fn may_be_answered(&self, rpc: &Rpc) -> bool {
        let fits = |out: &OutMessage| {
            let peer = self.peers.get(rpc.peer);
            peer.is_some_and(|peer| peer.validation.allows_response(out))
        };
        self.is_validated(rpc) || rpc.out.as_ref().is_some_and(fits)
    }

    /// Lets a response that was held back try again.
    pub(in crate::endpoint) fn release_held(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if rpc.held {
            rpc.held = false;
            self.enqueue(key);
        }
    }

    /// Holds a response back until its client has shown that it is there, and asks it to.
    pub(in crate::endpoint) fn hold_response(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        rpc.held = true;
        self.stats.responses_held += 1;
        self.ask_for_proof(now, key);
    }

    /// Asks the client of a response that is held back for the first packet of its request.
    pub(in crate::endpoint) fn ask_for_proof(&mut self, now: Instant, key: RpcKey) {
        let priority = self.config.highest_priority();
        if !self
            .table
            .get(key)
            .is_some_and(|rpc| self.may_be_asked(rpc))
        {
            return;
        }
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        rpc.liveness.on_ask(now);
        self.stats.resends_sent += 1;
        self.send_about(key, first_byte(priority));
    }

    /// The same at another address of the client, to which `shown` is to be shown.
    pub(in crate::endpoint) fn ask_elsewhere(&mut self, key: RpcKey, to: SocketAddr, shown: u64) {
        let question = first_byte(self.config.highest_priority());
        self.stats.resends_sent += 1;
        self.send_about_to(key, (to, shown), question);
    }
}

/// Asks for the first byte, which shows that the other end is there.
const fn first_byte(priority: Priority) -> Packet<'static> {
    Packet::Resend(Resend {
        offset: 0,
        length: Some(1),
        priority,
    })
}

/// Who sent a packet.
#[derive(Clone, Copy)]
pub(in crate::endpoint) struct Sender {
    pub(in crate::endpoint) addr: SocketAddr,
    pub(in crate::endpoint) key: Option<PeerKey>,
}
