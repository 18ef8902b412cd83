//! The ends of RPCs and peers.

use std::net::SocketAddr;

use crate::config::Wire;
use crate::endpoint::memory::wait_list::Standing;
use crate::endpoint::messages::outbound::OutMessage;
use crate::endpoint::peers::peer::PeerKey;
use crate::endpoint::peers::replay_memory::MemoryTime;
use crate::endpoint::rpcs::rpc::{Rpc, State};
use crate::endpoint::{Endpoint, Event, RpcKey};
use crate::error::{Report, RpcError, Unreachable};
use crate::units::RpcId;
use crate::wire::{AckEntry, Packet, Unknown};

impl Endpoint {
    /// Takes the report that a peer cannot be reached: calls to it end, and on protocol 146 those to the
    /// other ports of its address too if the report is about the whole host. Requests of a peer end only if
    /// its socket is gone. A host that cannot be reached may be back before there is anything to send; if
    /// not, silence ends them. What our own system refuses to send is one lost packet, unless it is the
    /// first of a call.
    ///
    /// Source: homa_plumbing.c, `homa_err_handler_v4`; homa_rpc.c, `homa_abort_rpcs`.
    pub fn handle_unreachable(&mut self, report: &Report) {
        use Unreachable::{Host, Network, Protocol};
        let peers = match (self.wire, report.reason) {
            (Wire::Native, Protocol | Host | Network) => self.peers.of_host(report.peer.ip()),
            _ => self.peers.find(report.peer).into_iter().collect(),
        };
        for peer_key in peers {
            for key in self.rpcs_of(peer_key) {
                self.end_unreachable(key, report);
            }
            if report.reason != Unreachable::Denied {
                self.forget_peer(peer_key);
            }
        }
    }

    /// Ends an RPC of ours of which the application no longer wants to hear: its server is told
    /// at once, and owed an ack in case that gets lost.
    pub(in crate::endpoint) fn end_call_early(&mut self, key: RpcKey) {
        let Some(mut rpc) = self.remove(key) else {
            return;
        };
        let known = |out: &mut OutMessage| out.sent() > 0 || out.awaits_first_grant().is_some();
        let sent = rpc.out.as_mut().is_some_and(known);
        if sent {
            self.stats.unknown_sent += 1;
            let cancel = Packet::RpcUnknown(Unknown::Unexplained);
            self.send_to_server(rpc.addr, rpc.local, rpc.id, cancel);
            self.owe_ack(&rpc);
        }
    }

    /// Owes the server of a finished RPC of ours its ack.
    pub(in crate::endpoint) fn owe_ack(&mut self, rpc: &Rpc) {
        let entry = AckEntry {
            id: rpc.id.client_form(),
            server_port: rpc.addr.port(),
        };
        let Some(peer) = self.peers.get_mut(rpc.peer) else {
            return;
        };
        if let Some((first, others)) = peer.owe_ack(entry) {
            self.stats.acks_sent += 1;
            self.send_to_server(rpc.addr, rpc.local, first.id, Packet::Ack(others));
        }
    }

    /// Removes an RPC from every table. A request that was delivered is remembered from now on; until
    /// now it was here.
    pub(in crate::endpoint) fn remove(&mut self, key: RpcKey) -> Option<Rpc> {
        self.end_rest(key);
        let peer = self.table.get(key)?.peer;
        let peer_list = &mut self.peers.get_mut(peer)?.rpc_list;
        let mut rpc = self.table.remove(key, peer_list)?;
        if rpc.was_delivered() {
            self.remember_delivered(rpc.addr, rpc.id, self.is_validated(&rpc));
        }
        if let Some(out) = rpc.out.as_mut() {
            let length = out.length() as usize;
            self.outbound_bytes -= length;
            if let Some(peer) = self.peers.get_mut(rpc.peer) {
                peer.outbound_bytes -= length;
            }
            self.release(out.take_message());
        }
        self.grants.remove(key);
        if let Some(rank) = rpc.queued {
            self.pacer.remove(key, rank);
        }
        if let Some(length) = rpc.waits_for_room {
            let standing = Standing::of(length, rpc.birth, key);
            self.waiting.forget_message(rpc.peer, standing);
        }
        if let Some(length) = rpc.waits_for_grant {
            let standing = Standing::of(length, rpc.birth, key);
            self.waiting.forget_ungranted(rpc.peer, standing);
        }
        self.discharge(&rpc);
        self.strangers -= usize::from(rpc.counted_as_stranger);
        if rpc.state == State::Receiving {
            self.peers.on_receiving(rpc.peer, false);
        }
        self.peers.on_rpc_ended(rpc.peer, !rpc.is_client());
        Some(rpc)
    }

    /// Fails an RPC of ours.
    pub(in crate::endpoint) fn fail(&mut self, key: RpcKey, error: RpcError) {
        if let Some(rpc) = self.remove(key) {
            self.stats.rpcs_failed += 1;
            self.events.push_back(Event::Failed {
                cookie: rpc.cookie,
                error,
            });
        }
    }

    /// Ends an RPC of which we are the server, because its client is no longer interested.
    pub(in crate::endpoint) fn end_served(&mut self, key: RpcKey) {
        match self.remove(key).map(|rpc| rpc.state) {
            Some(State::InService) => {
                self.stats.rpcs_cancelled_by_client += 1;
                self.events.push_back(Event::Cancelled { rpc: key });
            }
            Some(State::Receiving) => self.stats.requests_incomplete += 1,
            _ => {}
        }
    }

    /// Forgets a peer that is gone.
    pub(in crate::endpoint) fn forget_peer(&mut self, key: PeerKey) {
        self.peers.forget(key);
    }

    /// Keeps late packets of a client's request from beginning it (again).
    pub(in crate::endpoint) fn remember_delivered(
        &mut self,
        client: SocketAddr,
        id: RpcId,
        validated: bool,
    ) {
        let at = self.memory_time();
        if !at.memory.is_zero() && !self.replays.insert(client.ip(), id, validated, at) {
            self.on_forgotten();
        }
    }

    /// Something was forgotten before its time.
    pub(in crate::endpoint) fn on_forgotten(&mut self) {
        self.stats.delivered_ids_evicted += 1;
        self.memory_clock.on_forgotten();
    }

    /// The time by which delivered requests are remembered.
    pub(in crate::endpoint) const fn memory_time(&self) -> MemoryTime {
        MemoryTime {
            now: self.memory_clock.latest(),
            memory: self.config.delivered_memory,
        }
    }
}
