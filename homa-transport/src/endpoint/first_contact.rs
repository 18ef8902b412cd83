//! What an address gets before it has shown that it is where it says it is.
//!
//! On UDP anybody can send a request in the name of another, who then gets the response. So until an
//! address has echoed the version of the cutoffs that were sent to it, a number that it cannot know
//! otherwise, it gets at most three times the bytes that came from it, and of responses only those of
//! one packet: a client that has part of a response would not answer as below. Any other response is
//! held back, and the server asks for the first packet of the request again; that packet has the version.
//! It takes a round trip, once as long as both ends remember each other.
//!
//! Differs: the module sends all unscheduled bytes at once, and more for forged GRANTs. It has no
//! encapsulation, and protocol 146 is not let in from outside.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use super::address::AddrKey;
use super::outbound::OutMessage;
use super::peer::PeerKey;
use super::{Endpoint, RpcKey};
use crate::config::Wire;
use crate::units::Instant;
use crate::wire::{DATA_HEADER_BYTES, Packet, Resend};

/// Bytes sent to an address for each that came from it.
const AMPLIFICATION_MAX: u64 = 3;
/// More than the length of a packet that asks for something, in bytes.
const ASK_BYTES: usize = 64;

/// How far an address is trusted.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    proven: bool,
    received: u64,
    sent: u64,
    /// Version of our cutoffs, and what the peer is told it is.
    version: Option<(u16, u16)>,
}

/// From what the versions that peers are told are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secret(pub(super) u64);

impl Secret {
    /// Never 0, which stands for no version.
    fn version(self, peer: SocketAddr, version: u16) -> u16 {
        let mut hasher = DefaultHasher::new();
        (self.0, AddrKey(peer), version).hash(&mut hasher);
        let [first, second, ..] = hasher.finish().to_le_bytes();
        u16::from_le_bytes([first, second]).max(1)
    }
}

impl Contact {
    /// Of an address that need not prove anything.
    pub(crate) fn proven() -> Self {
        Self {
            proven: true,
            ..Self::default()
        }
    }

    pub(crate) const fn on_received(&mut self, bytes: usize) {
        if !self.proven {
            self.received += bytes as u64;
        }
    }

    pub(crate) const fn on_sent(&mut self, bytes: usize) {
        if !self.proven {
            self.sent += bytes as u64;
        }
    }

    /// Whether a packet of so many bytes may go there.
    pub(super) const fn allows(&self, bytes: usize) -> bool {
        self.proven || self.sent + bytes as u64 <= AMPLIFICATION_MAX * self.received
    }

    /// Whether it may be asked for something.
    pub(crate) const fn allows_asking(&self) -> bool {
        self.allows(ASK_BYTES)
    }

    /// Whether packets of a response may go there.
    pub(super) fn allows_response(&self, response: &OutMessage) -> bool {
        let whole = response.length() as usize + DATA_HEADER_BYTES;
        self.proven || (response.is_one_packet() && self.allows(whole))
    }
}

impl Endpoint {
    /// The version of our cutoffs as `peer` is told it.
    pub(super) fn cutoffs_version_for(&mut self, peer: PeerKey) -> u16 {
        let version = self.cutoffs.version();
        if self.wire == Wire::Native || self.rules.paper.is_some() {
            return version;
        }
        let Some(peer) = self.peers.get_mut(peer) else {
            return version;
        };
        match peer.contact.version {
            Some((ours, told)) if ours == version => told,
            _ => {
                let told = self.secret.version(peer.addr, version);
                peer.contact.version = Some((version, told));
                told
            }
        }
    }

    /// The address has sent what only one who gets our packets can know.
    pub(super) fn on_proven(&mut self, peer: PeerKey) {
        let Some(known) = self.peers.get_mut(peer) else {
            return;
        };
        if known.contact.proven {
            return;
        }
        known.contact.proven = true;
        // Once in a peer's time, so the walk is paid for by the RPCs' own packets.
        for key in self.rpcs_of(peer) {
            self.release_held(key);
        }
    }

    /// Lets a response that was held back try again.
    pub(super) fn release_held(&mut self, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        if rpc.held {
            rpc.held = false;
            self.enqueue(key);
        }
    }

    /// Holds a response back until its client has shown that it is there, and asks it to.
    pub(super) fn hold_response(&mut self, now: Instant, key: RpcKey) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        rpc.held = true;
        self.stats.responses_held += 1;
        self.ask_for_proof(now, key);
    }

    /// Asks the client of a response that is held back for the first packet of its request.
    pub(super) fn ask_for_proof(&mut self, now: Instant, key: RpcKey) {
        let priority = self.config.highest_priority();
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let asks = self
            .peers
            .get(rpc.peer)
            .is_some_and(|peer| peer.contact.allows_asking());
        if !asks {
            return;
        }
        rpc.liveness.on_ask(now);
        let (addr, local, id) = (rpc.addr, rpc.local, rpc.id);
        let resend = Resend {
            offset: 0,
            length: Some(1),
            priority,
        };
        self.stats.resends_sent += 1;
        self.send_control(addr, local, id, Packet::Resend(resend));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    fn response(len: usize) -> OutMessage {
        OutMessage::new(Message::from(vec![0; len]), 40_000, 1_400, 1_400)
    }

    #[test]
    fn an_unproven_address_gets_three_times_what_it_sent_and_no_more() {
        let mut contact = Contact::default();
        assert!(!contact.allows(1));
        contact.on_received(200);
        contact.on_sent(100);
        assert!(contact.allows(500));
        assert!(!contact.allows(501));
        assert!(contact.allows_response(&response(500 - DATA_HEADER_BYTES)));
        assert!(!contact.allows_response(&response(501 - DATA_HEADER_BYTES)));
        contact.on_received(1_000_000);
        assert!(contact.allows_response(&response(1_400)));
        assert!(!contact.allows_response(&response(1_401)), "two packets");
        assert!(Contact::proven().allows_response(&response(900_000)));
    }

    #[test]
    fn versions_differ_by_address_port_secret_and_version() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let secret = Secret(1);
        let versions = [
            secret.version(addr("10.0.0.1:1"), 1),
            secret.version(addr("10.0.0.2:1"), 1),
            secret.version(addr("10.0.0.1:2"), 1),
            secret.version(addr("10.0.0.1:1"), 2),
            Secret(2).version(addr("10.0.0.1:1"), 1),
        ];
        for (at, version) in versions.iter().enumerate() {
            assert!(*version != 0 && !versions[at + 1..].contains(version));
        }
        assert_eq!(versions[0], secret.version(addr("10.0.0.1:1"), 1));
    }
}
