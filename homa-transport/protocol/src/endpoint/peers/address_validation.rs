//! How far an address is trusted, and what it has used up. The rules: `rx/address_validation.rs`.

use crate::endpoint::messages::outbound::OutMessage;
use crate::endpoint::peers::token::AddressTokens;
use crate::wire::DATA_HEADER_BYTES;

/// Bytes sent to an address for each that came from it.
const AMPLIFICATION_MAX: u64 = 3;

/// How far an address is trusted.
#[derive(Debug, Default)]
pub(crate) struct AddressValidation {
    /// The token that the peer wants to see, told in a packet that showed ours; 0 at first.
    pub(in crate::endpoint) told: u64,
    /// Bytes of packets that showed no token.
    received: u64,
    /// Bytes sent about RPCs that such packets began.
    sent: u64,
    /// Our tokens for it, when they were last made.
    pub(in crate::endpoint) ours: Option<AddressTokens>,
}

impl AddressValidation {
    pub(crate) const fn on_received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Whether a packet of so many bytes may go there.
    pub(in crate::endpoint) const fn allows(&self, bytes: usize) -> bool {
        self.sent + bytes as u64 <= AMPLIFICATION_MAX * self.received
    }

    /// Counts a packet if it may go there.
    pub(in crate::endpoint) const fn charge(&mut self, bytes: usize) -> bool {
        let allowed = self.allows(bytes);
        if allowed {
            self.sent += bytes as u64;
        }
        allowed
    }

    /// Whether packets of a response may go there.
    pub(in crate::endpoint) fn allows_response(&self, response: &OutMessage) -> bool {
        response.is_one_packet() && self.allows(response.length() as usize + DATA_HEADER_BYTES)
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
    fn an_address_without_a_token_gets_three_times_what_it_sent_and_no_more() {
        let mut validation = AddressValidation::default();
        assert!(!validation.allows(1));
        validation.on_received(200);
        assert!(validation.charge(100));
        assert!(validation.allows(500));
        assert!(!validation.charge(501));
        assert!(validation.allows_response(&response(500 - DATA_HEADER_BYTES)));
        assert!(!validation.allows_response(&response(501 - DATA_HEADER_BYTES)));
        validation.on_received(1_000_000);
        assert!(validation.allows_response(&response(1_400)));
        assert!(!validation.allows_response(&response(1_401)), "two packets");
    }
}
