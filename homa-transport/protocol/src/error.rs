//! How calls fail, and what is wrong with a configuration.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::units::RpcId;

/// A bound of what a socket holds, which shows as the name of the field of
/// [`Config`](crate::Config) that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// RPCs in progress, as client and as server.
    Rpcs,
    /// RPCs of one client in progress at a server.
    RpcsPerPeer,
    /// Calls for which each shard of a socket has keys.
    Shards,
    /// Peers known.
    Peers,
    /// Bytes of outgoing messages.
    OutboundBytes,
    /// Bytes of outgoing messages to one peer.
    OutboundBytesPerPeer,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rpcs => "rpcs_max",
            Self::RpcsPerPeer => "rpcs_per_peer_max",
            Self::Shards => "shards",
            Self::Peers => "peers_max",
            Self::OutboundBytes => "outbound_bytes_max",
            Self::OutboundBytesPerPeer => "outbound_bytes_per_peer_max",
        })
    }
}

/// Whether a failed request can have reached the server's application.
///
/// Retrying is always safe after [`Delivery::NotSent`]; after [`Delivery::Unknown`] only for
/// idempotent requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The server's application has not seen the request and never will.
    NotSent,
    /// The request may have been executed.
    Unknown,
}

/// What the network reported about a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unreachable {
    /// No socket listens on the port (ICMP port unreachable).
    #[error("nothing listens on that port")]
    Port,
    /// The host does not speak the protocol (ICMP protocol unreachable).
    #[error("the host does not speak the Homa protocol")]
    Protocol,
    /// No way to the host.
    #[error("the host cannot be reached")]
    Host,
    /// The network of the host cannot be reached from here.
    #[error("there is no route to the network")]
    Network,
    /// The local system refuses to send there.
    #[error("the local system does not permit sending there")]
    Denied,
    /// The way to the host takes only packets that are too short for the protocol.
    #[error("packets as short as the way there demands cannot hold a Homa header and data")]
    PathTooNarrow,
}

/// The network's report that a packet could not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where the packet should have gone.
    pub peer: SocketAddr,
    /// What stood in the way.
    pub reason: Unreachable,
    /// The RPC of the packet as its sender names it, if the report quotes so much of it.
    pub about: Option<RpcId>,
}

/// Why an RPC ended without a response, or a request or response was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// A message without bytes: Homa has none.
    #[error("a Homa message has at least 1 byte, this one has none")]
    EmptyMessage,
    /// A message over the limit. Nothing was sent.
    #[error("a message of {len} bytes is over the limit of {max} bytes")]
    MessageTooLong {
        /// Length of the message, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The peer was silent for too long.
    #[error("no answer from {peer}: silent for {}, {resends} RESENDs unanswered", Rounded(*silent))]
    TimedOut {
        /// The silent peer.
        peer: SocketAddr,
        /// How long nothing was heard.
        silent: Duration,
        /// RESENDs sent meanwhile.
        resends: u32,
    },
    /// The peer was heard, but the call came no nearer to its end for too long: something is lost on the
    /// way again and again, or the peer has no room for the call.
    #[error("the call to {peer} has got no further for {}, though {peer} was heard", Rounded(*still))]
    Stalled {
        /// The peer.
        peer: SocketAddr,
        /// How long nothing of the request or the response has arrived.
        still: Duration,
    },
    /// The network says that the peer cannot be reached.
    #[error("{peer} is unreachable: {reason}")]
    Unreachable {
        /// The peer.
        peer: SocketAddr,
        /// What was reported.
        reason: Unreachable,
        /// Whether the peer had been heard of for this RPC before.
        delivery: Delivery,
    },
    /// The peer was started after the call had begun, and does not know it. Its predecessor may have
    /// executed the request.
    #[error("{peer} no longer knows the call: it was restarted meanwhile")]
    PeerRestarted {
        /// The peer.
        peer: SocketAddr,
    },
    /// The peer does not know the call, and cannot rule out that it has executed the request.
    #[error("{peer} no longer knows the call")]
    Forgotten {
        /// The peer.
        peer: SocketAddr,
    },
    /// The peer has too many calls in progress and will never execute this request. One that was at its address
    /// before may have, if it was restarted while the call was on its way.
    #[error("{peer} refuses the call: it has as many in progress as it takes ({option})")]
    Refused {
        /// The peer.
        peer: SocketAddr,
        /// The peer's limit.
        option: Limit,
        /// Whether one before it can have had the request.
        delivery: Delivery,
    },
    /// The peer announced a response longer than a message can be.
    #[error("{peer} answered with a message of {len} bytes, over the limit of {max} bytes")]
    ResponseTooLong {
        /// The peer.
        peer: SocketAddr,
        /// Announced length, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// As many RPCs as the configuration allows are in progress. Nothing was sent.
    #[error("{limit} calls are in progress, the limit of this socket ({option})")]
    TooManyRpcs {
        /// The limit.
        limit: usize,
        /// The configuration field that sets it.
        option: Limit,
    },
    /// As many peers as the configuration allows are known and have RPCs. Nothing was sent.
    #[error(
        "{limit} peers have calls in progress, the limit of this socket ({})",
        Limit::Peers
    )]
    TooManyPeers {
        /// The limit.
        limit: usize,
    },
    /// As many bytes of outgoing messages are held as the configuration allows. Nothing was sent.
    #[error(
        "{held} bytes wait to be sent or acknowledged, a message of {len} bytes is too many ({option})"
    )]
    TooManyBytes {
        /// Length of the message, in bytes.
        len: usize,
        /// Bytes held.
        held: usize,
        /// The configuration field that sets the limit.
        option: Limit,
    },
    /// The address cannot be used with this socket (another family, port 0). Nothing was sent.
    #[error("cannot send to {peer}: {reason}")]
    BadAddress {
        /// The address.
        peer: SocketAddr,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The response names an RPC that has ended (the client gave up, for one).
    #[error("the call has ended")]
    Stale,
    /// The system ended this call, or did not take it, for a reason that has no variant of its own. Other calls
    /// go on.
    #[error("the system ended the call to {peer}: {reason}")]
    System {
        /// The peer.
        peer: SocketAddr,
        /// What the system said.
        reason: String,
        /// Whether the request had been handed to the network.
        delivery: Delivery,
    },
    /// The socket is closed or has failed.
    #[error("{reason}")]
    Closed {
        /// Why.
        reason: CloseReason,
        /// Whether the request had been handed to the network.
        delivery: Delivery,
    },
}

/// A time as it is shown to people: two digits tell what matters, and texts about the same thing are the
/// same.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (millis, seconds) = (self.0.as_millis(), self.0.as_secs_f64());
        match millis {
            0..100 => write!(f, "{millis} ms"),
            100..1_000 => write!(f, "{} ms", millis / 10 * 10),
            1_000..10_000 => write!(f, "{seconds:.1} s"),
            _ => write!(f, "{seconds:.0} s"),
        }
    }
}

/// Why a socket no longer works.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// It was closed.
    #[error("the socket is closed")]
    Closed,
    /// The runtime whose task drove it has ended.
    #[error("the runtime that drove the socket has been shut down")]
    RuntimeGone,
    /// The link under it failed for good.
    #[error("the socket's link failed: {0}")]
    LinkFailed(String),
    /// A panic inside the socket: in its protocol core or in what takes its requests.
    #[error("a panic ended the socket's driver")]
    Poisoned,
}

impl RpcError {
    /// Whether the request can have reached the server's application.
    #[must_use]
    pub const fn delivery(&self) -> Delivery {
        match self {
            Self::EmptyMessage
            | Self::MessageTooLong { .. }
            | Self::TooManyRpcs { .. }
            | Self::TooManyPeers { .. }
            | Self::TooManyBytes { .. }
            | Self::BadAddress { .. } => Delivery::NotSent,
            Self::TimedOut { .. }
            | Self::Stalled { .. }
            | Self::PeerRestarted { .. }
            | Self::Forgotten { .. }
            | Self::ResponseTooLong { .. }
            | Self::Stale => Delivery::Unknown,
            Self::Unreachable { delivery, .. }
            | Self::Refused { delivery, .. }
            | Self::System { delivery, .. }
            | Self::Closed { delivery, .. } => *delivery,
        }
    }
}

/// A configuration value out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration field `{field}` is {value}, allowed is {allowed}")]
pub struct ConfigError {
    /// Name of the field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What would be accepted.
    pub allowed: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_in_two_digits() {
        let text = |nanos| {
            let silent = Duration::from_nanos(nanos);
            let (peer, resends) = (SocketAddr::from(([10, 0, 0, 1], 99)), 3);
            let error = RpcError::TimedOut {
                peer,
                silent,
                resends,
            };
            error.to_string()
        };
        assert_eq!(
            text(1_000_123_456),
            "no answer from 10.0.0.1:99: silent for 1.0 s, 3 RESENDs unanswered"
        );
        assert_eq!(text(1_012_345_678), text(1_000_000_001));
        for (nanos, shown) in [
            (12_300_000, "12 ms"),
            (127_300_000, "120 ms"),
            (12_300_000_000, "12 s"),
        ] {
            assert!(text(nanos).contains(shown), "{}", text(nanos));
        }
    }
}
