//! The faults of hosts and paths as they happen in a world, and what comes after them.

use std::time::Duration;

use super::event::WorldEvent;
use super::fault::{DisturbanceKind, PacketFaults};
use super::host::Running;
use super::invariant::{Breach, Levels};
use super::trace::What;
use super::world::{Phase, World, new_endpoint};
use homa_protocol::error::{Report, Unreachable};
use homa_protocol::units::{Instant, RpcId};

/// Time between two looks whether all is quiet.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Time a world goes on after the faults if damaged packets were delivered: what was taken for
/// sound then may keep two hosts talking for ever.
const LENIENT: Duration = Duration::from_secs(3);

impl World {
    pub(super) fn begin(&mut self, number: usize) -> Result<(), Breach> {
        let Some(disturbance) = self.scenario.disturbances.get(number) else {
            return Ok(());
        };
        if self.phase != Phase::Faulty {
            return Ok(());
        }
        let end = (self.now + disturbance.lasts).min(Instant::ZERO + self.scenario.healing);
        match disturbance.kind.clone() {
            DisturbanceKind::Partition { side } => {
                self.totals.partitions += 1;
                self.network.cut(number, &side);
            }
            DisturbanceKind::Stall { host } => {
                if !self.change_state(host, Running::Runs, Running::Stalled) {
                    return Ok(());
                }
                self.totals.stalls += 1;
                self.record(host, What::Running(false));
            }
            DisturbanceKind::PortChange { host } => {
                if self.addresses.is_behind_nat(host) {
                    self.totals.port_changes += 1;
                    self.addresses.change_port(host, end);
                    self.record(host, What::PortChanged);
                }
                return Ok(());
            }
            DisturbanceKind::Crash { host, reported } => {
                if !self.change_state(host, Running::Runs, Running::Dead { reported }) {
                    return Ok(());
                }
                self.totals.crashes += 1;
                self.oracle.on_crash(host);
                self.empty_queue(host);
                self.record(host, What::Alive(false));
            }
        }
        self.at(end, WorldEvent::End(number));
        Ok(())
    }

    /// False if the host was in another state than `from`.
    fn change_state(&mut self, host: usize, from: Running, to: Running) -> bool {
        let Some(host) = self.hosts.get_mut(host).filter(|host| host.state == from) else {
            return false;
        };
        host.state = to;
        true
    }

    pub(super) fn end(&mut self, number: usize) -> Result<(), Breach> {
        let Some(disturbance) = self.scenario.disturbances.get(number) else {
            return Ok(());
        };
        match disturbance.kind {
            DisturbanceKind::Partition { .. } => {
                self.network.heal(number);
                Ok(())
            }
            DisturbanceKind::PortChange { .. } => Ok(()),
            DisturbanceKind::Stall { host } => self.run_on(host),
            DisturbanceKind::Crash { host, .. } => self.restart(host),
        }
    }

    /// A stalled process runs on: first come the packets that waited, then the timers, then what
    /// the application wanted to do.
    fn run_on(&mut self, at: usize) -> Result<(), Breach> {
        if !self.change_state(at, Running::Stalled, Running::Runs) {
            return Ok(());
        }
        self.record(at, What::Running(true));
        let Some(host) = self.hosts.get_mut(at) else {
            return Ok(());
        };
        let (backlog, deferred) = (host.take_backlog(), std::mem::take(&mut host.deferred));
        for packet in backlog {
            self.deliver(at, packet)?;
        }
        self.set_next_receipt(at);
        self.run_timers(at);
        self.serve(at)?;
        for happening in deferred {
            self.act(at, happening)?;
        }
        self.serve(at)
    }

    /// A new process on the address of the dead one.
    fn restart(&mut self, at: usize) -> Result<(), Breach> {
        let Ok(mut endpoint) = new_endpoint(&self.scenario, at, &mut self.random) else {
            return Ok(());
        };
        let Some(host) = self.hosts.get_mut(at) else {
            return Ok(());
        };
        endpoint.handle_timeout(host.clock.local(self.now));
        host.endpoint = endpoint;
        host.process += 1;
        host.state = Running::Runs;
        host.deferred.clear();
        self.spoil(at);
        self.record(at, What::Alive(true));
        self.begin_load(at);
        self.serve(at)
    }

    pub(super) fn report(&mut self, at: usize, peer: usize, about: Option<RpcId>) {
        let Some(addr) = self.hosts.get(peer).map(|host| host.addr) else {
            return;
        };
        if let Some(host) = self.hosts.get_mut(at) {
            host.endpoint.handle_unreachable(&Report {
                peer: addr,
                reason: Unreachable::Port,
                about,
            });
        }
        self.record(at, What::Unreachable(peer));
    }

    pub(super) fn heal(&mut self) -> Result<(), Breach> {
        self.phase = Phase::Healing;
        self.network.set_faults(PacketFaults {
            damaged: self.scenario.faults.damaged,
            loss: if self.scenario.goes_bad { 1_000_000 } else { 0 },
            ..PacketFaults::default()
        });
        self.record(0, What::Healed);
        self.at(self.now + LOOK_INTERVAL, WorldEvent::Look);
        Ok(())
    }

    /// Goes on to the next phase when all is quiet.
    pub(super) fn look(&mut self) -> Result<(), Breach> {
        let levels: Vec<Levels> = (0..self.hosts.len())
            .map(|host| self.levels(host))
            .collect();
        let quiet = self.oracle.open() == 0
            && levels
                .iter()
                .all(|levels| levels.idle && levels.rpcs_live == 0);
        let late = Instant::ZERO + self.scenario.healing + LENIENT;
        if self.oracle.is_lenient() && (quiet || self.now >= late) {
            self.phase = Phase::Done;
            return Ok(());
        }
        if !quiet && self.now < self.deadline {
            self.at(self.now + LOOK_INTERVAL, WorldEvent::Look);
            return Ok(());
        }
        self.oracle.on_end(&levels)?;
        if self.phase == Phase::Healing {
            let since = Instant::ZERO + self.scenario.healing;
            let took = self.now.saturating_since(since);
            if self.scenario.goes_bad {
                self.totals.quiet_after_bad = took;
            } else {
                self.totals.quiet_after_healing = took;
            }
        }
        if self.phase == Phase::Probing || self.scenario.goes_bad {
            self.phase = Phase::Done;
            return Ok(());
        }
        self.phase = Phase::Probing;
        self.deadline = self.now + self.scenario.patience;
        self.at(self.now + LOOK_INTERVAL, WorldEvent::Look);
        for host in 0..self.hosts.len() {
            self.probe(host);
            self.serve(host)?;
        }
        Ok(())
    }
}
