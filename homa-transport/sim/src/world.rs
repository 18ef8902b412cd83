//! A world: hosts with real endpoints on a simulated network, in virtual time.

use std::time::Duration;

use super::defect::Defect;
use super::host::{Clock, Host, Running, port};
use super::network::{Arrival, Network};
use super::oracle::{Breach, Invariant, Levels, Oracle, Sent};
use super::packet::PacketId;
use super::queue::EventQueue;
use super::random::Random;
use super::report::{Report, Totals, Violation};
use super::scenario::Scenario;
use super::trace::{Record, Summary, Trace, What};
use homa_protocol::config::Wire;
use homa_protocol::endpoint::{Endpoint, RpcKey};
use homa_protocol::error::ConfigError;
use homa_protocol::units::{Instant, Priority, RpcId};
use homa_protocol::wire;

/// Time an ICMP message takes.
pub const REPORT_DELAY: Duration = Duration::from_micros(30);

/// A world.
#[derive(Debug)]
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) now: Instant,
    step: u64,
    pub(super) random: Random,
    pub(super) hosts: Vec<Host>,
    pub(super) network: Network,
    events: EventQueue<Happening>,
    pub(super) oracle: Oracle,
    trace: Trace,
    defect: Option<Box<dyn Defect>>,
    pub(super) phase: Phase,
    /// When all has to be quiet.
    pub(super) deadline: Instant,
    /// Answers to be given, by their place in [`Happening::Answer`].
    pub(super) answers: Vec<Answer>,
    pub(super) calls_left: usize,
    pub(super) bytes_left: u64,
    pub(super) totals: Totals,
    /// Host of the last record.
    last_host: usize,
    /// The packet being sent.
    scratch: Vec<u8>,
}

/// Something that is going to happen, besides packets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
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
            self.events.push(at, Happening::Begin(number));
        }
        self.events
            .push(Instant::ZERO + self.scenario.healing, Happening::Heal);
        for host in 0..self.hosts.len() {
            self.begin_load(host);
        }
    }

    pub(super) fn at(&mut self, at: Instant, happening: Happening) {
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

    fn happen(&mut self, happening: Happening) -> Result<(), Breach> {
        match happening {
            Happening::Begin(number) => self.begin(number),
            Happening::End(number) => self.end(number),
            Happening::Heal => self.heal(),
            Happening::Look => self.look(),
            Happening::Timer(at) => {
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
            Happening::Link(host) => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.awaits_link = false;
                }
                self.serve(host)
            }
            Happening::Call(host)
            | Happening::Answer(host, _)
            | Happening::GiveUp(host, ..)
            | Happening::Report(host, ..) => self.act(host, happening),
        }
    }

    /// Something that a process does itself: a stalled one does it later, a dead one never.
    pub(super) fn act(&mut self, at: usize, happening: Happening) -> Result<(), Breach> {
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
            Happening::Call(_) => self.call(at),
            Happening::Answer(_, answer) => self.answer(at, answer),
            Happening::GiveUp(_, call, rpc) => self.give_up(at, call, rpc),
            Happening::Report(_, peer, about) => self.report(at, peer, about),
            _ => {}
        }
        self.serve(at)
    }

    // ---- packets ----

    fn arrive(&mut self, arrival: Arrival) -> Result<(), Breach> {
        self.step += 1;
        let bytes = self.network.bytes(arrival.packet).len();
        let Some(host) = self.hosts.get_mut(arrival.to) else {
            return Ok(());
        };
        match host.state {
            Running::Runs => {
                self.deliver(arrival.to, arrival.packet);
                return self.serve(arrival.to);
            }
            Running::Stalled => {
                if host.keep(arrival.packet, bytes) {
                    return Ok(());
                }
            }
            Running::Dead { reported } => {
                if reported {
                    let about = wire::quoted_id(self.network.bytes(arrival.packet));
                    let happening = Happening::Report(arrival.from, arrival.to, about);
                    self.at(self.now + REPORT_DELAY, happening);
                }
            }
        }
        self.totals.missed += 1;
        self.network.release(arrival.packet);
        Ok(())
    }

    pub(super) fn deliver(&mut self, at: usize, packet: PacketId) {
        let from = self.network.sender(packet).unwrap_or(at);
        let Some(peer) = self.hosts.get(from).map(|host| host.addr) else {
            return;
        };
        let Some(host) = self.hosts.get_mut(at) else {
            return;
        };
        let bytes = self.network.bytes(packet);
        let (now, local) = (host.clock.local(self.now), host.addr.ip());
        host.endpoint.handle_packet(now, peer, local, bytes);
        let parsed = wire::parse(bytes);
        let endpoint = &host.endpoint;
        self.oracle.on_received(at, from, &parsed, |_, id| {
            endpoint.find_rpc(peer, local, id.other_side())
        });
        self.trace.add(Record {
            step: self.step,
            at: self.now,
            host: at,
            what: What::Received(Summary::of(from, &parsed, bytes.len())),
        });
        self.network.release(packet);
    }

    /// Lets a host do what follows from what it was told.
    pub(super) fn serve(&mut self, at: usize) -> Result<(), Breach> {
        if !self.hosts.get(at).is_some_and(Host::runs) {
            return Ok(());
        }
        self.take_events(at)?;
        self.transmit(at)?;
        self.set_timer(at);
        let levels = self.levels(at);
        self.oracle.on_levels(at, &levels)
    }

    fn take_events(&mut self, at: usize) -> Result<(), Breach> {
        while let Some(event) = self
            .hosts
            .get_mut(at)
            .and_then(|host| host.endpoint.poll_event())
        {
            let Some(defect) = &mut self.defect else {
                self.on_event(at, event)?;
                continue;
            };
            let mut seen = Vec::new();
            defect.on_event(at, event, &mut seen);
            for event in seen {
                self.on_event(at, event)?;
            }
        }
        Ok(())
    }

    /// Hands packets to the link of a host as long as it takes them.
    fn transmit(&mut self, at: usize) -> Result<(), Breach> {
        loop {
            let Some(host) = self.hosts.get_mut(at) else {
                return Ok(());
            };
            if host.awaits_link {
                return Ok(());
            }
            let free = self.network.free_at(at);
            if free > self.now + self.scenario.link_backlog {
                host.awaits_link = true;
                let ahead = self.scenario.link_backlog.as_nanos();
                let ahead = u64::try_from(ahead).unwrap_or(0);
                let word = Instant::from_nanos(free.as_nanos().saturating_sub(ahead));
                self.at(word.max(self.now), Happening::Link(at));
                return Ok(());
            }
            let now = host.clock.local(self.now);
            let Some(transmit) = host.endpoint.poll_transmit(now) else {
                return Ok(());
            };
            self.scratch.clear();
            self.scratch.extend_from_slice(transmit.header.as_slice());
            for part in transmit.payload.parts() {
                self.scratch.extend_from_slice(part);
            }
            let to = super::host::number_of(transmit.to).filter(|to| *to < self.hosts.len());
            self.send(at, to, transmit.priority)?;
        }
    }

    /// Sends the packet in `scratch`.
    fn send(&mut self, at: usize, to: Option<usize>, mut level: Priority) -> Result<(), Breach> {
        if let Some(defect) = &mut self.defect {
            defect.on_packet(at, &mut self.scratch, &mut level);
        }
        let parsed = wire::parse(&self.scratch);
        let len = self.scratch.len();
        let hosts = &self.hosts;
        let sent = Sent {
            to,
            level,
            len,
            packet: &parsed,
        };
        self.oracle.on_sent(at, &sent, |peer, id| {
            let (host, peer) = (hosts.get(at)?, hosts.get(peer)?);
            let (local, id) = (host.addr.ip(), id.other_side());
            host.endpoint.find_rpc(peer.addr, local, id)
        })?;
        let to = to.unwrap_or(at);
        let what = What::Sent(Summary::of(to, &parsed, len));
        self.record(at, what);
        self.network
            .send(self.now, at, to, level, &mut self.scratch);
        Ok(())
    }

    // ---- time ----

    pub(super) fn run_timers(&mut self, at: usize) {
        let Some(host) = self.hosts.get_mut(at).filter(|host| host.runs()) else {
            return;
        };
        let now = host.clock.local(self.now);
        if host.endpoint.poll_timeout().is_some_and(|due| due <= now) {
            host.endpoint.handle_timeout(now);
            self.record(at, What::Timers);
        }
    }

    fn set_timer(&mut self, at: usize) {
        let Some(host) = self.hosts.get_mut(at) else {
            return;
        };
        let Some(due) = host.endpoint.poll_timeout() else {
            return;
        };
        let due = host.clock.true_time(due).max(self.now);
        if due == self.now && host.awaits_link {
            // What is due is to send, which has to wait for the link.
            return;
        }
        if host.timer.is_none_or(|timer| due < timer) {
            host.timer = Some(due);
            self.at(due, Happening::Timer(at));
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
