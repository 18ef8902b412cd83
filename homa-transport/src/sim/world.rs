//! A world: hosts with real endpoints on a simulated network, in virtual time.

use std::fmt;
use std::ops::AddAssign;

use super::defect::Defect;
use super::fault::{DisturbanceKind, PacketFaults};
use super::host::{Clock, Host, Running, port};
use super::network::{Arrival, Network, NetworkCounts};
use super::oracle::{Breach, Invariant, Levels, Oracle, Sent};
use super::packet::PacketId;
use super::queue::EventQueue;
use super::random::Random;
use super::scenario::Scenario;
use super::trace::{Record, Summary, Trace, What};
use crate::config::{Config, Wire};
use crate::endpoint::{Endpoint, RpcKey};
use crate::error::{ConfigError, Unreachable};
use crate::units::{Instant, Priority};
use crate::wire;

/// Time between two looks whether all is quiet.
const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_millis(20);
/// Time a world goes on after the faults if damaged packets were delivered: what was taken for
/// sound then may keep two hosts talking for ever.
const LENIENT: std::time::Duration = std::time::Duration::from_secs(3);
/// Time an ICMP message takes.
const REPORT_DELAY: std::time::Duration = std::time::Duration::from_micros(30);

/// A world.
#[derive(Debug)]
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) now: Instant,
    step: u64,
    pub(super) random: Random,
    pub(super) hosts: Vec<Host>,
    network: Network,
    events: EventQueue<Happening>,
    pub(super) oracle: Oracle,
    trace: Trace,
    defect: Option<Box<dyn Defect>>,
    phase: Phase,
    /// When all has to be quiet.
    deadline: Instant,
    /// Answers to be given, by their place in [`Happening::Answer`].
    pub(super) answers: Vec<Answer>,
    pub(super) calls_left: usize,
    pub(super) bytes_left: u64,
    totals: Totals,
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
    Report(usize, usize),
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
enum Phase {
    /// Faults happen.
    Faulty,
    /// They are over; what has begun has to end.
    Healing,
    /// It has; new calls have to succeed.
    Probing,
    Done,
}

/// What happened in a world, or in several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Steps: packets that arrived, timers that ran and so on.
    pub steps: u64,
    /// What happened to packets.
    pub network: NetworkCounts,
    /// Packets that arrived where no process ran, or found its receive buffer full.
    pub missed: u64,
    /// Partitions.
    pub partitions: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Processes that stopped for a while.
    pub stalls: u64,
    /// Calls made.
    pub calls: u64,
    /// Calls that got their response.
    pub succeeded: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls that the application gave up.
    pub given_up: u64,
    /// Calls whose process died.
    pub gone: u64,
    /// Requests delivered.
    pub delivered: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.network += other.network;
        self.missed += other.missed;
        self.partitions += other.partitions;
        self.crashes += other.crashes;
        self.stalls += other.stalls;
        self.calls += other.calls;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.given_up += other.given_up;
        self.gone += other.gone;
        self.delivered += other.delivered;
    }
}

/// How a world went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened.
    pub totals: Totals,
    /// Digest of everything that happened: equal seeds give equal digests.
    pub digest: u64,
    /// When it was over.
    pub end: Instant,
}

/// An invariant did not hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    /// Seed of the world.
    pub seed: u64,
    /// Step at which it showed.
    pub step: u64,
    /// When it showed.
    pub at: Instant,
    /// Host at which it showed.
    pub host: usize,
    /// Another host that has to do with it.
    pub peer: Option<usize>,
    /// Which invariant.
    pub invariant: Invariant,
    /// What exactly.
    pub detail: String,
    /// What had happened last at the hosts.
    pub history: Vec<Record>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, step {}, {:?}, host {}: {:?}: {}",
            self.seed, self.step, self.at, self.host, self.invariant, self.detail
        )?;
        for record in &self.history {
            writeln!(f, "{record}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Violation {}

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
            let endpoint = new_endpoint(&scenario.config, scenario.wire, &mut random)?;
            let clock = scenario.clocks.get(host).copied().unwrap_or(Clock::TRUE);
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
            oracle: Oracle::new(
                number,
                &scenario.config,
                scenario.packet_bytes,
                &scenario.faults,
            ),
            trace: Trace::new(number),
            defect: None,
            phase: Phase::Faulty,
            deadline: Instant::ZERO + scenario.healing + scenario.patience,
            answers: Vec::new(),
            calls_left: scenario.load.calls_max,
            bytes_left: scenario.load.bytes_max,
            totals: Totals::default(),
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
            if let Err(breach) = self.advance() {
                return Err(Box::new(self.violation(breach)));
            }
        }
        Ok(Report {
            totals: self.totals(),
            digest: self.trace.digest(),
            end: self.now,
        })
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
            Happening::Timer(host) => {
                if let Some(host) = self.hosts.get_mut(host) {
                    host.timer = None;
                }
                self.run_timers(host);
                self.serve(host)
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
            | Happening::Report(host, _) => self.act(host, happening),
        }
    }

    /// Something that a process does itself: a stalled one does it later, a dead one never.
    fn act(&mut self, at: usize, happening: Happening) -> Result<(), Breach> {
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
            Happening::Report(_, peer) => self.report(at, peer),
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
                    let happening = Happening::Report(arrival.from, arrival.to);
                    self.at(self.now + REPORT_DELAY, happening);
                }
            }
        }
        self.totals.missed += 1;
        self.network.release(arrival.packet);
        Ok(())
    }

    fn deliver(&mut self, at: usize, packet: PacketId) {
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
            endpoint.find_rpc(peer, local, id.other_side()).is_some()
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
            let (Some(host), Some(peer)) = (hosts.get(at), hosts.get(peer)) else {
                return false;
            };
            let (local, id) = (host.addr.ip(), id.other_side());
            host.endpoint.find_rpc(peer.addr, local, id).is_some()
        })?;
        let to = to.unwrap_or(at);
        let what = What::Sent(Summary::of(to, &parsed, len));
        self.record(at, what);
        self.network
            .send(self.now, at, to, level, &mut self.scratch);
        Ok(())
    }

    // ---- time ----

    fn run_timers(&mut self, at: usize) {
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
        if host.timer.is_none_or(|timer| due < timer) {
            host.timer = Some(due);
            self.at(due, Happening::Timer(at));
        }
    }

    fn levels(&mut self, at: usize) -> Levels {
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

    // ---- faults ----

    fn begin(&mut self, number: usize) -> Result<(), Breach> {
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
            DisturbanceKind::Crash { host, reported } => {
                if !self.change_state(host, Running::Runs, Running::Dead { reported }) {
                    return Ok(());
                }
                self.totals.crashes += 1;
                self.oracle.on_crash(host);
                self.record(host, What::Alive(false));
            }
        }
        self.at(end, Happening::End(number));
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

    fn end(&mut self, number: usize) -> Result<(), Breach> {
        let Some(disturbance) = self.scenario.disturbances.get(number) else {
            return Ok(());
        };
        match disturbance.kind {
            DisturbanceKind::Partition { .. } => {
                self.network.heal(number);
                Ok(())
            }
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
            self.deliver(at, packet);
        }
        self.run_timers(at);
        self.serve(at)?;
        for happening in deferred {
            self.act(at, happening)?;
        }
        self.serve(at)
    }

    /// A new process on the address of the dead one.
    fn restart(&mut self, at: usize) -> Result<(), Breach> {
        let (config, wire) = (&self.scenario.config, self.scenario.wire);
        let Ok(endpoint) = new_endpoint(config, wire, &mut self.random) else {
            return Ok(());
        };
        let Some(host) = self.hosts.get_mut(at) else {
            return Ok(());
        };
        host.endpoint = endpoint;
        host.process += 1;
        host.state = Running::Runs;
        host.deferred.clear();
        self.record(at, What::Alive(true));
        self.begin_load(at);
        self.serve(at)
    }

    fn report(&mut self, at: usize, peer: usize) {
        let Some(addr) = self.hosts.get(peer).map(|host| host.addr) else {
            return;
        };
        if let Some(host) = self.hosts.get_mut(at) {
            let now = host.clock.local(self.now);
            host.endpoint
                .handle_unreachable(now, addr, Unreachable::Port);
        }
        self.record(at, What::Unreachable(peer));
    }

    fn heal(&mut self) -> Result<(), Breach> {
        self.phase = Phase::Healing;
        self.network.set_faults(PacketFaults {
            damaged: self.scenario.faults.damaged,
            ..PacketFaults::default()
        });
        self.record(0, What::Healed);
        self.at(self.now + LOOK_INTERVAL, Happening::Look);
        Ok(())
    }

    /// Goes on to the next phase when all is quiet.
    fn look(&mut self) -> Result<(), Breach> {
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
            self.at(self.now + LOOK_INTERVAL, Happening::Look);
            return Ok(());
        }
        self.oracle.on_end(&levels)?;
        if self.phase == Phase::Probing {
            self.phase = Phase::Done;
            return Ok(());
        }
        self.phase = Phase::Probing;
        self.deadline = self.now + self.scenario.patience;
        self.at(self.now + LOOK_INTERVAL, Happening::Look);
        for host in 0..self.hosts.len() {
            self.probe(host);
            self.serve(host)?;
        }
        Ok(())
    }
}

fn new_endpoint(config: &Config, wire: Wire, random: &mut Random) -> Result<Endpoint, ConfigError> {
    let mut endpoint = Endpoint::new(config.clone(), wire, port(), random.next())?;
    endpoint.set_serving(true);
    Ok(endpoint)
}
