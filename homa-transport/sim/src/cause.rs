//! What may be the cause of a failed call.

use super::fault::{Damaged, DisturbanceKind};
use super::scenario::Scenario;
use homa_protocol::error::RpcError;

/// Calls after the faults that may fail where ways are narrow.
const SECOND_TRIES: u32 = 4;
/// Packets lost or damaged, in millionths, up to which ten requests in a row do not go unanswered.
const CALM_LOSS: u32 = 100_000;

fn is_disturbed(scenario: &Scenario) -> bool {
    let port_change = |kind: &DisturbanceKind| matches!(kind, DisturbanceKind::PortChange { .. });
    let mut kinds = scenario.disturbances.iter().map(|each| &each.kind);
    kinds.any(|kind| !port_change(kind))
}

fn is_calm(scenario: &Scenario) -> bool {
    let faults = &scenario.faults;
    scenario.disturbances.is_empty()
        && !scenario.goes_bad
        && scenario.load.dropped == 0
        && faults.loss + faults.corruption <= CALM_LOSS
        && scenario.topology.packet_bytes_max.is_none()
}

/// What goes wrong in a world, as far as it is the cause of failures.
#[derive(Debug)]
pub(super) struct Causes {
    /// Damaged packets may be delivered, so that contents prove nothing.
    pub(super) lenient: bool,
    /// Hosts may fall silent, and be taken for dead.
    disturbed: bool,
    /// Hosts may fall silent, or the network for good: a server may notice that before a client does.
    pub(super) may_fall_silent: bool,
    /// Nothing worse happens than losses of a tenth.
    calm: bool,
    /// Packets may be so late that what they say of an RPC was true before its request came.
    late: bool,
    /// How many calls after the faults may fail: where ways are narrow, the first may be over before packets
    /// are short enough.
    second_tries: u32,
    /// How often the process of each host has died.
    crashes: Vec<u32>,
}

impl Causes {
    pub(super) fn new(hosts: usize, scenario: &Scenario) -> Self {
        let faults = &scenario.faults;
        Self {
            lenient: faults.damaged == Damaged::Delivered,
            disturbed: is_disturbed(scenario),
            may_fall_silent: is_disturbed(scenario) || scenario.goes_bad,
            calm: is_calm(scenario),
            late: faults.hold_up_max >= scenario.config.resend_interval
                && faults.reordering + faults.duplication > 0,
            second_tries: match scenario.topology.packet_bytes_max {
                Some(_) => SECOND_TRIES,
                None => 0,
            },
            crashes: vec![0; hosts],
        }
    }

    /// The process of `host` has died.
    pub(super) fn on_crash(&mut self, host: usize) {
        if let Some(crashes) = self.crashes.get_mut(host) {
            *crashes += 1;
        }
    }

    /// How often the process of `host` has died.
    pub(super) fn crashes_of(&self, host: usize) -> u32 {
        self.crashes.get(host).copied().unwrap_or(0)
    }

    /// Whether there is a cause for a call of `server` to fail so.
    pub(super) fn excuse(&self, server: usize, error: &RpcError) -> bool {
        let crashed = self.crashes_of(server) > 0;
        self.lenient
            || match error {
                RpcError::PeerRestarted { .. } => crashed || self.late,
                RpcError::Forgotten { .. } => crashed || self.late || self.disturbed,
                RpcError::TimedOut { .. }
                | RpcError::Stalled { .. }
                | RpcError::Unreachable { .. } => !self.calm,
                _ => true,
            }
    }

    /// Whether one more call after the faults may fail.
    pub(super) fn allow_second_try(&mut self) -> bool {
        let allowed = self.second_tries > 0;
        self.second_tries = self.second_tries.saturating_sub(1);
        allowed
    }
}
