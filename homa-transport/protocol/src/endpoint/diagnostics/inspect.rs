//! Looks into an endpoint from outside, for simulators and diagnostics.

use std::net::{IpAddr, SocketAddr};

use crate::endpoint::rpcs::rpc::Rpc;
use crate::endpoint::{Endpoint, RpcKey};
use crate::units::RpcId;

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
