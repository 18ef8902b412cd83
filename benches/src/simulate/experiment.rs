//! One run: hosts that send messages to one another at random, and what becomes of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use homa_transport::endpoint::{Endpoint, Event, RpcKey, Transmit};
use homa_transport::sim::{EventQueue, Network, PacketFaults, PacketId, Random, Sizes, Workload};
use homa_transport::units::{Instant, RpcId};
use homa_transport::wire::DATA_HEADER_BYTES;

use super::settings::{self, Mode};
use super::slowdown::{Slowdowns, ideal_nanos};

const PORT: u16 = 4_000;
/// How often every endpoint looks at its timers, in nanoseconds.
const TICK: u64 = 1_000_000;
/// Samples of the backlog in a run.
const SAMPLES: u64 = 90;
/// Longest packet with its header, and the two bytes behind the header (see `Run::pack`).
const PACKET_BYTES_MAX: usize = 2_048;

static ZEROS: [u8; settings::MESSAGE_BYTES_MAX] = [0; settings::MESSAGE_BYTES_MAX];

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) load: f64,
    pub(crate) mode: Mode,
    /// Time in which messages begin. Those of its first third are not measured.
    pub(crate) seconds: f64,
    pub(crate) hosts: usize,
    pub(crate) seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) slowdowns: Slowdowns,
    /// Measured messages that had not arrived when the run was given up.
    pub(crate) unfinished: u64,
    /// Bytes on the wire that reached hosts in the measured time, by what their links can carry.
    pub(crate) utilisation: f64,
    /// Bytes of messages begun in the measured time, by what the links can carry.
    pub(crate) offered: f64,
    /// Packets sent by hosts in the whole run.
    pub(crate) packets: u64,
    /// Bytes of messages on their way: mean over the second and over the last third.
    pub(crate) backlog: (f64, f64),
    /// RPCs that failed; there must be none.
    pub(crate) failed: u64,
    /// A number that follows from everything that arrived, and when.
    pub(crate) digest: u64,
}

impl Outcome {
    /// Why the run says nothing about its nominal load, if so.
    pub(crate) fn objection(&self) -> Option<String> {
        if self.failed > 0 {
            return Some(format!("{} RPCs failed", self.failed));
        }
        if self.unfinished > 0 {
            return Some(format!("{} messages did not arrive", self.unfinished));
        }
        let (utilisation, nominal) = (self.utilisation, self.plan.load);
        if utilisation < nominal - 0.01 {
            return Some(format!("utilisation {utilisation:.3} is below {nominal}"));
        }
        let (before, after) = self.backlog;
        if after > before * BACKLOG_GROWTH_MAX {
            return Some(format!(
                "the backlog grew from {before:.0} to {after:.0} bytes"
            ));
        }
        None
    }
}

/// The backlog of a stable run may be so much greater in its last third than in the one before.
const BACKLOG_GROWTH_MAX: f64 = 1.5;

enum Happening {
    /// A host begins a message.
    Begin(usize),
    /// The link of a host is free.
    LinkFree(usize),
    /// A host's endpoint asked to be called.
    Wake(usize),
    /// All endpoints look at their timers, time and again.
    Tick,
    /// The backlog is looked at.
    Sample,
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
struct Message {
    begun: u64,
    size: u32,
    same_rack: bool,
}

struct Host {
    endpoint: Endpoint,
    random: Random,
    /// Begin of the next message, in nanoseconds, not rounded.
    next_message: f64,
    /// Its link is busy, and word will come when it is not.
    sending: bool,
    /// When its link is free.
    free_at: Instant,
    /// When a [`Happening::Wake`] is due, if one is.
    wake: Option<Instant>,
}

/// A run in progress.
struct Run {
    plan: Plan,
    sizes: Sizes,
    interval: f64,
    packet_bytes: usize,
    network: Network,
    events: EventQueue<Happening>,
    hosts: Vec<Host>,
    messages: Vec<Message>,
    free: Vec<usize>,
    measure_from: u64,
    end: u64,
    slowdowns: Slowdowns,
    /// Measured messages begun and not arrived.
    unfinished: u64,
    measured_wire_bytes: u64,
    measured_message_bytes: u64,
    backlog: u64,
    samples: Vec<u64>,
    failed: u64,
    digest: u64,
    scratch: Box<[u8; PACKET_BYTES_MAX]>,
    header: Vec<u8>,
}

/// Runs `plan`, reporting the share that is done to `progress`.
pub(crate) fn run(plan: Plan, mut progress: impl FnMut(f64)) -> Outcome {
    let mut run = Run::new(plan);
    let (mut steps, limit) = (0_u64, run.end.saturating_mul(3));
    while let Some(now) = run.step() {
        steps += 1;
        if steps.is_multiple_of(1 << 20) {
            progress(now as f64 / run.end as f64);
        }
        if now >= run.end && (run.unfinished == 0 || now > limit) {
            break;
        }
    }
    run.outcome()
}

impl Run {
    fn new(plan: Plan) -> Self {
        let topology = settings::topology(plan.hosts);
        let sizes = plan.workload.sizes_sigcomm18();
        let sizes = sizes.at_most(u32::try_from(ZEROS.len()).unwrap_or(u32::MAX));
        let mut random = Random::new(plan.seed);
        let (config, wire) = settings::endpoint(plan.mode, plan.workload);
        let hosts = (0..plan.hosts).filter_map(|_| {
            let mut endpoint = Endpoint::new(config.clone(), wire, PORT, 0).ok()?;
            endpoint.set_serving(true);
            Some(Host {
                endpoint,
                random: random.fork(),
                next_message: 0.0,
                sending: false,
                free_at: Instant::ZERO,
                wake: None,
            })
        });
        let hosts = hosts.collect();
        let interval = settings::interval_nanos(plan.workload, sizes.mean(), plan.load);
        let end = nanos(plan.seconds * 1e9);
        let mut run = Self {
            interval,
            sizes,
            packet_bytes: settings::packet_bytes(plan.mode),
            network: Network::new(topology, PacketFaults::default(), random.next()),
            events: EventQueue::new(),
            hosts,
            messages: Vec::new(),
            free: Vec::new(),
            measure_from: end / 3,
            end,
            slowdowns: Slowdowns::new(plan.workload),
            unfinished: 0,
            measured_wire_bytes: 0,
            measured_message_bytes: 0,
            backlog: 0,
            samples: Vec::new(),
            failed: 0,
            digest: 0,
            scratch: Box::new([0; PACKET_BYTES_MAX]),
            header: Vec::new(),
            plan,
        };
        for host in 0..run.hosts.len() {
            run.schedule_message(host);
        }
        run.events.push(Instant::from_nanos(TICK), Happening::Tick);
        run.events.push(Instant::ZERO, Happening::Sample);
        run
    }

    /// Does the next thing and returns when that was.
    fn step(&mut self) -> Option<u64> {
        let own = self.events.next_at();
        if let Some(at) = self.network.next_at()
            && own.is_none_or(|own| at <= own)
        {
            if let Some(arrival) = self.network.advance() {
                self.arrive(at, arrival.packet, arrival.from, arrival.to);
            }
            return Some(at.as_nanos());
        }
        let (now, happening) = self.events.pop()?;
        match happening {
            Happening::Begin(host) => {
                self.begin_message(now, host);
                self.schedule_message(host);
            }
            Happening::LinkFree(host) => self.send(now, host),
            Happening::Wake(host) => self.wake(now, host),
            Happening::Tick => {
                for host in 0..self.hosts.len() {
                    self.wake(now, host);
                }
                let next = Instant::from_nanos(now.as_nanos() + TICK);
                self.events.push(next, Happening::Tick);
            }
            Happening::Sample => {
                self.samples.push(self.backlog);
                let next = now.as_nanos() + (self.end / SAMPLES).max(1);
                if next < self.end {
                    self.events
                        .push(Instant::from_nanos(next), Happening::Sample);
                }
            }
        }
        Some(now.as_nanos())
    }

    /// Sets the begin of a host's next message: a Poisson process.
    fn schedule_message(&mut self, number: usize) {
        let Some(host) = self.hosts.get_mut(number) else {
            return;
        };
        host.next_message -= (1.0 - host.random.unit()).ln() * self.interval;
        let at = nanos(host.next_message);
        if at < self.end {
            self.events
                .push(Instant::from_nanos(at), Happening::Begin(number));
        }
    }

    fn begin_message(&mut self, now: Instant, from: usize) {
        let count = self.hosts.len();
        let Some(host) = self.hosts.get_mut(from) else {
            return;
        };
        let size = self.sizes.sample(&mut host.random);
        let to = (from + 1 + host.random.index(count - 1)) % count;
        let topology = self.network.topology();
        let message = Message {
            begun: now.as_nanos(),
            size,
            same_rack: topology.rack_of(from) == topology.rack_of(to),
        };
        let cookie = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.messages.push(message);
                self.messages.len() - 1
            }
        };
        if let Some(slot) = self.messages.get_mut(cookie) {
            *slot = message;
        }
        let bytes = ZEROS.get(..size as usize).unwrap_or(&ZEROS).into();
        let sent =
            host.endpoint
                .send_request(now, address(to), self.packet_bytes, bytes, cookie as u64);
        if sent.is_err() {
            self.failed += 1;
            return;
        }
        self.backlog += u64::from(size);
        if message.begun >= self.measure_from {
            self.unfinished += 1;
            self.measured_message_bytes += u64::from(size);
        }
        self.offer_link(now, from);
    }

    fn arrive(&mut self, now: Instant, packet: PacketId, from: usize, to: usize) {
        let at = now.as_nanos();
        let wire_bytes = self.network.wire_bytes_of(packet);
        if (self.measure_from..self.end).contains(&at) {
            self.measured_wire_bytes += wire_bytes as u64;
        }
        let len = self.unpack(packet);
        self.network.release(packet);
        let (source, local) = (address(from), address(to).ip());
        if let (Some(host), Some(bytes)) = (self.hosts.get_mut(to), self.scratch.get(..len)) {
            host.endpoint.handle_packet(now, source, local, bytes);
        }
        while let Some(event) = self
            .hosts
            .get_mut(to)
            .and_then(|host| host.endpoint.poll_event())
        {
            match event {
                Event::Request { rpc, .. } => self.complete(at, from, to, rpc),
                Event::Failed { .. } => self.failed += 1,
                Event::Response { .. } | Event::Cancelled { .. } | Event::Frozen => {}
            }
        }
        self.offer_link(now, to);
    }

    /// Puts a packet that has arrived together and returns its length. Its data are zeros, or what
    /// an earlier packet has left behind: nobody looks at them.
    fn unpack(&mut self, packet: PacketId) -> usize {
        let bytes = self.network.bytes(packet);
        let Some((header, length)) = bytes.split_last_chunk::<2>() else {
            return 0;
        };
        if let Some(target) = self.scratch.get_mut(..header.len()) {
            target.copy_from_slice(header);
        }
        header.len() + usize::from(u16::from_le_bytes(*length))
    }

    /// A message has arrived: its RPC ends on both hosts at no cost.
    fn complete(&mut self, now: u64, from: usize, to: usize, rpc: RpcKey) {
        let receiver = self.hosts.get_mut(to);
        let id = receiver.and_then(|host| {
            let id = host.endpoint.id_of(rpc);
            host.endpoint.end_silently(rpc);
            id
        });
        let cookie = id.and_then(|id| self.end_call(from, to, id));
        let Some(cookie) = cookie.and_then(|cookie| usize::try_from(cookie).ok()) else {
            self.failed += 1;
            return;
        };
        let Some(message) = self.messages.get(cookie).copied() else {
            return;
        };
        self.free.push(cookie);
        self.backlog -= u64::from(message.size);
        let took = now - message.begun;
        self.digest = (self.digest ^ took ^ (cookie as u64) << 40)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(7);
        if message.begun >= self.measure_from {
            self.unfinished -= 1;
            let ideal = ideal_nanos(message.size, message.same_rack);
            self.slowdowns.add(message.size, took as f64 / ideal);
        }
    }

    fn end_call(&mut self, client: usize, server: usize, id: RpcId) -> Option<u64> {
        let local = address(client).ip();
        let host = self.hosts.get_mut(client)?;
        let rpc = host
            .endpoint
            .find_rpc(address(server), local, id.client_form())?;
        host.endpoint.end_silently(rpc)
    }

    /// An endpoint that has something to send gets its link, if that is free.
    fn offer_link(&mut self, now: Instant, number: usize) {
        let Some(host) = self.hosts.get_mut(number) else {
            return;
        };
        if host.sending {
            return;
        }
        if host.free_at <= now {
            self.send(now, number);
        } else if host.endpoint.may_transmit() {
            host.sending = true;
            self.events.push(host.free_at, Happening::LinkFree(number));
        } else {
            self.set_wake(now, number);
        }
    }

    /// The link of a host is free: the next packet, if there is one.
    fn send(&mut self, now: Instant, number: usize) {
        let Some(host) = self.hosts.get_mut(number) else {
            return;
        };
        let Some(transmit) = host.endpoint.poll_transmit(now) else {
            host.sending = false;
            self.set_wake(now, number);
            return;
        };
        self.pack(&transmit);
        let offset = data_offset(&transmit);
        let counted = settings::counted_bytes(
            self.plan.mode,
            transmit.header.as_slice().len(),
            transmit.payload.len(),
            offset,
        );
        let wire_bytes = self.network.topology().wire_bytes(counted);
        let to = number_of(transmit.to);
        self.network.send_as(
            now,
            number,
            to,
            transmit.priority,
            &mut self.header,
            wire_bytes,
        );
        let Some(host) = self.hosts.get_mut(number) else {
            return;
        };
        host.free_at = self.network.free_at(number);
        host.sending = host.endpoint.may_transmit();
        if host.sending {
            self.events.push(host.free_at, Happening::LinkFree(number));
        } else {
            self.set_wake(now, number);
        }
    }

    /// Writes the header into `self.header`, and behind it how much data follow.
    fn pack(&mut self, transmit: &Transmit) {
        let length = u16::try_from(transmit.payload.len()).unwrap_or(u16::MAX);
        self.header.clear();
        self.header.extend_from_slice(transmit.header.as_slice());
        self.header.extend_from_slice(&length.to_le_bytes());
    }

    fn set_wake(&mut self, now: Instant, number: usize) {
        let Some(host) = self.hosts.get_mut(number) else {
            return;
        };
        let Some(at) = host.endpoint.poll_timeout() else {
            return;
        };
        // While the link is busy it could not do anything.
        let at = at.max(host.free_at);
        let tick = Instant::from_nanos(now.as_nanos() / TICK * TICK + TICK);
        if at < tick && host.wake.is_none_or(|wake| at < wake) {
            host.wake = Some(at);
            self.events.push(at.max(now), Happening::Wake(number));
        }
    }

    fn wake(&mut self, now: Instant, number: usize) {
        let Some(host) = self.hosts.get_mut(number) else {
            return;
        };
        if host.wake.is_some_and(|wake| wake <= now) {
            host.wake = None;
        }
        if host.endpoint.poll_timeout().is_some_and(|at| at <= now) {
            host.endpoint.handle_timeout(now);
        }
        self.offer_link(now, number);
    }

    fn outcome(self) -> Outcome {
        let measured = (self.end - self.measure_from) as f64;
        let bytes_per_nano = settings::HOST_MBPS as f64 / 8_000.0;
        let capacity = measured * bytes_per_nano * self.hosts.len() as f64;
        let third = self.samples.len() / 3;
        let mean =
            |samples: &[u64]| samples.iter().sum::<u64>() as f64 / samples.len().max(1) as f64;
        let (second, last) = (
            self.samples.get(third..2 * third).unwrap_or_default(),
            self.samples.get(2 * third..).unwrap_or_default(),
        );
        Outcome {
            plan: self.plan,
            unfinished: self.unfinished,
            utilisation: self.measured_wire_bytes as f64 / capacity,
            offered: self.measured_message_bytes as f64 / capacity,
            packets: self.network.counts().sent,
            backlog: (mean(second), mean(last)),
            failed: self.failed,
            digest: self.digest,
            slowdowns: self.slowdowns,
        }
    }
}

/// Where the data of a packet lie in their message, if it has any. It ends the header of DATA.
fn data_offset(transmit: &Transmit) -> Option<u32> {
    let header: &[u8; DATA_HEADER_BYTES] = transmit.header.as_slice().try_into().ok()?;
    header
        .last_chunk::<4>()
        .map(|offset| u32::from_be_bytes(*offset))
}

/// Address of host `number`: 10.0.0.1 and up.
fn address(number: usize) -> SocketAddr {
    let number = u32::try_from(number).unwrap_or(0);
    let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + number);
    SocketAddr::new(ip.into(), PORT)
}

/// Number of the host with this address.
fn number_of(addr: SocketAddr) -> usize {
    match addr.ip() {
        IpAddr::V4(ip) => (ip.to_bits() - Ipv4Addr::new(10, 0, 0, 1).to_bits()) as usize,
        IpAddr::V6(_) => 0,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are positive, and the cast saturates"
)]
fn nanos(value: f64) -> u64 {
    value as u64
}
