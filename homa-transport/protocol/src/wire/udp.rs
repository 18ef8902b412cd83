//! What packets carry over UDP in header bytes that mean nothing there on protocol 146: tokens in every
//! packet, reasons in RPC_UNKNOWN and BUSY. WIRE-UDP.md has the table of all bytes.

use std::time::Duration;

/// Where a sender says which token it wants to see.
const OWN_AT: usize = 0;
/// Where it shows the token that its receiver wants to see.
const SHOWN_AT: usize = 12;

/// The tokens of a packet over UDP. A token is a number that only who gets the packets sent to an address
/// can know; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// What the sender of the packet wants to see in packets to it.
    pub own: u64,
    /// What the sender was told by the receiver of the packet, or 0.
    pub shown: u64,
}

impl Tokens {
    /// The tokens of a packet that [`parse`](super::parse) takes.
    #[must_use]
    pub fn of(packet: &[u8]) -> Self {
        let word = |at: usize| {
            let bytes = packet.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
        };
        Self {
            own: word(OWN_AT),
            shown: word(SHOWN_AT),
        }
    }

    /// Writes the tokens to their places in a packet, as far as it has them.
    pub fn write(self, packet: &mut [u8]) {
        for (at, token) in [(OWN_AT, self.own), (SHOWN_AT, self.shown)] {
            if let Some(place) = packet.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
                *place = token.to_be_bytes();
            }
        }
    }
}

/// What RPC_UNKNOWN says beside that the RPC is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// Nothing: on protocol 146, and from a client that gives a call up.
    #[default]
    Unexplained,
    /// The server has not had the request in the time for which it remembers requests.
    NotReceived {
        /// How long that is, rounded down to milliseconds; 65,535 at most.
        reach: Duration,
        /// The server itself is no older than that.
        since_start: bool,
    },
}

/// Why a peer is busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Busy {
    /// It does not say: on protocol 146.
    #[default]
    Unexplained,
    /// The application has the request, or what is asked for has not been sent yet.
    Working,
    /// The message waits for room; it will be asked for.
    Waiting,
    /// The request is refused and will never be executed, because of this limit.
    Refused(Refusal),
}

/// Limits of a server that refuse requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// `rpcs_max`: RPCs in progress.
    Rpcs,
    /// `rpcs_per_peer_max`: those of one client.
    RpcsPerPeer,
}

const NOT_RECEIVED: u8 = 1;
const NOT_RECEIVED_SINCE_START: u8 = 2;
const WORKING: u8 = 1;
const WAITING: u8 = 2;
const REFUSED_RPCS: u8 = 3;
const REFUSED_RPCS_PER_PEER: u8 = 4;

impl Unknown {
    pub(super) fn bytes(self) -> [u8; 3] {
        let Self::NotReceived { reach, since_start } = self else {
            return [0; 3];
        };
        let millis = u16::try_from(reach.as_millis()).unwrap_or(u16::MAX);
        let [high, low] = millis.to_be_bytes();
        let reason = if since_start {
            NOT_RECEIVED_SINCE_START
        } else {
            NOT_RECEIVED
        };
        [reason, high, low]
    }

    /// A reason that is not known explains nothing.
    pub(super) fn from_bytes([reason, high, low]: [u8; 3]) -> Self {
        let reach = Duration::from_millis(u16::from_be_bytes([high, low]).into());
        match reason {
            NOT_RECEIVED | NOT_RECEIVED_SINCE_START => Self::NotReceived {
                reach,
                since_start: reason == NOT_RECEIVED_SINCE_START,
            },
            _ => Self::Unexplained,
        }
    }
}

impl Busy {
    pub(super) const fn bytes(self) -> [u8; 3] {
        let reason = match self {
            Self::Unexplained => 0,
            Self::Working => WORKING,
            Self::Waiting => WAITING,
            Self::Refused(Refusal::Rpcs) => REFUSED_RPCS,
            Self::Refused(Refusal::RpcsPerPeer) => REFUSED_RPCS_PER_PEER,
        };
        [reason, 0, 0]
    }

    /// A reason that is not known explains nothing.
    pub(super) const fn from_bytes([reason, ..]: [u8; 3]) -> Self {
        match reason {
            WORKING => Self::Working,
            WAITING => Self::Waiting,
            REFUSED_RPCS => Self::Refused(Refusal::Rpcs),
            REFUSED_RPCS_PER_PEER => Self::Refused(Refusal::RpcsPerPeer),
            _ => Self::Unexplained,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::RpcId;
    use crate::wire::{Header, Packet, emit, parse};

    const HEADER: Header = Header {
        source_port: 1,
        destination_port: 2,
        sender_id: RpcId::new(0x1234),
    };

    #[test]
    fn tokens_lie_where_the_table_says_and_leave_the_rest_as_it_is() {
        let plain = emit(&HEADER, &Packet::Busy(Busy::Waiting));
        let tokens = Tokens {
            own: 0x0102_0304_0506_0708,
            shown: 0x1112_1314_1516_1718,
        };
        let bytes = plain.with_tokens(tokens);
        let expected = [
            1, 2, 3, 4, 5, 6, 7, 8, 2, 0, 0, 0x14, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
            0, 0, 0, 0, 0, 0, 0x12, 0x34,
        ];
        assert_eq!(bytes.as_slice(), expected);
        assert_eq!(Tokens::of(bytes.as_slice()), tokens);
        let (header, packet) = parse(bytes.as_slice()).unwrap();
        assert_eq!(header.sender_id, HEADER.sender_id);
        assert_eq!(packet, Packet::Busy(Busy::Waiting));
    }

    #[test]
    fn reasons_survive_a_round_trip_and_unknown_ones_explain_nothing() {
        let reach = Duration::from_millis(5_000);
        for packet in [
            Packet::RpcUnknown(Unknown::Unexplained),
            Packet::RpcUnknown(Unknown::NotReceived {
                reach,
                since_start: false,
            }),
            Packet::RpcUnknown(Unknown::NotReceived {
                reach,
                since_start: true,
            }),
            Packet::Busy(Busy::Unexplained),
            Packet::Busy(Busy::Working),
            Packet::Busy(Busy::Refused(Refusal::Rpcs)),
            Packet::Busy(Busy::Refused(Refusal::RpcsPerPeer)),
        ] {
            let bytes = emit(&HEADER, &packet);
            assert_eq!(parse(bytes.as_slice()).unwrap().1, packet);
        }
        assert_eq!(Unknown::from_bytes([9, 1, 1]), Unknown::Unexplained);
        assert_eq!(Busy::from_bytes([200, 0, 0]), Busy::Unexplained);
    }

    #[test]
    fn a_memorys_reach_is_never_exaggerated() {
        let carried = |nanos| {
            let said = Unknown::NotReceived {
                reach: Duration::from_nanos(nanos),
                since_start: false,
            };
            match Unknown::from_bytes(said.bytes()) {
                Unknown::NotReceived { reach, .. } => reach.as_millis(),
                Unknown::Unexplained => panic!("it is explained"),
            }
        };
        assert_eq!([carried(999_999), carried(1_999_999)], [0, 1]);
        assert_eq!(carried(u64::MAX), 65_535);
    }
}
