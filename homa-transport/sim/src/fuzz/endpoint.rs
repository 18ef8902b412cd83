//! Operation sequences into two endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use super::forge;
use super::pair::{Flight, LEN_MAX, Pair, addr};
use super::source::Source;
use homa_protocol::config::{Config, Wire};
use homa_protocol::error::{Report, Unreachable};
use homa_protocol::units::{Priority, RpcId};

/// Operations of one case.
const OPERATIONS_MAX: usize = 400;
/// Bytes of messages of one case.
const BYTES_MAX: usize = 4_000_000;
/// Within this time after the faults all must be over.
const PATIENCE: Duration = Duration::from_secs(200);

/// Takes the bytes for a list of operations on two endpoints and the network between them, and
/// carries them out: calls and answers of all lengths, calls given up, loss, duplication,
/// reordering, stalls, reports of unreachable peers, time. In half of the cases packets are damaged
/// and forged as well. In the end everything works for a while.
///
/// # Panics
/// If a bound is not kept, an endpoint does not come to rest or leaves something behind; without
/// damaged and forged packets also if bytes are not exact, a request is delivered twice, or a call
/// has not exactly one outcome. (Arithmetic overflow panics in builds that check for it.)
pub fn endpoint(data: &[u8]) {
    let mut source = Source::new(data);
    let mut case = Case::new(&mut source);
    for _ in 0..OPERATIONS_MAX {
        if source.is_empty() {
            break;
        }
        case.operate(&mut source);
    }
    case.heal();
}

struct Case {
    pair: Pair,
    /// Kinds of operations that happen in this case: few at a time reach deeper states than all.
    kinds: u32,
    forged: bool,
    bytes_left: usize,
}

impl Case {
    fn new(source: &mut Source<'_>) -> Self {
        let flags = source.byte();
        let forged = flags & 1 != 0;
        let wire = if flags & 2 != 0 {
            Wire::Native
        } else {
            Wire::Encapsulated
        };
        let config = match flags & 4 {
            0 => Config::default(),
            _ => small(source),
        };
        let packet_bytes = source.pick([1_472, 128, 576, 8_972, 65_535]);
        let mut pair = Pair::new(&config, wire, packet_bytes, forged);
        if flags & 8 != 0 {
            pair.answer_at_once = Some(source.pick([1, 500, 3_000, 60_000]));
        }
        Self {
            pair,
            kinds: u32::from(source.short()) << 16 | u32::from(source.short()) | 0xf,
            forged,
            bytes_left: BYTES_MAX,
        }
    }

    fn operate(&mut self, source: &mut Source<'_>) {
        let code = source.byte();
        let (kind, at) = (code & 0x1f, usize::from(code >> 7));
        if self.kinds & 1 << kind == 0 {
            return self.pair.run(Duration::from_micros(u64::from(code)), true);
        }
        if self.pair.hosts[at].stalled && kind < 16 {
            // A stopped process does nothing.
            return;
        }
        match kind {
            0 | 1 => self.call(source, at),
            2..=15 => self.application(source, kind, at),
            16..=25 => self.network(source, kind),
            _ => self.time(source, kind, at),
        }
    }

    fn length(&mut self, source: &mut Source<'_>) -> usize {
        let len = match source.byte() % 16 {
            0..=3 => source.below(100) + 1,
            4..=8 => source.below(4_000) + 1,
            9..=12 => source.below(60_000) + 1,
            13 => source.below(1_000_000) + 1,
            14 => LEN_MAX - 1,
            _ => source.pick([0, LEN_MAX]),
        };
        let len = if len > 100 && len > self.bytes_left && len < LEN_MAX {
            100
        } else {
            len
        };
        self.bytes_left = self.bytes_left.saturating_sub(len);
        len
    }

    fn call(&mut self, source: &mut Source<'_>, at: usize) {
        let len = self.length(source);
        let to = match source.byte() {
            0..=239 => addr(1 - at),
            240..=245 => addr(at),
            246..=250 => stranger(source),
            _ => source.pick([
                SocketAddr::from(([10, 0, 0, 1], 0)),
                SocketAddr::from(([224, 0, 0, 1], 9)),
                SocketAddr::from(([0, 0, 0, 0], 9)),
            ]),
        };
        self.pair.call(at, to, len, source.below(4) + 1);
    }

    fn application(&mut self, source: &mut Source<'_>, kind: u8, at: usize) {
        let (keys, requests) = {
            let host = &self.pair.hosts[at];
            (host.keys.len(), host.requests.len())
        };
        match kind {
            2..=7 => {
                let len = self.length(source);
                self.pair.respond(at, source.below(requests), len);
            }
            8 | 9 => self.pair.abort(at, source.below(keys)),
            10 => self.pair.drop_request(at, source.below(requests)),
            11 => {
                let to = self.peer(source, at);
                self.pair.abort_all(at, to);
            }
            12 if source.chance(64) => self.pair.close(at),
            13 => {
                let serves = source.chance(200);
                self.pair.hosts[at].endpoint.set_serving(serves);
            }
            14 => {
                let to = self.peer(source, at);
                let reason = source.pick([Unreachable::Port, Unreachable::Host]);
                let report = Report {
                    peer: to,
                    reason,
                    about: None,
                };
                self.pair.hosts[at].endpoint.handle_unreachable(&report);
                self.pair.drain(at);
            }
            _ => {
                self.pair.hosts[at].blocked ^= true;
                for _ in 0..source.below(20) {
                    self.pair.transmit(at);
                }
                self.pair.drain(at);
            }
        }
    }

    fn peer(&self, source: &mut Source<'_>, at: usize) -> SocketAddr {
        match source.byte() {
            0..=199 => addr(1 - at),
            200..=227 => addr(at),
            _ => stranger(source),
        }
    }

    fn network(&mut self, source: &mut Source<'_>, kind: u8) {
        let any = source.below(self.pair.network.len().min(256));
        match kind {
            16 => {
                for _ in 0..=source.below(16) {
                    if let Some(flight) = self.pair.network.pop_front() {
                        self.pair.deliver(flight);
                    }
                }
            }
            17 | 18 => {
                // Out of order.
                if let Some(flight) = self.pair.network.remove(any) {
                    self.pair.deliver(flight);
                }
            }
            19 => {
                for _ in 0..=source.below(8) {
                    self.pair.network.remove(any);
                }
            }
            20 => {
                // Second copies, which arrive after all that is under way, or at once.
                let copies = self.pair.network.iter().skip(any);
                let copies: Vec<Flight> = copies.take(source.below(16) + 1).cloned().collect();
                let at_once = source.chance(100);
                for flight in copies {
                    if at_once {
                        self.pair.deliver(flight);
                    } else {
                        self.pair.network.push_back(flight);
                    }
                }
            }
            21 => {
                if let Some(flight) = self.pair.network.pop_front() {
                    self.pair.network.push_back(flight);
                }
            }
            22 => self.pair.deliver_all(),
            23 if self.forged => {
                if let Some(flight) = self.pair.network.get_mut(any) {
                    forge::damage(source, &mut flight.bytes);
                }
            }
            _ if self.forged => self.forge(source),
            _ => self.pair.deliver_all(),
        }
    }

    /// Delivers a packet that nobody has sent.
    fn forge(&mut self, source: &mut Source<'_>) {
        let to = source.below(2);
        let from = self.peer(source, to);
        let ids = self.pair.calls.ids();
        let ports = (from.port(), addr(to).port());
        let (_, mut bytes) = forge::packet(source, ports, |source| {
            let any = || RpcId::new(0x9000);
            let id = match source.byte() {
                0..=199 => {
                    // The latest ones are likely to live.
                    let back = source.below(ids.len().min(32));
                    ids.len()
                        .checked_sub(back + 1)
                        .map_or_else(any, |at| ids[at])
                }
                200..=240 => RpcId::new(0x9000 + u64::from(source.byte())),
                _ => RpcId::new(source.word()),
            };
            if source.chance(128) {
                id.other_side()
            } else {
                id
            }
        });
        if source.chance(32) {
            forge::damage(source, &mut bytes);
        }
        if source.chance(192)
            && let Some(tokens) = self.pair.tokens.get(&(from, to))
        {
            // By somebody on the way.
            tokens.write(&mut bytes);
        }
        let local = source.pick([addr(to).ip(), addr(to).ip(), [10, 0, 0, 9].into()]);
        self.pair.deliver(Flight {
            from,
            to,
            local,
            sent: self.pair.now,
            bytes,
        });
    }

    fn time(&mut self, source: &mut Source<'_>, kind: u8, at: usize) {
        let amount = u64::from(source.byte());
        match kind {
            26 => self.pair.run(Duration::from_micros(amount * 40), true),
            27 => self.pair.run(Duration::from_micros(amount * 100), false),
            28 => self.pair.run(Duration::from_millis(amount * 10), true),
            29 => self.pair.run(Duration::from_millis(amount * 60), false),
            30 => {
                // Both were stopped, and run their timers before anything else.
                self.pair.now = self.pair.now + Duration::from_millis(amount * 40);
                self.pair.run_timers(at);
                self.pair.run_timers(1 - at);
            }
            _ => {
                if self.pair.hosts[at].stalled {
                    self.pair.run_on(at);
                } else {
                    self.pair.hosts[at].stalled = true;
                }
            }
        }
    }

    /// Everything works, and what has begun has to end.
    fn heal(&mut self) {
        for at in 0..2 {
            self.pair.run_on(at);
            self.pair.hosts[at].blocked = false;
            self.pair.hosts[at].endpoint.set_serving(true);
            self.pair.drain(at);
        }
        self.pair.answer_at_once = Some(10);
        for at in 0..2 {
            while !self.pair.hosts[at].requests.is_empty() {
                self.pair.respond(at, 0, 10);
            }
        }
        if self.forged {
            // A forged length can make two endpoints misunderstand each other until one gives up.
            self.pair.run(PATIENCE / 10, true);
            for at in 0..2 {
                for to in [addr(0), addr(1)].into_iter().chain(strangers()) {
                    self.pair.abort_all(at, to);
                }
            }
        }
        self.pair.run(PATIENCE, true);
        let open = self.pair.calls.open().next();
        assert!(open.is_none(), "no outcome: {open:?}");
        for host in &self.pair.hosts {
            let endpoint = &host.endpoint;
            assert!(
                endpoint.is_idle() && endpoint.rpcs_live() == 0,
                "{} RPCs are left at {}",
                endpoint.rpcs_live(),
                host.addr
            );
            let bytes = (endpoint.inbound_bytes(), endpoint.incoming_bytes());
            assert_eq!(bytes, (0, 0), "bytes are left at {}", host.addr);
            assert!(!endpoint.trace().to_string().is_empty() || endpoint.stats().packets_sent == 0);
        }
    }
}

fn strangers() -> impl Iterator<Item = SocketAddr> {
    (3..6).map(|last| SocketAddr::from(([10, 0, 0, last], 4_000)))
}

/// An address at which nobody is.
fn stranger(source: &mut Source<'_>) -> SocketAddr {
    let at = source.below(3);
    strangers().nth(at).unwrap_or(addr(0))
}

/// Settings with which bounds are reached soon.
fn small(source: &mut Source<'_>) -> Config {
    let count = |source: &mut Source<'_>| source.below(6) + 1;
    Config {
        unscheduled_bytes: source.pick([10_000, 1, 1_000_000, 1_000_000]),
        max_incoming_bytes: source.pick([10_000, 30_000, 1 << 30]),
        window_bytes: source.pick([0, 0, 1, 5_000, 1 << 30]),
        max_overcommit: source.below(8) + 1,
        grant_increment_bytes: source.pick([1, 10_000, 1_000_000]),
        grant_fifo_permille: source.pick([0, 50, 500]),
        fifo_grant_increment_bytes: source.pick([1, 50_000, 1_000_000]),
        num_priorities: u8::try_from(source.below(Priority::LEVELS)).unwrap_or(0) + 1,
        link_mbps: source.pick([None, Some(10_000), Some(100), Some(10_000_000)]),
        defer_min_bytes: source.pick([0, 1_000, 1_000_000]),
        pacer_fifo_permille: source.pick([0, 50, 500]),
        adaptive_cutoffs: source.pick([None, Some(true), Some(false)]),
        timeout: Duration::from_millis(source.pick([1_000, 50, 1])),
        timeout_resends: source.pick([10, 1]),
        freeze: source.chance(128),
        rpcs_max: count(source),
        rpcs_per_peer_max: count(source),
        inbound_bytes_per_peer_max: 2_000_000,
        incast_threshold: count(source),
        incast_unscheduled_bytes: source.pick([500, 1]),
        inbound_bytes_max: 2_000_000,
        outbound_bytes_max: 2_500_000,
        outbound_bytes_per_peer_max: 2_000_000,
        peers_max: count(source) + 1,
        ..Config::default()
    }
}
impl Drop for Case {
    /// After a finding: what happened last, if that is wanted (many inputs are tried to find a short
    /// one).
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("FUZZ_TRACE").is_some() {
            for host in &self.pair.hosts {
                let (trace, stats) = (host.endpoint.trace(), host.endpoint.stats());
                eprintln!("{}\n{trace}{stats:#?}", host.addr);
            }
            eprintln!("{:?} {:#?}", self.pair.now, self.pair.calls);
        }
    }
}
