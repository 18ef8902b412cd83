//! A client whose port changes while its requests are served: a NAT forgot about it.
//!
//! Its RPCs are found by its address and their ids, so nothing is executed again. They move to the new port
//! once a packet from there shows our token for that port: until then the client may be somebody else.

use std::net::SocketAddr;

use crate::config::Wire;
use crate::endpoint::arrival::Arrival;
use crate::endpoint::memory::wait_list::Standing;
use crate::endpoint::peers::peer::PeerKey;
use crate::endpoint::rpcs::rpc::State;
use crate::endpoint::{Endpoint, RpcKey};

impl Endpoint {
    /// Moves a served RPC to the port from which a validated packet about it has come, if that is another
    /// one. On protocol 146 ports do not change, and an ack may come from any.
    pub(in crate::endpoint) fn follow_client(&mut self, arrival: &Arrival, key: RpcKey) {
        if self.wire == Wire::Native || arrival.id.is_client() {
            return;
        }
        if self
            .table
            .get(key)
            .is_none_or(|rpc| rpc.addr == arrival.peer)
        {
            return;
        }
        if let Some(to) = self.peers.find_or_insert(arrival.peer, arrival.now) {
            self.end_rest(key);
            self.move_rpc(key, to, arrival.peer);
            self.set_timer(key, arrival.now + self.config.resend_interval);
            self.stats.rpcs_moved += 1;
        }
    }

    fn move_rpc(&mut self, key: RpcKey, to: PeerKey, addr: SocketAddr) {
        let Some(rpc) = self.table.get_mut(key) else {
            return;
        };
        let from = std::mem::replace(&mut rpc.peer, to);
        rpc.addr = addr;
        rpc.moved_from = Some(from);
        let (birth, receiving) = (rpc.birth, rpc.state == State::Receiving);
        let (inbound, outbound) = (rpc.charged, rpc.out.as_ref().map_or(0, |out| out.length()));
        let (room, grant) = (rpc.waits_for_room, rpc.waits_for_grant);
        for (waits, length) in [(true, room), (false, grant)] {
            if let Some(length) = length {
                let standing = Standing::of(length, birth, key);
                self.waiting.follow(waits, from, to, standing);
            }
        }
        let mut list = self
            .peers
            .get(from)
            .map(|peer| peer.rpc_list)
            .unwrap_or_default();
        if let Some(peer) = self.peers.get_mut(to) {
            self.table.relink(key, &mut list, &mut peer.rpc_list);
            peer.inbound_bytes += inbound;
            peer.outbound_bytes += outbound as usize;
        }
        if let Some(peer) = self.peers.get_mut(from) {
            peer.rpc_list = list;
            peer.inbound_bytes -= inbound;
            peer.outbound_bytes -= outbound as usize;
        }
        if receiving {
            self.peers.on_receiving(to, true);
            self.peers.on_receiving(from, false);
        }
        self.peers.on_rpc_begun(to, true);
        self.peers.on_rpc_ended(from, true);
    }
}
