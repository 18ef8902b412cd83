//! What is going to happen in a world.

use homa_protocol::endpoint::RpcKey;
use homa_protocol::units::RpcId;

/// Something that is going to happen, besides packets.
#[derive(Clone, Copy, Debug)]
pub(super) enum WorldEvent {
    /// The timers of a host are due.
    Timer(usize),
    /// The link of a host takes packets again.
    Link(usize),
    /// A host begins a call.
    Call(usize),
    /// A host answers a request.
    Answer(usize, usize),
    /// A host gives up a call.
    GiveUp(usize, usize, RpcKey),
    /// All hosts begin many calls to one, by the number of the burst.
    Burst(usize),
    /// A packet is forged.
    Forge,
    /// A host takes the next packet out of its receive queue.
    Receive(usize),
    /// A host (first) hears that another cannot be reached.
    Report(usize, usize, Option<RpcId>),
    /// A disturbance begins.
    Begin(usize),
    /// A disturbance ends.
    End(usize),
    /// The faults end.
    Heal,
    /// Time to look whether all is quiet.
    Look,
}
