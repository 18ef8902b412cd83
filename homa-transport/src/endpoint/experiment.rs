//! What only a simulated experiment does with an endpoint.

use super::{Endpoint, RpcKey};

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
