//! Looks into an endpoint from outside, for simulators and diagnostics.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::endpoint::rpcs::rpc::{Rpc, State};
use crate::endpoint::{Endpoint, RpcKey};
use crate::units::RpcId;

/// A request that got bytes within this time is being received.
const LATELY: Duration = Duration::from_secs(1);

impl Endpoint {
    /// The id of an RPC, in the form of this endpoint; `None` if the RPC is over.
    #[must_use]
    pub fn id_of(&self, rpc: RpcKey) -> Option<RpcId> {
        self.table.get(rpc).map(|rpc| rpc.id)
    }

    /// The RPC with the id `id`, in the form of this endpoint, whose other end is `peer` and whose
    /// packets come to our address `local`.
    #[must_use]
    pub fn find_rpc(&self, peer: SocketAddr, local: IpAddr, id: RpcId) -> Option<RpcKey> {
        if id.is_client() {
            self.table.find_client(peer, id)
        } else {
            self.table.find_server(peer, local, id)
        }
    }

    /// Whether a packet of any kind has come from the peer of `rpc` since the RPC began. False if the RPC is
    /// over.
    #[must_use]
    pub fn peer_heard(&self, rpc: RpcKey) -> bool {
        let heard = |rpc: &Rpc| Some(self.peers.get(rpc.peer)?.heard > rpc.liveness.born);
        self.table.get(rpc).and_then(heard).unwrap_or(false)
    }

    /// Whether a request of `peer` is being received right now: it is incomplete, and bytes of one came within
    /// the last second, or it waits for what is ours to do, a GRANT or room for its bytes. Time in which this
    /// process was stopped does not count.
    #[must_use]
    pub fn receiving_from(&self, peer: SocketAddr) -> bool {
        let peer = self.peers.find(peer).and_then(|key| self.peers.get(key));
        let Some(peer) = peer.filter(|peer| peer.receiving > 0) else {
            return false;
        };
        let lately = |advanced| self.memory_clock.latest().saturating_since(advanced) < LATELY;
        let ours = |rpc: &Rpc| {
            let waits = rpc.waits_for_room.is_some() || rpc.is_granting();
            rpc.state == State::Receiving && waits
        };
        peer.request_advanced.is_some_and(lately) || self.table.any_of_peer(&peer.rpc_list, ours)
    }

    /// RPCs in progress or kept until acknowledged.
    #[must_use]
    pub fn rpcs_live(&self) -> usize {
        self.table.len()
    }

    /// The other end of an RPC.
    #[must_use]
    pub fn peer_of(&self, rpc: RpcKey) -> Option<SocketAddr> {
        self.table.get(rpc).map(|rpc| rpc.addr)
    }

    /// True if there is no RPC and nothing to send.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.table.len() == 0
            && self.control.is_empty()
            && self.parts.is_empty()
            && self.pacer.is_empty()
    }

    /// Bytes granted and not received, over all messages that need grants.
    #[must_use]
    pub const fn incoming_bytes(&self) -> u64 {
        self.grants.incoming()
    }

    /// Bytes reserved for incoming messages at present.
    #[must_use]
    pub const fn inbound_bytes(&self) -> usize {
        self.inbound_bytes
    }
}
