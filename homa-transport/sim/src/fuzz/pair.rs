//! Two endpoints, the applications on them and the packets between them.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::calls::{self, Calls};
use homa_protocol::config::{Config, Wire};
use homa_protocol::endpoint::{Endpoint, Event, RpcKey};
use homa_protocol::error::RpcError;
use homa_protocol::message::Message;
use homa_protocol::units::Instant;
use homa_protocol::wire::{self, MESSAGE_BYTES_MAX, Tokens};

/// Time a packet takes.
const DELAY: Duration = Duration::from_micros(20);
/// A packet that has been under way for longer is lost. Requests are remembered for longer, so that
/// none may be executed twice.
const AGE_MAX: Duration = Duration::from_millis(250);
/// Packets under way at most.
const FLIGHTS_MAX: usize = 4_000;
/// Times that an endpoint may be due again at one instant.
const SPINS_MAX: usize = 16;
/// Steps in one stretch of time, after which an endpoint does not come to rest.
const STEPS_MAX: usize = 1_000_000;
/// Packets that follow from one input.
const BURST_MAX: usize = 50_000;

/// A packet under way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) from: SocketAddr,
    pub(super) to: usize,
    pub(super) local: IpAddr,
    pub(super) sent: Instant,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    pub(super) addr: SocketAddr,
    /// The link takes no packets.
    pub(super) blocked: bool,
    /// The process does not run.
    pub(super) stalled: bool,
    /// Packets that wait for it to run.
    backlog: VecDeque<Flight>,
    /// Requests in service, with their calls if known.
    pub(super) requests: Vec<(RpcKey, Option<usize>)>,
    /// Calls in progress, with their handles.
    pub(super) keys: Vec<(usize, RpcKey)>,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) hosts: [Host; 2],
    pub(super) network: VecDeque<Flight>,
    pub(super) calls: Calls,
    /// Those of the last packet from one to the other.
    pub(super) tokens: HashMap<(SocketAddr, usize), Tokens>,
    config: Config,
    packet_bytes: usize,
    /// Requests are answered at once with so many bytes.
    pub(super) answer_at_once: Option<usize>,
}

/// Address of a host.
pub(super) fn addr(at: usize) -> SocketAddr {
    let last = if at == 0 { 1 } else { 2 };
    SocketAddr::from(([10, 0, 0, last], 4_000 + u16::from(last)))
}

impl Pair {
    pub(super) fn new(config: &Config, wire: Wire, packet_bytes: usize, forged: bool) -> Self {
        let host = |at| {
            let (addr, seed) = (addr(at), 0x1000 * (at as u128 + 1));
            let endpoint = Endpoint::new(config.clone(), wire, addr.port(), seed);
            let mut endpoint = endpoint.unwrap_or_else(|error| panic!("{error}"));
            endpoint.set_serving(true);
            endpoint.handle_timeout(Instant::ZERO);
            Host {
                endpoint,
                addr,
                blocked: false,
                stalled: false,
                backlog: VecDeque::new(),
                requests: Vec::new(),
                keys: Vec::new(),
            }
        };
        Self {
            now: Instant::from_nanos(1_000_000_000),
            hosts: [host(0), host(1)],
            network: VecDeque::new(),
            calls: Calls::new(forged),
            tokens: HashMap::new(),
            config: config.clone(),
            packet_bytes,
            answer_at_once: None,
        }
    }

    // ---- what the applications do ----

    pub(super) fn call(&mut self, at: usize, to: SocketAddr, len: usize, parts: usize) {
        let number = self.calls.next();
        let message = split(request_of(number, len), parts);
        let host = &mut self.hosts[at];
        let sent =
            host.endpoint
                .send_request(self.now, to, self.packet_bytes, message, number as u64);
        match sent {
            Ok(key) => {
                let id = host.endpoint.id_of(key);
                let id = id.unwrap_or_else(|| panic!("a call that is none"));
                host.keys.push((number, key));
                self.calls.begin(host.addr, to, id, len);
            }
            Err(error) => check_refusal(&error, len, to),
        }
        self.drain(at);
    }

    pub(super) fn respond(&mut self, at: usize, index: usize, len: usize) {
        let host = &mut self.hosts[at];
        let Some((key, number)) = host.requests.get(index).copied() else {
            return;
        };
        let message = split(calls::response(number.unwrap_or(0), len.min(LEN_MAX)), 2);
        // The answer can come before the call returns.
        self.calls.on_answer(number, len);
        match host
            .endpoint
            .send_response(self.now, key, self.packet_bytes, message)
        {
            Ok(()) => {
                host.requests.swap_remove(index);
            }
            Err(RpcError::Stale) => panic!("a request in service is stale"),
            Err(error) => check_refusal(&error, len, host.addr),
        }
        self.drain(at);
    }

    /// Gives up a call.
    pub(super) fn abort(&mut self, at: usize, index: usize) {
        let host = &mut self.hosts[at];
        if index < host.keys.len() {
            let (number, key) = host.keys.swap_remove(index);
            host.endpoint.abort(self.now, key);
            self.calls.give_up(number);
        }
        self.drain(at);
    }

    /// Gives up all calls to `peer`.
    pub(super) fn abort_all(&mut self, at: usize, peer: SocketAddr) {
        let mut index = 0;
        while let Some((_, key)) = self.hosts[at].keys.get(index) {
            if self.hosts[at].endpoint.peer_of(*key) == Some(peer) {
                self.abort(at, index);
            } else {
                index += 1;
            }
        }
    }

    /// Gives up a request in service.
    pub(super) fn drop_request(&mut self, at: usize, index: usize) {
        let host = &mut self.hosts[at];
        if index < host.requests.len() {
            let (key, _) = host.requests.swap_remove(index);
            host.endpoint.abort(self.now, key);
        }
        self.drain(at);
    }

    pub(super) fn close(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.endpoint.close();
        for (number, _) in host.keys.drain(..) {
            self.calls.give_up(number);
        }
        self.drain(at);
    }

    // ---- what the network does ----

    /// Delivers a packet, or lets it wait for the process to run.
    pub(super) fn deliver(&mut self, flight: Flight) {
        let at = flight.to;
        if self.now.saturating_since(flight.sent) > AGE_MAX {
            return;
        }
        let host = &mut self.hosts[at];
        if host.stalled {
            host.backlog.push_back(flight);
            return;
        }
        host.endpoint
            .handle_packet(self.now, flight.from, flight.local, &flight.bytes);
        self.drain(at);
    }

    pub(super) fn deliver_all(&mut self) {
        for _ in 0..self.network.len() {
            if let Some(flight) = self.network.pop_front() {
                self.deliver(flight);
            }
        }
    }

    pub(super) fn run_on(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if !std::mem::take(&mut host.stalled) {
            return;
        }
        // The endpoint is told of all that waited before its timers run.
        for flight in std::mem::take(&mut host.backlog) {
            host.endpoint
                .handle_packet(self.now, flight.from, flight.local, &flight.bytes);
        }
        self.drain(at);
        self.run_timers(at);
    }

    // ---- time ----

    /// Lets time pass. `delivered`: the network works meanwhile.
    pub(super) fn run(&mut self, time: Duration, delivered: bool) {
        let end = self.now + time;
        // Of the packets that are on their way; those sent after the first of them come with it.
        let mut arrival = None;
        for _ in 0..STEPS_MAX {
            if delivered && !self.network.is_empty() {
                arrival.get_or_insert(self.now + DELAY);
            }
            let Some(next) = self.next_timer().into_iter().chain(arrival).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if arrival.is_some_and(|at| at <= next) {
                arrival = None;
                self.deliver_all();
            }
            self.run_timers(0);
            self.run_timers(1);
            if delivered && self.is_quiet() {
                break;
            }
        }
        assert!(
            self.next_timer().is_none_or(|at| at > self.now),
            "an endpoint does not come to rest"
        );
        self.now = self.now.max(end);
    }

    fn next_timer(&self) -> Option<Instant> {
        let due = |host: &Host| {
            let at = host.endpoint.poll_timeout().filter(|_| !host.stalled)?;
            // A driver whose link is full does not look all the time.
            let pause = Duration::from_millis(1);
            Some(if host.blocked {
                at.max(self.now + pause)
            } else {
                at
            })
        };
        self.hosts.iter().filter_map(due).min()
    }

    pub(super) fn run_timers(&mut self, at: usize) {
        let due = |host: &Host, now| host.endpoint.poll_timeout().is_some_and(|at| at <= now);
        for _ in 0..SPINS_MAX {
            let host = &mut self.hosts[at];
            if host.stalled || !due(host, self.now) {
                return;
            }
            host.endpoint.handle_timeout(self.now);
            self.drain(at);
            if self.hosts[at].blocked {
                return;
            }
        }
        let host = &self.hosts[at];
        assert!(
            !due(host, self.now),
            "due again and again at {:?}",
            self.now
        );
    }

    // ---- what follows ----

    /// Takes all that an endpoint yields.
    pub(super) fn drain(&mut self, at: usize) {
        if self.hosts[at].stalled {
            return;
        }
        self.take_events(at);
        if !self.hosts[at].blocked {
            let sent = (0..BURST_MAX).take_while(|_| self.transmit(at)).count();
            assert!(sent < BURST_MAX, "an endpoint sends for ever");
        }
        self.take_events(at);
        self.check(at);
    }

    fn take_events(&mut self, at: usize) {
        while let Some(event) = self.hosts[at].endpoint.poll_event() {
            let host = &mut self.hosts[at];
            match event {
                Event::Request { rpc, peer, message } => {
                    let Some(id) = host.endpoint.id_of(rpc) else {
                        // Over already: the event that says so comes later.
                        host.requests.push((rpc, None));
                        continue;
                    };
                    let number = self.calls.on_request(host.addr, peer, id, &message);
                    host.requests.push((rpc, number));
                    if let Some(len) = self.answer_at_once {
                        self.respond(at, self.hosts[at].requests.len() - 1, len);
                    }
                }
                Event::Response { cookie, message } => {
                    let addr = host.addr;
                    host.keys.retain(|(number, _)| *number as u64 != cookie);
                    self.calls.on_response(addr, cookie, &message);
                }
                Event::Failed { cookie, error } => {
                    assert!(!error.to_string().is_empty());
                    host.keys.retain(|(number, _)| *number as u64 != cookie);
                    self.calls.end(host.addr, cookie);
                }
                Event::Cancelled { rpc } => {
                    let known = host.requests.iter().position(|(key, _)| *key == rpc);
                    let known = known.unwrap_or_else(|| panic!("cancelled, but not in service"));
                    host.requests.swap_remove(known);
                }
                Event::Frozen => assert!(self.config.freeze, "frozen, but not allowed"),
            }
        }
    }

    /// Sends one packet, if there is one.
    pub(super) fn transmit(&mut self, at: usize) -> bool {
        let host = &mut self.hosts[at];
        let Some(transmit) = host.endpoint.poll_transmit(self.now) else {
            return false;
        };
        let bytes = transmit.to_vec();
        let parsed = wire::parse(&bytes);
        let (_, packet) = parsed.unwrap_or_else(|error| panic!("sends what is malformed: {error}"));
        if packet.packet_type() == wire::PacketType::Data {
            assert!(bytes.len() <= self.packet_bytes, "{} bytes", bytes.len());
        } else {
            assert_eq!(transmit.payload.len(), 0);
        }
        assert!(transmit.priority.level() < self.config.num_priorities);
        let to = self.hosts.iter().position(|host| host.addr == transmit.to);
        if let Some(to) = to {
            self.tokens.insert((addr(at), to), Tokens::of(&bytes));
        }
        if let Some(to) = to
            && self.network.len() < FLIGHTS_MAX
        {
            self.network.push_back(Flight {
                from: addr(at),
                to,
                local: transmit.to.ip(),
                sent: self.now,
                bytes,
            });
        }
        true
    }

    fn check(&mut self, at: usize) {
        let endpoint = &mut self.hosts[at].endpoint;
        assert!(endpoint.inbound_bytes() <= self.config.inbound_bytes_max);
        let stats = endpoint.stats();
        assert!(stats.rpcs_live <= 2 * self.config.rpcs_max as u64);
        let mut released = Vec::new();
        endpoint.take_released(&mut released);
        assert!(released.len() <= 1_024);
        if !self.calls.forged {
            let bad = stats.malformed_field + stats.malformed_type + stats.malformed_truncated;
            assert_eq!((bad, stats.wrong_port), (0, 0));
        }
    }

    /// True if nothing is under way and no endpoint has anything left to do.
    pub(super) fn is_quiet(&self) -> bool {
        let idle = |host: &Host| host.endpoint.is_idle() && host.endpoint.rpcs_live() == 0;
        self.network.is_empty() && self.hosts.iter().all(idle)
    }
}

/// Longest message that is made, in bytes: one more than allowed.
pub(super) const LEN_MAX: usize = MESSAGE_BYTES_MAX + 1;

fn request_of(number: usize, len: usize) -> bytes::Bytes {
    calls::request(number, len.min(LEN_MAX))
}

/// A message of so many parts.
fn split(mut whole: bytes::Bytes, parts: usize) -> Message {
    let mut message = Message::new();
    for _ in 1..parts {
        message.push(whole.split_to(whole.len() / 2));
    }
    message.push(whole);
    message
}

/// Says whether there was a reason to refuse a message.
fn check_refusal(error: &RpcError, len: usize, to: SocketAddr) {
    let right = match error {
        RpcError::EmptyMessage => len == 0,
        RpcError::MessageTooLong { .. } => len > MESSAGE_BYTES_MAX,
        RpcError::BadAddress { .. } => {
            to.port() == 0 || to.ip().is_multicast() || to.ip().is_unspecified()
        }
        RpcError::TooManyRpcs { .. }
        | RpcError::TooManyPeers { .. }
        | RpcError::TooManyBytes { .. } => true,
        _ => false,
    };
    assert!(right, "{len} bytes to {to} are refused: {error}");
}
