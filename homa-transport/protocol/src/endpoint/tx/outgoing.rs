//! Messages of the application on their way out: which are taken, what they hold, when they go.

use crate::config::Wire;
use crate::endpoint::messages::outbound::OutMessage;
use crate::endpoint::peers::peer::PeerKey;
use crate::endpoint::{Endpoint, RpcKey};
use crate::error::{Limit, RpcError};
use crate::message::Message;
use crate::wire::DATA_HEADER_BYTES;

/// Shortest packet that can hold a DATA header and a useful amount of data, in bytes.
const PACKET_BYTES_MIN: usize = 128;

/// Messages up to this length are sent even when too many bytes are held.
const ALWAYS_TAKEN_BYTES: usize = 4_096;
/// Messages laid aside at most.
const RELEASED_MAX: usize = 1_024;

impl Endpoint {
    /// The message back if it may be sent to `peer`.
    pub(in crate::endpoint) fn check_message(
        &mut self,
        message: Message,
        peer: Option<PeerKey>,
    ) -> Result<Message, RpcError> {
        let len = message.len();
        let held = peer
            .and_then(|peer| self.peers.get(peer))
            .map_or(0, |peer| peer.outbound_bytes);
        let config = &self.config;
        let fits = |held: usize, max: usize| len <= ALWAYS_TAKEN_BYTES || held + len <= max;
        let error = if len == 0 {
            RpcError::EmptyMessage
        } else if len > self.rules.message_bytes_max {
            let max = self.rules.message_bytes_max;
            RpcError::MessageTooLong { len, max }
        } else if !fits(held, config.outbound_bytes_per_peer_max) {
            RpcError::TooManyBytes {
                len,
                held,
                option: Limit::OutboundBytesPerPeer,
            }
        } else if !fits(self.outbound_bytes, config.outbound_bytes_max) {
            let held = self.outbound_bytes;
            RpcError::TooManyBytes {
                len,
                held,
                option: Limit::OutboundBytes,
            }
        } else {
            return Ok(message);
        };
        self.release(message);
        Err(error)
    }

    pub(in crate::endpoint) fn charge_outbound(&mut self, key: RpcKey, length: u32) {
        let Some(rpc) = self.table.get(key) else {
            return;
        };
        self.outbound_bytes += length as usize;
        if let Some(peer) = self.peers.get_mut(rpc.peer) {
            peer.outbound_bytes += length as usize;
        }
    }

    /// Lays aside a message that is no longer needed.
    pub(in crate::endpoint) fn release(&mut self, message: Message) {
        if self.released.len() < RELEASED_MAX {
            self.released.push(message);
        }
    }

    /// Appends the outgoing messages that are no longer needed to `out`. Dropping them may run the
    /// application's code ([`bytes::Bytes::from_owner`]), so a driver does that without its lock. Left
    /// here, only a bounded number is kept.
    pub fn take_released(&mut self, out: &mut Vec<Message>) {
        out.append(&mut self.released);
    }

    pub(in crate::endpoint) fn out_message(
        &self,
        peer: PeerKey,
        message: Message,
        packet_bytes: usize,
        few: bool,
    ) -> OutMessage {
        let segment = packet_bytes.clamp(PACKET_BYTES_MIN, 1 << 16) - DATA_HEADER_BYTES;
        let segment = u32::try_from(segment).unwrap_or(u32::MAX);
        let unscheduled = match self.wire {
            _ if !self.rules.knows_grants => u32::MAX,
            _ if message.is_scheduled() => segment.min(self.config.unscheduled_bytes),
            _ if few => self.config.incast_unscheduled_bytes,
            Wire::Native => self.config.unscheduled_bytes,
            Wire::Encapsulated => self.config.unscheduled_bytes.div_ceil(segment) * segment,
        };
        let paper = self.rules.paper.as_ref();
        let scheduled = paper.map_or(segment, |paper| paper.scheduled_segment);
        let mut out = OutMessage::new(message, unscheduled, segment, scheduled);
        self.choose_opening(&mut out, peer);
        out
    }
}
