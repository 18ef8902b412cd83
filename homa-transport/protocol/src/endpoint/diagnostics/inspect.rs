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
}
