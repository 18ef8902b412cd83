//! A call, as the oracle knows it.

use homa_protocol::units::{Instant, RpcId};

/// A call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// In the form of its client.
    pub(super) id: RpcId,
    pub(super) client: usize,
    pub(super) server: usize,
    pub(super) state: CallState,
    pub(super) request: Content,
    pub(super) response: Content,
    /// Made after the faults: it must succeed.
    pub(super) probe: bool,
    pub(super) begun: Instant,
    /// Number of the server's process to which the request was delivered last; 0: to none.
    pub(super) delivered_in: u32,
    pub(super) answered: bool,
    /// The process from which its client has heard of it after that.
    pub(super) heard_from: u32,
    /// Its client was told that it was not sent.
    pub(super) not_sent: bool,
    /// By a server that was there.
    pub(super) refused: bool,
    /// How often processes of its server had died when it began.
    pub(super) crashes: u32,
}

/// A message by its place in the common text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) start: usize,
    pub(super) len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallState {
    Open,
    Succeeded,
    Failed,
    /// The application gave it up.
    GivenUp,
    /// Its process has died.
    Gone,
}

/// Calls that ended, by how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) given_up: u64,
    pub(super) gone: u64,
    pub(super) delivered: u64,
}

/// What a call begins with.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewCall {
    pub(super) client: usize,
    pub(super) server: usize,
    pub(super) request: Content,
    pub(super) response: Content,
    pub(super) probe: bool,
    pub(super) begun: Instant,
}

impl Call {
    /// A call that begins; `crashes`: how often processes of its server have died.
    pub(super) const fn new(id: RpcId, call: NewCall, crashes: u32) -> Self {
        Self {
            id,
            client: call.client,
            server: call.server,
            state: CallState::Open,
            request: call.request,
            response: call.response,
            probe: call.probe,
            begun: call.begun,
            delivered_in: 0,
            answered: false,
            heard_from: 0,
            not_sent: false,
            refused: false,
            crashes,
        }
    }
}
