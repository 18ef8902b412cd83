//! A packet that has arrived, as far as its header goes.

use std::net::{IpAddr, SocketAddr};

use crate::endpoint::peers::peer::PeerKey;
use crate::units::{Instant, RpcId};
use crate::wire::Tokens;

/// The header of a packet with where it came from and where it went to.
#[derive(Clone, Copy)]
pub(in crate::endpoint) struct Arrival {
    pub(in crate::endpoint) now: Instant,
    pub(in crate::endpoint) peer: SocketAddr,
    pub(in crate::endpoint) local: IpAddr,
    /// What is known of the sender, if it was known before.
    pub(in crate::endpoint) known_peer: Option<PeerKey>,
    /// The RPC in our form.
    pub(in crate::endpoint) id: RpcId,
    /// Over UDP.
    pub(in crate::endpoint) tokens: Tokens,
    /// It shows our token, or need not.
    pub(in crate::endpoint) validated: bool,
}
