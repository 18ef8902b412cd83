//! The RPCs of an endpoint: generational keys, found by id (client) or by peer and id (server).

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use super::RpcKey;
use super::address::AddrKey;
use super::release::shrink;
use super::rpc::Rpc;
use crate::config::Wire;
use crate::list::List;
use crate::slab::Slab;
use crate::units::RpcId;

/// All RPCs, bounded by the caller.
#[derive(Debug)]
pub(crate) struct RpcTable {
    wire: Wire,
    rpcs: Slab<RpcKey, Rpc>,
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
            rpcs: Slab::new(),
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

    /// Adds an RPC, at the end of its peer's list.
    pub(crate) fn insert(&mut self, rpc: Rpc, peer_list: &mut List<RpcKey>) -> RpcKey {
        let (id, server) = (rpc.id, self.server_id(&rpc));
        let key = self.rpcs.insert(rpc);
        peer_list.push_back(&mut self.rpcs, |rpc| &mut rpc.peer_links, key);
        match server {
            Some(server) => self.servers.insert(server, key),
            None => self.clients.insert(id, key),
        };
        key
    }

    /// Removes an RPC, also from its peer's list.
    pub(crate) fn remove(&mut self, key: RpcKey, peer_list: &mut List<RpcKey>) -> Option<Rpc> {
        peer_list.remove(&mut self.rpcs, |rpc| &mut rpc.peer_links, key);
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

    /// The RPCs of a peer's list, oldest first.
    pub(crate) fn of_peer(&self, peer_list: &List<RpcKey>) -> Vec<RpcKey> {
        peer_list.keys(&self.rpcs, |rpc| &rpc.peer_links)
    }

    /// All RPCs of which we are the client.
    pub(crate) fn calls(&self) -> Vec<RpcKey> {
        let ours = self.rpcs.iter().filter(|(_, rpc)| rpc.is_client());
        ours.map(|(key, _)| key).collect()
    }

    /// Gives memory back that is no longer used.
    pub(crate) fn release(&mut self) {
        shrink(&mut self.clients);
        shrink(&mut self.servers);
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
