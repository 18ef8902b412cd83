//! A world: hosts with real endpoints on a simulated network, in virtual time.

use std::time::Duration;

use super::addresses::Addresses;
use super::clock::Clock;
use super::defect::Defect;
use super::event::WorldEvent;
use super::host::{Host, Running};
use super::invariant::{Breach, Invariant, Levels};
use super::ip::port;
use super::network::Network;
use super::oracle::Oracle;
use super::queue::EventQueue;
use super::random::Random;
use super::report::{Report, Totals, Violation};
use super::scenario::Scenario;
use super::trace::{Record, Trace, What};
use homa_protocol::config::Wire;
use homa_protocol::endpoint::{Endpoint, RpcKey};
use homa_protocol::error::ConfigError;
use homa_protocol::units::Instant;

/// Time an ICMP message takes.
pub const REPORT_DELAY: Duration = Duration::from_micros(30);

/// A world.
#[derive(Debug)]
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) now: Instant,
    pub(super) step: u64,
    pub(super) random: Random,
    pub(super) hosts: Vec<Host>,
    pub(super) addresses: Addresses,
    pub(super) network: Network,
    events: EventQueue<WorldEvent>,
    pub(super) oracle: Oracle,
    pub(super) trace: Trace,
    pub(super) defect: Option<Box<dyn Defect>>,
    pub(super) phase: Phase,
    /// When all has to be quiet.
    pub(super) deadline: Instant,
    /// Answers to be given, by their place in [`WorldEvent::Answer`].
    pub(super) answers: Vec<Answer>,
    pub(super) calls_left: usize,
    pub(super) bytes_left: u64,
    pub(super) totals: Totals,
    /// Host of the last record.
    last_host: usize,
    /// The packet being sent.
    pub(super) scratch: Vec<u8>,
}

/// An answer that the application of a host owes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) host: usize,
    pub(super) rpc: RpcKey,
    pub(super) process: u32,
    pub(super) call: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Faults happen.
    Faulty,
    /// They are over; what has begun has to end.
    Healing,
    /// It has; new calls have to succeed.
    Probing,
    Done,
}

impl World {
    /// The world of a scenario, at its beginning.
    ///
    /// # Errors
    /// If the settings of the endpoints are out of range.
    pub fn new(scenario: Scenario) -> Result<Self, ConfigError> {
        let mut random = Random::new(scenario.seed ^ 0x5eed);
        let number = scenario.topology.hosts();
        let mut hosts = Vec::with_capacity(number);
        for host in 0..number {
            let mut endpoint = new_endpoint(&scenario, host, &mut random)?;
            let clock = scenario.clocks.get(host).copied().unwrap_or(Clock::TRUE);
            endpoint.handle_timeout(clock.local(Instant::ZERO));
            hosts.push(Host::new(host, endpoint, clock));
        }
        let network = Network::new(
            scenario.topology.clone(),
            scenario.faults.clone(),
            random.next(),
        );
        let mut world = Self {
            now: Instant::ZERO,
            step: 0,
            random,
            addresses: Addresses::new(number, &scenario.behind_nat),
            network,
            events: EventQueue::new(),
            oracle: Oracle::new(number, &scenario),
            trace: Trace::new(number),
            defect: None,
            phase: Phase::Faulty,
            deadline: Instant::ZERO + scenario.healing + scenario.patience,
            answers: Vec::new(),
            calls_left: scenario.load.calls_max,
            bytes_left: scenario.load.bytes_max,
            totals: Totals::default(),
            last_host: 0,
            scratch: Vec::new(),
            hosts,
            scenario,
        };
        world.plan();
        Ok(world)
    }

    /// The world of a seed.
    ///
    /// # Panics
    /// Never: the scenarios of seeds have valid settings.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        match Self::new(Scenario::from_seed(seed)) {
            Ok(world) => world,
            Err(error) => unreachable!("seed {seed}: {error}"),
        }
    }

    /// What it was made from.
    #[must_use]
    pub const fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Puts a defect between the endpoints and the world.
    pub fn set_defect(&mut self, defect: impl Defect + 'static) {
        self.defect = Some(Box::new(defect));
        for host in 0..self.hosts.len() {
            self.spoil(host);
        }
    }

    /// Calls `watcher` with everything that happens.
    pub fn watch(&mut self, watcher: impl FnMut(&Record) + 'static) {
        self.trace.watch(Box::new(watcher));
    }

    /// What happened so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let outcomes = self.oracle.outcomes();
        Totals {
            steps: self.step,
            network: self.network.counts(),
            calls: self.oracle.next_call() as u64,
            succeeded: outcomes.succeeded,
            failed: outcomes.failed,
            given_up: outcomes.given_up,
            gone: outcomes.gone,
            delivered: outcomes.delivered,
            ..self.totals
        }
    }

    /// Runs the world to its end: until the faults are over, all that had begun has ended, and new
    /// calls have succeeded.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn run(&mut self) -> Result<Report, Box<Violation>> {
        while self.phase != Phase::Done {
            if let Err(breach) = self.advance().and_then(|()| self.check_rest()) {
                return Err(Box::new(self.violation(breach)));
            }
        }
        Ok(Report {
            totals: self.totals(),
            digest: self.trace.digest(),
            end: self.now,
        })
    }

    fn check_rest(&self) -> Result<(), Breach> {
        if self.step < self.scenario.steps_max {
            return Ok(());
        }
        let detail = format!("{} steps and no end", self.step);
        Err(Breach::new(
            Invariant::ComesToRest,
            self.last_host,
            None,
            detail,
        ))
    }

    fn violation(&self, breach: Breach) -> Violation {
        let hosts: Vec<usize> = [Some(breach.host), breach.peer]
            .into_iter()
            .flatten()
            .collect();
        Violation {
            seed: self.scenario.seed,
            step: self.step,
            at: self.now,
            host: breach.host,
            peer: breach.peer,
            invariant: breach.invariant,
            detail: breach.detail,
            history: self.trace.history(&hosts),
        }
    }

    /// Sets what is known from the beginning.
    fn plan(&mut self) {
        for (number, disturbance) in self.scenario.disturbances.iter().enumerate() {
            let at = Instant::ZERO + disturbance.at;
            self.events.push(at, WorldEvent::Begin(number));
        }
        self.events
            .push(Instant::ZERO + self.scenario.healing, WorldEvent::Heal);
        for (number, burst) in self.scenario.bursts.iter().enumerate() {
            let at = Instant::ZERO + burst.at;
            self.events.push(at, WorldEvent::Burst(number));
        }
        self.set_next_forgery();
        for host in 0..self.hosts.len() {
            self.begin_load(host);
        }
    }

    pub(super) fn at(&mut self, at: Instant, happening: WorldEvent) {
        self.events.push(at, happening);
    }

    /// True as long as new calls may begin.
    pub(super) fn is_loaded(&self) -> bool {
        self.phase == Phase::Faulty
    }

    pub(super) fn record(&mut self, host: usize, what: What) {
        self.last_host = host;
        self.trace.add(Record {
            step: self.step,
            at: self.now,
            host,
            what,
        });
    }

    /// Does the next thing. Packets come before timers that are due at the same time.
    fn advance(&mut self) -> Result<(), Breach> {
        let (packet, other) = (self.network.next_at(), self.events.next_at());
        if packet.is_some_and(|packet| other.is_none_or(|other| packet <= other)) {
            self.now = packet.unwrap_or(self.now);
            return match self.network.advance() {
                Some(arrival) => self.arrive(arrival),
                None => Ok(()),
            };
        }
        let Some((at, happening)) = self.events.pop() else {
            self.phase = Phase::Done;
            return Ok(());
        };
        self.now = at;
        self.step += 1;
        self.happen(happening)
    }

    fn happen(&mut self, happening: WorldEvent) -> Result<(), Breach> {
        match happening {
            WorldEvent::Begin(number) => self.begin(number),
            WorldEvent::End(number) => self.end(number),
            WorldEvent::Heal => self.heal(),
            WorldEvent::Look => self.look(),
            WorldEvent::Timer(at) => {
                let Some(host) = self.hosts.get_mut(at) else {
                    return Ok(());
                };
                if host.timer != Some(self.now) {
                    // It was set for another time since.
                    return Ok(());
                }
                host.timer = None;
                self.run_timers(at);
                self.serve(at)
            }
            WorldEvent::Link(host) => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.awaits_link = false;
                }
                self.serve(host)
            }
            WorldEvent::Burst(number) => self.burst(number),
            WorldEvent::Forge => {
                self.forge();
                Ok(())
            }
            WorldEvent::Receive(host) => self.receive(host),
            WorldEvent::Call(host)
            | WorldEvent::Answer(host, _)
            | WorldEvent::GiveUp(host, ..)
            | WorldEvent::Report(host, ..) => self.act(host, happening),
        }
    }

    /// Something that a process does itself: a stalled one does it later, a dead one never.
    pub(super) fn act(&mut self, at: usize, happening: WorldEvent) -> Result<(), Breach> {
        let Some(host) = self.hosts.get_mut(at) else {
            return Ok(());
        };
        match host.state {
            Running::Stalled => {
                host.deferred.push(happening);
                return Ok(());
            }
            Running::Dead { .. } => return Ok(()),
            Running::Runs => {}
        }
        match happening {
            WorldEvent::Call(_) => self.call(at),
            WorldEvent::Answer(_, answer) => self.answer(at, answer),
            WorldEvent::GiveUp(_, call, rpc) => self.give_up(at, call, rpc),
            WorldEvent::Report(_, peer, about) => self.report(at, peer, about),
            _ => {}
        }
        self.serve(at)
    }

    pub(super) fn run_timers(&mut self, at: usize) {
        // What has arrived comes first.
        let ready = |host: &&mut Host| host.runs() && !host.is_behind();
        let Some(host) = self.hosts.get_mut(at).filter(ready) else {
            return;
        };
        let now = host.clock.local(self.now);
        if host.endpoint.poll_timeout().is_some_and(|due| due <= now) {
            host.endpoint.handle_timeout(now);
            self.record(at, What::Timers);
        }
    }

    pub(super) fn set_timer(&mut self, at: usize) {
        let Some(host) = self.hosts.get_mut(at) else {
            return;
        };
        let Some(due) = host.endpoint.poll_timeout() else {
            return;
        };
        let due = host.clock.true_time(due).max(self.now);
        if due == self.now && (host.awaits_link || host.is_behind()) {
            // What is due is to send, which has to wait for the link, or waits for what has arrived.
            return;
        }
        if host.timer.is_none_or(|timer| due < timer) {
            host.timer = Some(due);
            self.at(due, WorldEvent::Timer(at));
        }
    }

    /// Breaks the rules of an endpoint that the defect names.
    pub(super) fn spoil(&mut self, at: usize) {
        if let (Some(defect), Some(host)) = (&self.defect, self.hosts.get_mut(at))
            && let Some(rule) = defect.breaks(at)
        {
            host.endpoint.break_rule(rule);
        }
    }

    pub(super) fn levels(&mut self, at: usize) -> Levels {
        let mut levels = match self.hosts.get(at) {
            Some(host) => Levels {
                inbound_bytes: host.endpoint.inbound_bytes(),
                rpcs_live: host.endpoint.rpcs_live() as u64,
                idle: host.endpoint.is_idle(),
            },
            None => Levels {
                inbound_bytes: 0,
                rpcs_live: 0,
                idle: true,
            },
        };
        if let Some(defect) = &mut self.defect {
            defect.on_levels(at, &mut levels);
        }
        levels
    }
}

pub(super) fn new_endpoint(
    scenario: &Scenario,
    host: usize,
    random: &mut Random,
) -> Result<Endpoint, ConfigError> {
    let seed = u128::from(random.next());
    let (config, wire) = (scenario.config.clone(), scenario.wire);
    let mut endpoint = Endpoint::new(config, wire, port(), seed | seed << 64)?;
    endpoint.set_serving(true);
    let module = scenario.modules.get(host).copied().flatten();
    if let Some(module) = module.filter(|_| wire == Wire::Native) {
        endpoint.imitate(module);
    }
    Ok(endpoint)
}
