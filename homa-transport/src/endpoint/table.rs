//! The RPCs of an endpoint: generational keys, found by id (client) or by peer and id (server).

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use slotmap::SlotMap;

use super::RpcKey;
use super::address::AddrKey;
use super::rpc::Rpc;
use crate::config::Wire;
use crate::units::RpcId;

/// All RPCs, bounded by the caller.
#[derive(Debug)]
pub(crate) struct RpcTable {
    wire: Wire,
    rpcs: SlotMap<RpcKey, Rpc>,
    clients: HashMap<RpcId, RpcKey>,
    servers: HashMap<ServerId, RpcKey>,
}

/// What names an RPC at its server. The hash is keyed by chance, since peers choose all of it; of our
/// own address, which they hardly can, it takes no notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ServerId {
    peer: AddrKey,
    local: IpAddr,
    id: RpcId,
}

impl Hash for ServerId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.peer.hash(state);
        self.id.hash(state);
    }
}

impl RpcTable {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            wire,
            rpcs: SlotMap::with_key(),
            clients: HashMap::default(),
            servers: HashMap::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rpcs.len()
    }

    /// RPCs of which we are the client.
    pub(crate) fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// RPCs of which we are the server.
    pub(crate) fn server_count(&self) -> usize {
        self.servers.len()
    }

    pub(crate) fn get(&self, key: RpcKey) -> Option<&Rpc> {
        self.rpcs.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: RpcKey) -> Option<&mut Rpc> {
        self.rpcs.get_mut(key)
    }

    pub(crate) fn insert(&mut self, rpc: Rpc) -> RpcKey {
        let (id, server) = (rpc.id, self.server_id(&rpc));
        let key = self.rpcs.insert(rpc);
        match server {
            Some(server) => self.servers.insert(server, key),
            None => self.clients.insert(id, key),
        };
        key
    }

    pub(crate) fn remove(&mut self, key: RpcKey) -> Option<Rpc> {
        let rpc = self.rpcs.remove(key)?;
        match self.server_id(&rpc) {
            Some(server) => self.servers.remove(&server),
            None => self.clients.remove(&rpc.id),
        };
        Some(rpc)
    }

    /// Our call with this id, if it goes to `peer`. Differs: the module does not compare the peer
    /// (homa_rpc.c, `homa_rpc_find_client`); doing so keeps others from meddling.
    pub(crate) fn find_client(&self, peer: SocketAddr, id: RpcId) -> Option<RpcKey> {
        let key = *self.clients.get(&id)?;
        self.rpcs
            .get(key)
            .is_some_and(|rpc| rpc.addr == peer)
            .then_some(key)
    }

    /// The RPC of which we are the server. Source: homa_rpc.c, `homa_rpc_find_server`.
    pub(crate) fn find_server(&self, peer: SocketAddr, local: IpAddr, id: RpcId) -> Option<RpcKey> {
        let peer = self.peer_identity(peer);
        self.servers.get(&ServerId { peer, local, id }).copied()
    }

    /// Keys of all RPCs for which `wanted` holds.
    pub(crate) fn select(&self, wanted: impl Fn(&Rpc) -> bool) -> Vec<RpcKey> {
        self.rpcs
            .iter()
            .filter(|(_, rpc)| wanted(rpc))
            .map(|(key, _)| key)
            .collect()
    }

    fn server_id(&self, rpc: &Rpc) -> Option<ServerId> {
        if rpc.is_client() {
            return None;
        }
        let peer = self.peer_identity(rpc.addr);
        Some(ServerId {
            peer,
            local: rpc.local?,
            id: rpc.id,
        })
    }

    /// On protocol 146 a peer's RPCs are known by its address alone: an ack may come from any of
    /// its sockets.
    fn peer_identity(&self, mut peer: SocketAddr) -> AddrKey {
        if self.wire == Wire::Native {
            peer.set_port(0);
        }
        AddrKey(peer)
    }
}
