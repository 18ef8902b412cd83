//! What only a simulated experiment does with an endpoint.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::endpoint::profile::rules::Rule;
use crate::endpoint::{Endpoint, RpcKey};

impl Endpoint {
    /// Ends an RPC of either side at no cost: nothing is sent, no event follows, nothing is
    /// remembered. The other end has to be told in the same way. Returns the cookie of a call.
    pub fn end_silently(&mut self, rpc: RpcKey) -> Option<u64> {
        self.remove(rpc).map(|rpc| rpc.cookie)
    }

    /// False if [`Endpoint::poll_transmit`] would yield nothing. A simulated network card need not ask
    /// for the next packet then.
    #[must_use]
    pub fn may_transmit(&self) -> bool {
        !self.control.is_empty()
            || !self.pacer.is_empty()
            || self.grants.may_grant()
            || self.waiting.room_freed
    }
}

/// A Linux module that an endpoint can be made to speak like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    /// Of July 2026: the beginning of a long message goes unasked, START_MSG is not known.
    July,
    /// Since September 2026: long messages go by grants alone, and begin by START_MSG.
    September,
    /// Stripped for the kernel's own sources: no grants, everything goes unasked.
    Upstream,
}

impl Endpoint {
    /// Speaks like a module from now on, as far as the beginnings of messages are concerned. Only on
    /// protocol 146, and before anything is sent.
    pub const fn imitate(&mut self, module: ModuleKind) {
        self.rules.takes_start_msg = matches!(module, ModuleKind::September);
        self.rules.always_starts = matches!(module, ModuleKind::September);
        self.rules.knows_grants = !matches!(module, ModuleKind::Upstream);
    }
}

impl Endpoint {
    /// Does not keep a rule from now on.
    pub const fn break_rule(&mut self, rule: Rule) {
        self.rules.broken = Some(rule);
    }

    /// What is known of a peer and of an RPC, without the bytes of messages, as text. It stays the same
    /// through packets that change nothing.
    #[must_use]
    pub fn standing(&self, peer: SocketAddr, rpc: Option<RpcKey>) -> String {
        let mut text = String::new();
        if let Some(peer) = self.peers.find(peer).and_then(|key| self.peers.get(key)) {
            let (heard, told, cutoffs) = (peer.heard, peer.validation.told, peer.cutoffs);
            let (delay, width) = (peer.round_trip, peer.black_hole);
            let _infallible = write!(text, "{heard:?} {told} {cutoffs:?} {delay:?} {width:?} ");
        }
        if let Some(rpc) = rpc.and_then(|key| self.table.get(key)) {
            let out = rpc.out.as_ref().map(|out| out.standing());
            let inbound = rpc.inbound.as_ref().map(|inbound| inbound.standing());
            let _infallible = write!(
                text,
                "{:?} {:?} {} {} {:?} {:?} {:?} {out:?} {inbound:?}",
                rpc.addr, rpc.state, rpc.shown, rpc.held, rpc.liveness, rpc.timer, rpc.queued
            );
        }
        text
    }
}
