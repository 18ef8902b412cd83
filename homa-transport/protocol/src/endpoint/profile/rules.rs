//! What a simulated experiment may change in an endpoint; elsewhere all of it is fixed.
//!
//! The settings come from [`crate::config::Experiment`], which exists only with the feature `sim`.

use crate::config::Config;
use crate::endpoint::grants::priority::UnscheduledCutoffs;
use crate::endpoint::grants::scheduler::PaperGrants;
use crate::wire::MESSAGE_BYTES_MAX;

/// Rules that hold for the whole life of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct Rules {
    pub(in crate::endpoint) message_bytes_max: usize,
    /// Incoming messages are kept, not only counted.
    pub(in crate::endpoint) keeps_payload: bool,
    /// Packets may get lost: RESEND, NEED_ACK, giving up, memory of what was delivered.
    pub(in crate::endpoint) recovers: bool,
    /// START_MSG is known.
    pub(in crate::endpoint) takes_start_msg: bool,
    /// Long messages begin by it whoever gets them.
    pub(in crate::endpoint) always_starts: bool,
    /// Messages may go by grants. Else all go unasked, and nothing is granted.
    pub(in crate::endpoint) knows_grants: bool,
    /// The rule that a deliberately broken endpoint does not keep.
    #[cfg(feature = "sim")]
    pub(in crate::endpoint) broken: Option<Rule>,
    /// The sender's side of the paper's rules.
    pub(in crate::endpoint) paper: Option<PaperSender>,
}

/// Rules that a deliberately broken endpoint can break one of, so that a simulator shows that it notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "sim"),
    expect(unreachable_pub, reason = "simulators name them")
)]
pub enum Rule {
    /// Only our own token for an address shows that its packets are from there.
    TokensAreChecked,
    /// A client is known by its address and ids, whatever its port.
    ClientsKeepTheirIds,
    /// RPC_UNKNOWN proves that a request was not delivered only as far as the server's memory reaches.
    ProofsHaveReach,
    /// Packets that vanish again and again are made shorter.
    BlackHolesAreFound,
    /// Control packets alone keep no RPC alive.
    StandstillEnds,
    /// A refused request is never executed.
    RefusalsAreKept,
    /// A lost START_MSG is sent again.
    StartIsRepeated,
}

/// How senders of the SIGCOMM 2018 simulations cut and rank packets.
#[derive(Clone, Copy, Debug)]
pub(in crate::endpoint) struct PaperSender {
    /// Known to all from the start. They apply to what is left of a message, not to its length.
    pub(in crate::endpoint) cutoffs: UnscheduledCutoffs,
    /// Bytes of a message in a packet that was granted; other headers leave room for fewer.
    pub(in crate::endpoint) scheduled_segment: u32,
}

impl Rules {
    /// Those of every endpoint that is not part of an experiment.
    const USUAL: Self = Self {
        message_bytes_max: MESSAGE_BYTES_MAX,
        keeps_payload: true,
        recovers: true,
        takes_start_msg: true,
        always_starts: false,
        knows_grants: true,
        #[cfg(feature = "sim")]
        broken: None,
        paper: None,
    };

    /// Whether the endpoint is one that does not keep this rule.
    #[cfg(not(feature = "sim"))]
    pub(in crate::endpoint) const fn breaks(&self, _: Rule) -> bool {
        false
    }

    /// Whether the endpoint is one that does not keep this rule.
    #[cfg(feature = "sim")]
    pub(in crate::endpoint) fn breaks(&self, rule: Rule) -> bool {
        self.broken == Some(rule)
    }

    /// What DATA says of the bytes that come without a GRANT.
    pub(in crate::endpoint) const fn announced(&self, incoming: u32) -> u32 {
        if self.knows_grants { incoming } else { 0 }
    }

    /// The bytes of a message that come without a GRANT, by what its first DATA says. A sender that knows
    /// no grants says 0 and sends everything.
    pub(in crate::endpoint) const fn expected(&self, incoming: u32, length: u32) -> u32 {
        if incoming == 0 || !self.knows_grants {
            length
        } else {
            incoming
        }
    }

    #[cfg(not(feature = "sim"))]
    pub(in crate::endpoint) const fn of(_: &Config) -> (Self, Option<PaperGrants>) {
        (Self::USUAL, None)
    }

    #[cfg(feature = "sim")]
    pub(in crate::endpoint) fn of(config: &Config) -> (Self, Option<PaperGrants>) {
        let Some(experiment) = &config.experiment else {
            return (Self::USUAL, None);
        };
        let rules = Self {
            message_bytes_max: experiment.message_bytes_max as usize,
            keeps_payload: false,
            ..Self::USUAL
        };
        let Some(paper) = &experiment.paper_rules else {
            return (rules, None);
        };
        let cutoffs = UnscheduledCutoffs::fixed(paper.cutoffs);
        let sender = PaperSender {
            cutoffs,
            scheduled_segment: paper.scheduled_segment_bytes,
        };
        let grants = PaperGrants {
            packet: paper.scheduled_segment_bytes,
            window: paper.window_bytes,
            pause: paper.grant_pause,
            tail: paper.tail_bytes,
            cutoffs,
        };
        let rules = Self {
            recovers: false,
            paper: Some(sender),
            ..rules
        };
        (rules, Some(grants))
    }
}
