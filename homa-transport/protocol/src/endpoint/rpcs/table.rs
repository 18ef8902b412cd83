//! The RPCs of an endpoint: generational keys, found by id (client) or by the client's address and id
//! (server).

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use crate::endpoint::RpcKey;
use crate::endpoint::rpcs::rpc::Rpc;
use crate::list::List;
use crate::shrink::shrink;
use crate::slab::Slab;
use crate::units::RpcId;

/// All RPCs, bounded by the caller.
#[derive(Debug)]
pub(crate) struct RpcTable {
    rpcs: Slab<RpcKey, Rpc>,
    clients: HashMap<RpcId, RpcKey>,
    servers: HashMap<ServerId, RpcKey>,
}

/// What names an RPC at its server. The client's port does not: on protocol 146 an ack may come from any of
/// its sockets, and over UDP a NAT may change it, while ids start at a random 64-bit number. The hash is
/// keyed by chance, since peers choose all of it; of our own address, which they hardly can, it takes no
/// notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ServerId {
    client: IpAddr,
    local: IpAddr,
    id: RpcId,
}

impl Hash for ServerId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.client {
            IpAddr::V4(ip) => state.write_u32(ip.to_bits()),
            IpAddr::V6(ip) => state.write_u128(ip.to_bits()),
        }
        self.id.hash(state);
    }
}

impl RpcTable {
    pub(crate) fn new() -> Self {
        Self {
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
        let (id, server) = (rpc.id, Self::server_id(&rpc));
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
        match Self::server_id(&rpc) {
            Some(server) => self.servers.remove(&server),
            None => self.clients.remove(&rpc.id),
        };
        Some(rpc)
    }

    /// Whether there is a call of ours with this id.
    pub(crate) fn has_client(&self, id: RpcId) -> bool {
        self.clients.contains_key(&id)
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
        let client = peer.ip();
        self.servers.get(&ServerId { client, local, id }).copied()
    }

    /// Takes an RPC from one peer's list to another's.
    pub(crate) fn relink(&mut self, key: RpcKey, from: &mut List<RpcKey>, to: &mut List<RpcKey>) {
        from.remove(&mut self.rpcs, |rpc| &mut rpc.peer_links, key);
        to.push_back(&mut self.rpcs, |rpc| &mut rpc.peer_links, key);
    }

    /// Appends an RPC to the list of those at rest with its peer. It is in none.
    pub(in crate::endpoint) fn rest(&mut self, key: RpcKey, list: &mut List<RpcKey>) {
        list.push_back(&mut self.rpcs, |rpc| &mut rpc.rest_links, key);
        if let Some(rpc) = self.rpcs.get_mut(key) {
            rpc.at_rest = true;
        }
    }

    /// Takes an RPC from that list.
    pub(in crate::endpoint) fn end_rest(&mut self, key: RpcKey, list: &mut List<RpcKey>) {
        list.remove(&mut self.rpcs, |rpc| &mut rpc.rest_links, key);
        if let Some(rpc) = self.rpcs.get_mut(key) {
            rpc.at_rest = false;
        }
    }

    /// The RPCs of a peer's list, oldest first.
    pub(crate) fn of_peer(&self, peer_list: &List<RpcKey>) -> Vec<RpcKey> {
        peer_list.keys(&self.rpcs, |rpc| &rpc.peer_links)
    }

    /// Whether any RPC of a peer's list is `such`.
    pub(crate) fn any_of_peer(
        &self,
        peer_list: &List<RpcKey>,
        such: impl Fn(&Rpc) -> bool,
    ) -> bool {
        let mut keys = peer_list.iter(&self.rpcs, |rpc| &rpc.peer_links);
        keys.any(|key| self.get(key).is_some_and(&such))
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

    fn server_id(rpc: &Rpc) -> Option<ServerId> {
        if rpc.is_client() {
            return None;
        }
        Some(ServerId {
            client: rpc.addr.ip(),
            local: rpc.local?,
            id: rpc.id,
        })
    }
}
