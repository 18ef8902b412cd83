//! What must hold in every world, and what it looks like if it does not.

/// What must hold in every world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// A process delivers a request at most once. (A restarted one has forgotten what its
    /// predecessor delivered, and delivers it again only if the client has not heard of it since.)
    RequestOnce,
    /// A request that is delivered belongs to a call and has its bytes.
    RequestExact,
    /// A response that is delivered was given for that call and has its bytes.
    ResponseExact,
    /// A call has one outcome.
    OneOutcome,
    /// A request of which the client was told that it was not sent is not delivered.
    NotSentMeansNotSent,
    /// A request is cancelled only after its client has given it up, or was silent for long.
    CancelledForCause,
    /// Packets are well-formed and go to a host.
    WellFormed,
    /// Packets are no longer than the path allows.
    PacketLength,
    /// Control packets have the highest priority configured.
    PriorityLegal,
    /// Grants are for messages that are coming in, and lie within them.
    GrantWithinMessage,
    /// What was granted and has not come is within twice `max_incoming_bytes`.
    GrantsBounded,
    /// Memory for incoming messages is within `inbound_bytes_max`.
    MemoryBounded,
    /// The number of RPCs is within `rpcs_max`, as client and as server.
    RpcsBounded,
    /// When the faults are over, every call ends; and when the network has gone bad for good.
    EveryCallEnds,
    /// An endpoint does not keep itself busy for ever.
    ComesToRest,
    /// When every call has ended, no RPC and no packet is left.
    TablesEmpty,
    /// When every call has ended, no memory is reserved.
    BudgetsZero,
    /// When the faults are over, new calls succeed.
    WorksAgain,
    /// A call fails for a cause: its server is "restarted" or has "forgotten" it only if it was restarted or
    /// cut off; and where nothing worse happens than losses of a tenth, nobody is silent.
    FailsForCause,
    /// Forged packets without the right token change nothing that is there.
    ForgeriesChangeNothing,
    /// An address that has shown no token gets at most three times what came from it.
    NoAmplification,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) invariant: Invariant,
    /// Host at which it showed.
    pub(super) host: usize,
    /// Another host that has to do with it.
    pub(super) peer: Option<usize>,
    pub(super) detail: String,
}

/// Levels of an endpoint that have bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// [`homa_protocol::Endpoint::inbound_bytes`].
    pub inbound_bytes: usize,
    /// RPCs in its table.
    pub rpcs_live: u64,
    /// [`homa_protocol::Endpoint::is_idle`].
    pub idle: bool,
}

impl Breach {
    pub(super) const fn new(
        invariant: Invariant,
        host: usize,
        peer: Option<usize>,
        detail: String,
    ) -> Self {
        Self {
            invariant,
            host,
            peer,
            detail,
        }
    }
}
